"""Market data over ZeroMQ that loses nothing in silence. See README.md; errors are in fabric.errors."""

from fabric.client import (
    Batch,
    ChannelWriter,
    Client,
    Condition,
    Service,
    Standby,
    StandbyWriter,
    StateChange,
    Subscription,
    Table,
    connect,
    publish,
    serve,
    stand_by,
    subscribe,
)
from fabric.errors import FabricError, NotConnected, RecordsLost, RequestFailed, RequestTimedOut, SlowReader
from fabric.location import Location
from fabric.log import LogReader, open_log
from fabric.protocol.events import Lost, Skipped
from fabric.records import Flags, RecordType, record
from fabric.runtime.node import Node, Source
from fabric.runtime.ports import Input, InputPort, Output, OutputPort
from fabric.secret import Secret
from fabric.transport.security import CurveClient, CurveServer
from fabric.units import Bytes, Duration

__all__ = [
    "Batch",
    "Bytes",
    "ChannelWriter",
    "Client",
    "Condition",
    "CurveClient",
    "CurveServer",
    "Duration",
    "FabricError",
    "Flags",
    "Input",
    "InputPort",
    "Location",
    "LogReader",
    "Lost",
    "Node",
    "NotConnected",
    "Output",
    "OutputPort",
    "RecordType",
    "RecordsLost",
    "RequestFailed",
    "RequestTimedOut",
    "Secret",
    "Service",
    "Skipped",
    "SlowReader",
    "Source",
    "Standby",
    "StandbyWriter",
    "StateChange",
    "Subscription",
    "Table",
    "connect",
    "open_log",
    "publish",
    "record",
    "serve",
    "stand_by",
    "subscribe",
]
