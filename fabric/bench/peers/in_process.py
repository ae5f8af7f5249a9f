"""NautilusTrader's MessageBus: publish to one handler in the same process. No process is crossed: what a call costs."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from fabric.bench import records as layout
from fabric.bench.job import FLOOD, VALUES, Contestant, Job
from fabric.bench.roles import Receiver, Sender

CONTESTANTS = [
    Contestant(
        "nautilus MessageBus", __name__, "process", frozenset({FLOOD, VALUES}),
        "none: a function call to the handler, in one process", optional=True, in_process=True, most_readers=1,
    )
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return "" if importlib.util.find_spec("nautilus_trader") else "not installed (nautilus_trader)"


def make_sender(job: Job) -> Sender:
    return _BusSender(job)


def make_receiver(job: Job) -> Receiver:
    raise NotImplementedError("the handler is in the sender's process")


class _BusSender(Sender):
    def open(self) -> dict[str, Any]:
        from nautilus_trader.common.component import LiveClock, MessageBus
        from nautilus_trader.model.identifiers import TraderId

        self.bus = MessageBus(trader_id=TraderId("BENCH-001"), clock=LiveClock())
        self.received: list[bytes] = []
        self.bus.subscribe("bench.record", self.received.append)
        publish = self.bus.publish
        self.send = lambda message: publish("bench.record", message)
        return {}

    def check(self) -> str:
        records = np.frombuffer(b"".join(self.received), layout.record_type(self.job.size_bytes).dtype)
        return layout.problem_of(records, self.job.count, self.job.size_bytes, 1, self.job.seed)
