"""Whose turn it is: replays of many clients, sent part by part in turns, at most so many bytes a second. No clock.

One client with a long replay holds up nobody: each has its turn after one part of every other's, and of several replays of
one client the oldest goes first.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

_BURST_NS = 50_000_000
"""What was not sent for so long may be sent at once."""
_LEAST_BURST_BYTES = 65_536
_SECOND_NS = 1_000_000_000
MOST_OF_A_CLIENT = 16
"""Replays of one client that wait; for one more its oldest is forgotten. (A client asks for one at a time.)"""

Replay = TypeVar("Replay")


class Turns(Generic[Replay]):
    """``rate_bytes`` a second for all clients together; 0: no limit. Times are monotonic nanoseconds."""

    def __init__(self, rate_bytes: int = 0) -> None:
        self._rate_bytes = rate_bytes
        self._burst_bytes = max(_LEAST_BURST_BYTES, rate_bytes * _BURST_NS // _SECOND_NS)
        self._allowed_bytes = self._burst_bytes
        self._counted_ns: int | None = None
        self._replays: dict[bytes, deque[Replay]] = {}
        """By client, in the order of their turns."""

    def __len__(self) -> int:
        return sum(map(len, self._replays.values()))

    def add(self, client: bytes, replay: Replay) -> None:
        """One more, behind those of the same client."""
        waiting = self._replays.setdefault(client, deque())
        if len(waiting) == MOST_OF_A_CLIENT:
            waiting.popleft()
        waiting.append(replay)

    def next(self, now_ns: int) -> tuple[bytes, Replay] | None:
        """Whose part is to be sent now, if anybody's; call ``sent``, ``done`` or ``drop`` before it is asked again."""
        if not self._replays or self.wait_ns(now_ns):
            return None
        client = next(iter(self._replays))
        return client, self._replays[client][0]

    def sent(self, client: bytes, size_bytes: int) -> None:
        """A part of it went out: the others come first now."""
        if self._rate_bytes:
            self._allowed_bytes -= size_bytes
        if client in self._replays:
            self._replays[client] = self._replays.pop(client)

    def done(self, client: bytes) -> None:
        """Nothing is left of its oldest replay."""
        waiting = self._replays[client]
        waiting.popleft()
        if not waiting:
            del self._replays[client]

    def drop(self, client: bytes) -> None:
        """The client is gone."""
        self._replays.pop(client, None)

    def wait_ns(self, now_ns: int) -> int | None:
        """How long until the next part may be sent; None where none waits."""
        if not self._replays:
            return None
        if not self._rate_bytes:
            return 0
        elapsed_ns = 0 if self._counted_ns is None else max(0, now_ns - self._counted_ns)
        earned = elapsed_ns * self._rate_bytes // _SECOND_NS
        if earned or self._counted_ns is None:
            self._counted_ns = now_ns  # only where it brought something: else a quick look would lose the fraction
            self._allowed_bytes = min(self._burst_bytes, self._allowed_bytes + earned)
        if self._allowed_bytes > 0:
            return 0
        return (1 - self._allowed_bytes) * _SECOND_NS // self._rate_bytes + 1
