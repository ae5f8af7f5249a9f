"""The words of line arbitration: what bounds it, what it hands out, what it counts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from fabric.protocol.lines import LineBack, LineLost, LineState

PASSED = "all lines passed it"
TIMED_OUT = "no line brought it in time"
FORCED = "too much was held above it, or the numbering after it was wanted"


@dataclass(frozen=True, slots=True)
class ArbitrationLimits:
    """Times in nanoseconds. Nothing in an arbiter grows past ``max_held`` but what its caller leaves untaken."""

    reorder_ns: int = 10_000_000
    """A hole waits this long for lines that have not passed it; a restart, for lines that have not made it."""
    recover_ns: int = 0
    """How long a hole that is due stays open after all: to ``recover``, and to lines that do not keep order."""
    stale_ns: int = 2_000_000_000
    max_held: int = 4096
    """Packets (or parts of them) above a hole; also holes."""
    restart_window: int | None = 1000
    """A line whose numbers go back by more than this has restarted; None: numbers never restart within a session."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages ``first`` to ``last``, each for the first and only time.

    ``payload`` is the packet's, whose first message is ``packet_first``; with a slicing function, just the part.
    ``line`` is the one that brought it, "" if it was recovered.
    """

    first: int
    last: int
    payload: Any
    packet_first: int
    line: str

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages ``first`` to ``last`` (inclusive) came on no line; they won't be delivered any more."""

    first: int
    last: int
    reason: str

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Messages ``first`` to ``last`` are not delivered: the snapshot that was resumed at holds their effect."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """From here on another numbering, whose first number is ``first``; the old one went to ``highest``."""

    old: Hashable
    new: Hashable
    highest: int
    first: int


Item = Delivered | Gap | PassedOver | Restarted | LineLost | LineBack


@dataclass(slots=True)
class LineCounters:
    """Messages, unless the name says otherwise: received = first + duplicates + late + early + old."""

    packets: int = 0
    heartbeats: int = 0
    received: int = 0
    first: int = 0
    """Brought before any other line did."""
    duplicates: int = 0
    late: int = 0
    """Of a gap that was declared already, or of what was passed over."""
    early: int = 0
    """Below the number that the numbering was started at."""
    old: int = 0
    """Of a numbering that is over."""
    gaps: int = 0
    """Forward jumps of this line alone (jumps, not messages)."""
    lacked: int = 0
    """Messages that this line jumped over and has not brought since, whoever else brought them."""


@dataclass(slots=True)
class Account:
    """Of one numbering: highest - start + 1 = delivered + lost + skipped + held + missing."""

    session: Hashable
    start: int
    highest: int
    delivered: int = 0
    lost: int = 0
    skipped: int = 0
    held: int = 0
    missing: int = 0

    @property
    def adds_up(self) -> bool:
        told = self.delivered + self.lost + self.skipped + self.held + self.missing
        return self.highest - self.start + 1 == told and min(self.held, self.missing) >= 0


@dataclass(slots=True)
class ArbitrationCounters:
    """Messages, unless the name says otherwise. Over all numberings:
    the lines' ``first`` + recovered = delivered + held + discarded."""

    delivered: int = 0
    gaps: int = 0
    """Gaps declared (gaps, not messages)."""
    lost: int = 0
    forced: int = 0
    """Of those lost, the ones given up before their time: too much was held, or a numbering had to end."""
    skipped: int = 0
    recovered: int = 0
    spare: int = 0
    """Handed to ``recover`` and not wanted (any more)."""
    discarded: int = 0
    """Held, then passed over by a snapshot."""
    unplaced: int = 0
    """Packets dropped while waiting for a snapshot, because too many waited."""
    restarts: int = 0


@dataclass(slots=True)
class ArbitrationReport:
    counters: ArbitrationCounters
    states: dict[str, LineState]
    losses: dict[str, int]
    """How often each line was lost."""
    lines: dict[str, LineCounters]
    accounts: list[Account] = field(default_factory=list)
    """Of the last numberings that are over, then of the open ones."""

    @property
    def adds_up(self) -> bool:
        total = self.counters
        held = sum(account.held for account in self.accounts)
        came = sum(line.first for line in self.lines.values()) + total.recovered
        return (
            all(account.adds_up for account in self.accounts)
            and came == total.delivered + held + total.discarded
            and all(
                line.received == line.first + line.duplicates + line.late + line.early + line.old
                for line in self.lines.values()
            )
        )
