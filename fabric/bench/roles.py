"""Sender and receiver: what a contestant provides, and the loops that all Python ones share.

Nothing but sending, or receiving and reading the clock, happens while the clock runs: messages are made before, and
what arrived is kept and checked afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.bench import records as layout
from fabric.bench.job import PACED, VALUES, Job
from fabric.records import Records

LEAD_NS = 20_000_000
"""From "go" to the first record of a schedule."""

monotonic_ns = time.monotonic_ns


class Sender:
    """One contestant's sending side, in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.records = layout.make(job.count, job.size_bytes, job.channels, job.seed)
        self.memory = self.records.view(np.uint8).data.cast("B")
        self.messages: list[Any] = []
        self.send: Callable[[Any], object] = self.unset

    def unset(self, message: Any) -> object:
        raise NotImplementedError

    def open(self) -> dict[str, Any]:
        """Listen; returns what receivers need to find this."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the messages of the run. Those of a paced one share memory with ``records``: times are put in later."""
        step = self.job.per_message * self.job.size_bytes
        parts = [self.memory[at : at + step] for at in range(0, len(self.memory), step)]
        self.messages = [self.live(part) for part in parts] if self.job.kind == PACED else [*map(bytes, parts)]

    def live(self, part: memoryview) -> Any:
        """A message whose bytes are still to change; ``send`` takes it."""
        return part

    def meet(self) -> None:
        """Wait until every receiver would get what is sent now."""

    def run(self) -> tuple[int, int]:
        """Send everything; returns when that began and ended (ns)."""
        if self.job.kind == PACED:
            return self.paced()
        if self.job.kind == VALUES:
            return self.values()
        return self.flood()

    def flood(self) -> tuple[int, int]:
        send = self.send
        began_ns = monotonic_ns()
        for message in self.messages:
            send(message)
        self.flush()
        return began_ns, monotonic_ns()

    def paced(self) -> tuple[int, int]:
        """Open loop: a record that is late is sent at once, with the time at which it should have been."""
        job, send, put, memory = self.job, self.send, layout.TIMES.pack_into, self.memory
        interval_ns = 1e9 / job.rate
        spins = job.pace == "spin"
        began_ns = monotonic_ns() + LEAD_NS
        offset = 0
        for number, message in enumerate(self.messages):
            intended_ns = began_ns + int(number * interval_ns)
            if spins:
                while (now_ns := monotonic_ns()) < intended_ns:
                    pass
            else:
                if (ahead_ns := intended_ns - monotonic_ns()) > 0:
                    time.sleep(ahead_ns * 1e-9)
                now_ns = monotonic_ns()
            put(memory, offset, intended_ns, now_ns)
            send(message)
            offset += job.size_bytes
        self.flush()
        return began_ns, monotonic_ns()

    def values(self) -> tuple[int, int]:
        """One call in Python for each record, which is made from four values there."""
        send, pack, seed = self.send, layout.WHOLE.pack, float(self.job.seed)
        began_ns = monotonic_ns()
        for number in range(self.job.count):
            bid = number * 0.5 + seed
            send(pack(0, 0, 0, 0, 1, number, bid, bid + 0.25, number % 1000 + 1.0))
        self.flush()
        return began_ns, monotonic_ns()

    def flush(self) -> None:
        """Where the library keeps back what was sent."""

    def check(self) -> str:
        """Where the sender's process is the receiver's as well: what is wrong with what arrived; "" if nothing is."""
        return ""

    def close(self) -> None:
        """The receivers have everything."""


class Receiver:
    """One contestant's receiving side."""

    unit: int
    """What ``len`` of a message gives for each record: its bytes, or 1 for arrays of records."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.unit = job.size_bytes
        self.received: list[Any] = []
        self.times: list[int] = []
        """When each message was there, of a paced run."""
        self.ended_ns = 0

    def open(self, address: dict[str, Any]) -> None:
        """Connect, as far as that can be known here."""
        raise NotImplementedError

    def receiving(self) -> Callable[[], Any]:
        """The function that gives the next message, or None where there is none (yet)."""
        raise NotImplementedError

    def run(self) -> None:
        """Receive everything. A deadline of the process ends what never comes."""
        receive, keep, wanted, seen = self.receiving(), self.received.append, self.job.count * self.unit, 0
        if self.job.kind == PACED:
            stamp = self.times.append
            while seen < wanted:
                message = receive()
                now_ns = monotonic_ns()
                if message is not None:
                    keep(message)
                    stamp(now_ns)
                    seen += len(message)
        else:
            while seen < wanted:
                message = receive()
                if message is not None:
                    keep(message)
                    seen += len(message)
        self.ended_ns = monotonic_ns()

    def records(self) -> Records:
        """Everything that arrived."""
        return np.frombuffer(b"".join(self.received), layout.record_type(self.job.size_bytes).dtype)

    def arrivals_ns(self) -> npt.NDArray[np.int64]:
        """When each record was there, of a paced run."""
        counts = [len(message) // self.unit for message in self.received]
        return np.repeat(np.asarray(self.times, np.int64), counts)

    def details(self) -> dict[str, Any]:
        """What the library says of itself: the path it took, what it had to recover."""
        return {}

    def close(self) -> None: ...


def check(receiver: Receiver) -> str:
    """What is wrong with what arrived; "" if nothing is."""
    job = receiver.job
    return layout.problem_of(receiver.records(), job.count, job.size_bytes, job.channels, job.seed)


def latencies_ns(receiver: Receiver) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """From the intended, and from the actual, time of sending; without the warm-up."""
    records = receiver.records()
    arrived_ns = receiver.arrivals_ns()
    first = receiver.job.warmup
    intended: npt.NDArray[np.int64] = (arrived_ns - records["ts_event_ns"])[first:]
    actual: npt.NDArray[np.int64] = (arrived_ns - records["ts_origin_ns"])[first:]
    return intended, actual


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
