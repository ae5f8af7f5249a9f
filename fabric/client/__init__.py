"""The embedded client: subscribe, look up and publish from a program of one's own."""

from fabric.client.batch import Batch
from fabric.client.condition import Condition
from fabric.client.connection import Client, connect, subscribe
from fabric.client.instruments import Instruments
from fabric.client.publishing import ChannelWriter, publish
from fabric.client.serving import Service, serve
from fabric.client.subscription import StateChange, Subscription
from fabric.client.table import Table

__all__ = [
    "Batch",
    "ChannelWriter",
    "Client",
    "Condition",
    "Instruments",
    "Service",
    "StateChange",
    "Subscription",
    "Table",
    "connect",
    "publish",
    "serve",
    "subscribe",
]
