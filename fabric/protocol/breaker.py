"""A circuit breaker of one endpoint: whom to leave alone for a while, and how to find out that he is back. No clock.

CLOSED ── failures in a row ──▶ OPEN ── its pause is over ──▶ HALF_OPEN ── successes ──▶ CLOSED
                                 ▲                               │ one probe at a time
                                 └────────── a failure, pause doubled ──────────┘
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class BreakerState(enum.StrEnum):
    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """Counts, and times in nanoseconds."""

    failures: int = 3
    """In a row, that open it."""
    probes: int = 2
    """Successes in a row, that close it again."""
    pause_min_ns: int = 20_000_000
    pause_max_ns: int = 2_000_000_000
    probe_timeout_ns: int = 1_000_000_000
    """A probe of which nothing was heard for so long is forgotten: another one may go."""


Listener = Callable[[BreakerState, BreakerState], None]


class Breaker:
    """``jitter`` gives a factor for each pause, such as ``0.5 + random()``; ``listener`` is told (before, now) of each change."""

    def __init__(self, limits: BreakerLimits, jitter: Callable[[], float], listener: Listener | None = None) -> None:
        self._limits = limits
        self._jitter = jitter
        self._listener = listener
        self.state = BreakerState.CLOSED
        self.opened = 0
        """How often, since the beginning."""
        self._failures = 0
        self._probes = 0
        self._opened_in_a_row = 0
        self._until_ns = 0
        self._probe_ns: int | None = None

    def may_ask(self, now_ns: int) -> bool:
        """Whether a request may go now; the caller then says ``asked``."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now_ns >= self._until_ns
        return self._probe_ns is None or now_ns - self._probe_ns >= self._limits.probe_timeout_ns

    def next_ns(self, now_ns: int) -> int:
        """When a request may go at the earliest."""
        if self.may_ask(now_ns):
            return now_ns
        if self.state is BreakerState.OPEN or self._probe_ns is None:
            return self._until_ns
        return self._probe_ns + self._limits.probe_timeout_ns

    def asked(self, now_ns: int) -> None:
        """A request goes out."""
        if self.state is BreakerState.OPEN:
            self._probes = 0
            self._change(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            self._probe_ns = now_ns

    def succeeded(self) -> None:
        """It answered, whatever it said."""
        self._failures = 0
        self._probe_ns = None
        if self.state is BreakerState.HALF_OPEN:
            self._probes += 1
            if self._probes >= self._limits.probes:
                self._opened_in_a_row = 0
                self._change(BreakerState.CLOSED)

    def failed(self, now_ns: int) -> None:
        """It did not answer in time, or refused."""
        self._failures += 1
        self._probe_ns = None
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self._failures >= self._limits.failures
        ):
            pause = min(self._limits.pause_min_ns << min(self._opened_in_a_row, 20), self._limits.pause_max_ns)
            self._until_ns = now_ns + int(pause * self._jitter())
            self._opened_in_a_row += 1
            self._failures = 0
            self.opened += 1
            self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> None:
        before, self.state = self.state, state
        if self._listener is not None:
            self._listener(before, state)
