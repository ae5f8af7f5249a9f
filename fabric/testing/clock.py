"""A clock that stands still until it is told to move."""

from __future__ import annotations


class ManualClock:
    """Wall and monotonic time in nanoseconds; both move together, by ``advance`` alone."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._start_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._now_ns - self._start_ns

    def advance(self, by_ns: int) -> None:
        """Move forward. Raises ValueError for a step back."""
        if by_ns < 0:
            raise ValueError("time does not run backwards")
        self._now_ns += by_ns
