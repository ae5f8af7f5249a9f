"""A case: one thing that a program measures, of every contestant that can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fabric.bench.job import FLOOD, PACED, Contestant, Job

MOST_RECORDS, MOST_BYTES = 3_000_000, 192 << 20
"""Of one run: what is kept until it is checked must fit into memory several times."""


DEFAULT_RATES = (1_000.0, 10_000.0)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    rounds: int = 15
    seconds: float = 1.0
    rates: tuple[float, ...] = DEFAULT_RATES
    peers: bool = False
    quick: bool = False
    only: tuple[str, ...] = ()
    """Contestants by name; none: all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One table of the output."""

    program: str
    title: str
    kind: str = FLOOD
    pins: str = "anywhere"
    """``same-cpu``, ``two-cpu`` or ``anywhere``."""
    idle: str = "block"
    loop: bool = False
    """Receivers in event loops."""
    rate: float = 0.0
    size_bytes: int = 64
    per_message: int = 1
    channels: int = 1
    readers: int = 1
    busy: bool = False
    judged: bool = True
    """False: figures alone, no ratios."""

    @property
    def is_latency(self) -> bool:
        return self.kind == PACED

    def takes(self, contestant: Contestant) -> bool:
        if contestant.in_process and self.is_latency:
            return False
        return contestant.fits(
            self.kind,
            "loop" if self.loop else "",
            self.readers,
            self.channels,
            self.per_message * self.size_bytes,
            self.per_message,
        )

    def idle_of(self, contestant: Contestant) -> str:
        """Who can't spin blocks, and the table says so."""
        return self.idle if self.idle in contestant.idle else "block"

    def cpus(self, allowed: Sequence[int]) -> tuple[list[int], list[int]]:
        """Of the sender, of the receivers."""
        if self.pins == "same-cpu":
            return [allowed[0]], [allowed[0]]
        if self.pins == "two-cpu":
            return [allowed[0]], [allowed[1]]
        return [], []

    def lacks(self, allowed: Sequence[int]) -> str:
        """Why it can't run on this machine; "" if it can."""
        if self.pins != "anywhere" and not allowed:
            return "processes can't be pinned to a CPU on this system"
        return "it needs two CPUs" if self.pins == "two-cpu" and len(allowed) < 2 else ""

    def job(self, contestant: Contestant, count: int, round_number: int) -> Job:
        warmup = min(count // 5, max(50, int(self.rate / 5))) if self.is_latency else 0
        expected_s = count / self.rate if self.rate else 0.0
        return Job(
            contestant.name,
            contestant.module,
            self.kind,
            count,
            directory="",
            memory="",
            transport=contestant.transport,
            loop=contestant.loop,
            size_bytes=self.size_bytes,
            per_message=self.per_message,
            rate=self.rate,
            warmup=warmup,
            channels=self.channels,
            readers=self.readers,
            idle=self.idle_of(contestant),
            pace=self.idle,
            busy=self.busy,
            seed=round_number,
            deadline_s=30.0 + 3.0 * expected_s,
        )

    def most(self) -> int:
        """Records of one run, at most."""
        return min(MOST_RECORDS, MOST_BYTES // self.size_bytes // max(1, self.readers // 2))
