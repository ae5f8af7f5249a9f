"""zmq.asyncio, pyzmq's sockets for event loops, in asyncio's own loop and in uvloop. The sender is a blocking one."""

from __future__ import annotations

from typing import Any

import zmq
import zmq.asyncio

from fabric.bench.job import FLOOD, PACED, Contestant, Job
from fabric.bench.loops import new_loop, why_missing
from fabric.bench.peers.raw_zmq import FLOW, ZmqSender
from fabric.bench.roles import Receiver, Sender, monotonic_ns

CONTESTANTS = [
    Contestant(f"zmq.asyncio {loop} {transport}", __name__, transport, frozenset({PACED, FLOOD}), FLOW, loop=loop)
    for transport in ("ipc", "tcp")
    for loop in ("asyncio", "uvloop")
]


def missing(contestant: Contestant) -> str:
    return why_missing(contestant.loop)


def make_sender(job: Job) -> Sender:
    return ZmqSender(job)


def make_receiver(job: Job) -> Receiver:
    return _LoopReceiver(job)


class _LoopReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        self.loop = new_loop(self.job.loop)
        self.loop.run_until_complete(self._open(address))

    async def _open(self, address: dict[str, Any]) -> None:
        self.socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        self.socket.connect(address["endpoint"])
        self.socket.subscribe(b"")

    def run(self) -> None:
        self.loop.run_until_complete(self._run())

    async def _run(self) -> None:
        wanted, seen = self.job.count * self.unit, 0
        keep, stamp, receive = self.received.append, self.times.append, self.socket.recv
        while seen < wanted:
            message = await receive()
            stamp(monotonic_ns())
            keep(message)
            seen += len(message)
        self.ended_ns = monotonic_ns()
