"""Whom to ask for what is missing: the rungs of replay in their order, each with a breaker. Pure: time is a parameter.

    publisher's log ▸ archive's log ▸ …        above them: snapshot, then Lost

What a rung says it has no more climbs to the next one, and only that part. A rung that does not answer is passed over while
its breaker is open; that is no verdict: a range is gone only when each rung has said so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fabric.protocol.breaker import Breaker, BreakerLimits, BreakerState

Ranges = tuple[tuple[int, int], ...]
"""Inclusive (first, last) pairs, ascending and disjoint."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One place that replays. ``name`` is for people: ``log``, ``archive``, ``standby``."""

    name: str
    endpoint: str


@dataclass(slots=True)
class Plan:
    """What to do about the ranges that were given; each sequence of them is in one of the three."""

    asks: list[tuple[int, Ranges]] = field(default_factory=list)
    """(rung's number, ranges): may be asked now."""
    waits: Ranges = ()
    """Nobody may be asked now; again at ``wait_until_ns``."""
    gone: Ranges = ()
    """Every rung has said that it has not got them."""
    wait_until_ns: int | None = None


class Ladder:
    """The rungs of one channel's subscription, lowest first. ``listener`` is told (rung, before, now) of each breaker."""

    def __init__(
        self,
        rungs: Sequence[Rung],
        *,
        jitter: Callable[[], float],
        limits: BreakerLimits | None = None,
        listener: Callable[[Rung, BreakerState, BreakerState], None] | None = None,
    ) -> None:
        if not rungs:
            raise ValueError("a ladder has at least one rung")
        self.rungs = tuple(rungs)
        self.breakers = [self._breaker(rung, limits or BreakerLimits(), jitter, listener) for rung in rungs]
        self._begins = [0] * len(self.rungs)
        """Of each rung: the first sequence that it may have, by what it said."""

    @staticmethod
    def _breaker(
        rung: Rung,
        limits: BreakerLimits,
        jitter: Callable[[], float],
        listener: Callable[[Rung, BreakerState, BreakerState], None] | None,
    ) -> Breaker:
        told = None if listener is None else lambda before, now: listener(rung, before, now)
        return Breaker(limits, jitter, told)

    @property
    def begins(self) -> int:
        """The first sequence that any rung may have: what is below is gone."""
        return min(self._begins)

    def plan(self, missing: Ranges, now_ns: int, prefer: int = 0) -> Plan:
        """Each part to the lowest rung that may have it and may be asked; to ``prefer``, if that is one of them."""
        plan = Plan()
        asks: dict[int, list[tuple[int, int]]] = {}
        waits: list[tuple[int, int]] = []
        gone: list[tuple[int, int]] = []
        edges = sorted(set(self._begins))
        for first, last in missing:
            for begin, end in _cut(first, last, edges):
                having = [number for number, begins in enumerate(self._begins) if begins <= begin]
                willing = [number for number in having if self.breakers[number].may_ask(now_ns)]
                if willing:
                    _join(asks.setdefault(prefer if prefer in willing else willing[0], []), begin, end)
                elif having:
                    _join(waits, begin, end)
                    soonest = min(self.breakers[number].next_ns(now_ns) for number in having)
                    plan.wait_until_ns = soonest if plan.wait_until_ns is None else min(plan.wait_until_ns, soonest)
                else:
                    _join(gone, begin, end)
        plan.asks = [(number, tuple(asks[number])) for number in sorted(asks)]
        plan.waits, plan.gone = tuple(waits), tuple(gone)
        return plan

    def asked(self, rung: int, now_ns: int) -> None:
        """A request goes to this rung."""
        self.breakers[rung].asked(now_ns)

    def answered(self, rung: int, first_available: int | None = None) -> None:
        """It answered; ``first_available`` of an UNAVAILABLE: it has nothing below that."""
        self.breakers[rung].succeeded()
        if first_available is not None:
            self._begins[rung] = max(self._begins[rung], first_available)

    def knows_nothing(self, rung: int) -> None:
        """It answered UNKNOWN_SESSION: of this session it has nothing at all."""
        self.answered(rung, NOTHING)

    def failed(self, rung: int, now_ns: int) -> None:
        """No answer in time, or BAD_REQUEST."""
        self.breakers[rung].failed(now_ns)

    def restart(self) -> None:
        """Another session: what the rungs said of the one before holds no more; whether they answer does."""
        self._begins = [0] * len(self.rungs)


NOTHING = 1 << 63
"""Above every sequence."""


def _cut(first: int, last: int, edges: Sequence[int]) -> list[tuple[int, int]]:
    """A range in pieces, none of which reaches across an edge (the first sequence of what comes after)."""
    pieces, begin = [], first
    for edge in edges:
        if begin < edge <= last:
            pieces.append((begin, edge - 1))
            begin = edge
    return [*pieces, (begin, last)]


def _join(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], last)
    else:
        ranges.append((first, last))
