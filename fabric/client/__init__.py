"""The embedded client: subscribe, look up and publish from a program of one's own."""

from fabric.client.batch import Batch
from fabric.client.condition import Condition
from fabric.client.connection import Client, connect, subscribe
from fabric.client.instruments import Instruments
from fabric.client.publishing import ChannelWriter, Standby, publish
from fabric.client.serving import Service, serve
from fabric.client.standing import StandbyWriter, stand_by
from fabric.client.subscription import StateChange, Subscription
from fabric.client.table import Table

__all__ = [
    "Batch",
    "ChannelWriter",
    "Client",
    "Condition",
    "Instruments",
    "Service",
    "Standby",
    "StandbyWriter",
    "StateChange",
    "Subscription",
    "Table",
    "connect",
    "publish",
    "serve",
    "stand_by",
    "subscribe",
]
