"""Market data over ZeroMQ that loses nothing in silence. See README.md; errors are in fabric.errors."""

from fabric.location import Location
from fabric.records import Flags, RecordType, record
from fabric.runtime.node import Node, Source
from fabric.runtime.ports import Input, InputPort, Output, OutputPort

__all__ = ["Flags", "Input", "InputPort", "Location", "Node", "Output", "OutputPort", "RecordType", "Source", "record"]
