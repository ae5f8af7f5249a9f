"""How long to wait before trying again."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Doubling from ``minimum_ns`` to ``maximum_ns``, times 0.5 to 1.5 by ``random`` (0 to 1), so that clients which lost
    the same server do not come back at the same moment. Never above ``maximum_ns``."""

    def __init__(self, minimum_ns: int, maximum_ns: int, random: Callable[[], float]) -> None:
        self._minimum_ns = minimum_ns
        self._maximum_ns = maximum_ns
        self._random = random
        self._doublings = 0

    def next_ns(self) -> int:
        """The next pause."""
        pause_ns = min(self._maximum_ns, self._minimum_ns << self._doublings)
        if pause_ns < self._maximum_ns:
            self._doublings += 1
        return min(self._maximum_ns, int(pause_ns * (0.5 + self._random())))

    def reset(self) -> None:
        """It worked: begin with the shortest pause again."""
        self._doublings = 0
