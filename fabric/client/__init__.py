"""The embedded client: subscribe and publish from a program of one's own."""

from fabric.client.batch import Batch
from fabric.client.publishing import ChannelWriter, publish
from fabric.client.subscribing import ChannelSubscription, subscribe

__all__ = ["Batch", "ChannelSubscription", "ChannelWriter", "publish", "subscribe"]
