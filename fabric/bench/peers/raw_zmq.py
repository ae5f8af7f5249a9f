"""ZeroMQ through pyzmq, used as simply as it can be: XPUB to SUB, one message each for one or more records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import zmq

from fabric.bench import records as layout
from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.roles import Receiver, Sender
from fabric.records import Records

MEET_MS = 20_000
FLOW = "XPUB_NODROP: send blocks while a reader's high-water mark (1000 messages each side) is reached"
_TOPIC_BYTES = 8

CONTESTANTS = [
    Contestant(
        f"pyzmq {transport}", __name__, transport, frozenset({PACED, FLOOD, VALUES}), FLOW,
        idle=("block", "spin"), most_channels=1000,
    )
    for transport in ("ipc", "tcp")
] + [
    # As many records, each a message of its own: what batches are to be better than.
    Contestant("pyzmq ipc, each", __name__, "ipc", frozenset({FLOOD}), FLOW, least_per_message=2)
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return ""


def make_sender(job: Job) -> Sender:
    return ZmqSender(_as_sent(job))


def make_receiver(job: Job) -> Receiver:
    return _ZmqReceiver(_as_sent(job))


def _as_sent(job: Job) -> Job:
    return replace(job, per_message=1) if job.contestant.endswith("each") else job


def topic(channel: int) -> bytes:
    return channel.to_bytes(_TOPIC_BYTES, "little")


class ZmqSender(Sender):
    """Also of other receivers: the C one, and those in event loops."""

    socket: zmq.Socket[bytes]

    def open(self) -> dict[str, Any]:
        self.socket = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells a topic again for each reader that asks for it
        self.socket.setsockopt(zmq.LINGER, 0)
        ipc = self.job.transport == "ipc"
        self.socket.bind(f"ipc://{self.job.directory}/zmq" if ipc else "tcp://127.0.0.1:*")
        self.send = self.socket.send
        return {"endpoint": self.socket.last_endpoint.decode().rstrip("\0")}

    def prepare(self) -> None:
        super().prepare()
        if self.job.channels > 1:
            self.messages = [
                topic(number % self.job.channels) + message for number, message in enumerate(self.messages)
            ]

    def meet(self) -> None:
        for _ in range(self.job.readers * self.job.channels):
            if not self.socket.poll(MEET_MS):
                raise TimeoutError("a reader has not subscribed")
            self.socket.recv()

    def close(self) -> None:
        self.socket.close()


class _ZmqReceiver(Receiver):
    socket: zmq.Socket[bytes]

    def open(self, address: dict[str, Any]) -> None:
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.connect(address["endpoint"])
        self.prefix = _TOPIC_BYTES if self.job.channels > 1 else 0
        self.unit += self.prefix
        for channel in range(self.job.channels):
            self.socket.subscribe(topic(channel) if self.prefix else b"")

    def receiving(self) -> Callable[[], Any]:
        receive: Callable[..., Any] = self.socket.recv
        if self.job.idle != "spin":
            return receive

        def spinning() -> Any:
            while True:
                try:
                    return receive(zmq.DONTWAIT)
                except zmq.Again:
                    pass

        return spinning

    def records(self) -> Records:
        if not self.prefix:
            return super().records()
        dtype = layout.record_type(self.job.size_bytes).dtype
        whole = np.dtype([("topic", "<u8"), ("record", dtype)])
        records: Records = np.frombuffer(b"".join(self.received), whole)["record"]
        return records

    def close(self) -> None:
        self.socket.close(0)
