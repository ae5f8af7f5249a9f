"""The primary's side of a `sync` standby, for one channel: what it has, and whether a write may become visible. No socket, no
clock: times are monotonic nanoseconds, sequences are of one session.

    ALONE ── join ──▶ CATCHING_UP ── has all that was there when it joined ──▶ IN_SYNC
      ▲                    │                                                     │
      └────────── silent, or a write not acknowledged, for ``deadline_ns`` ──────┘        any ── taken over ──▶ TAKEN_OVER

IN_SYNC, a write is visible once it is acknowledged. In the other states what is done depends on ``on_lost``: ``stop`` waits,
then gives up the write and the writer; ``go_on`` makes it visible at once, as without a standby.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

OnLost = Literal["stop", "go_on"]


class Standing(enum.StrEnum):
    """How a channel stands to its standby."""

    ALONE = "ALONE"
    CATCHING_UP = "CATCHING_UP"
    IN_SYNC = "IN_SYNC"
    TAKEN_OVER = "TAKEN_OVER"


class Verdict(enum.Enum):
    """Of a write that the standby was sent."""

    GO = "may be seen"
    WAIT = "not yet"
    LOST = "the standby does not answer"
    TAKEN_OVER = "another writer has the channel"


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """``first_join_ns``: how long the first write of all waits for a standby to join, where it has to."""

    on_lost: OnLost = "stop"
    deadline_ns: int = 1_000_000_000
    first_join_ns: int = 30_000_000_000


class SyncGate:
    """One standby at a time; ``who`` is 8 random bytes of its process."""

    def __init__(self, limits: SyncLimits) -> None:
        self.limits = limits
        self.state = Standing.ALONE
        self.standby = b""
        self.flushes = False
        """It says that what it acknowledges is on its disk."""
        self.acked = 0
        """It has all records below this sequence, as far as its log reaches back."""
        self.joins = 0
        self.lost = 0
        """How often it was given up."""
        self.taken_by = 0
        """The session that has taken the channel over."""
        self._needed = 0
        self._heard_ns = 0
        self._progress_ns = 0
        self._was_in_sync = False

    def may_join(self, who: bytes, now_ns: int) -> bool:
        """Another one only when the one before has fallen silent."""
        if self.state is Standing.TAKEN_OVER:
            return False
        return self.state is Standing.ALONE or who == self.standby or self._silent(now_ns)

    def join(self, who: bytes, has: int, sent: int, now_ns: int, *, flushes: bool = False) -> None:
        """It has all below ``has``, and is sent everything from ``sent`` on."""
        self.standby, self.acked, self.flushes = who, has, flushes
        self._needed = sent
        self._heard_ns = self._progress_ns = now_ns
        self.joins += 1
        self.state = Standing.CATCHING_UP
        self._settle()

    def ack(self, who: bytes, has: int, now_ns: int) -> None:
        """It has all below ``has``; said also when nothing is new."""
        if who != self.standby or self.state not in (Standing.CATCHING_UP, Standing.IN_SYNC):
            return
        self._heard_ns = now_ns
        if has > self.acked:
            self.acked = has
            self._progress_ns = now_ns
            self._settle()

    def taken_over(self, session: int) -> None:
        """By whoever said so, of a newer session than ours."""
        self.taken_by = session
        self.state = Standing.TAKEN_OVER

    def drop(self) -> None:
        """Go on without it; it may join again."""
        if self.state is not Standing.TAKEN_OVER:
            self.state = Standing.ALONE
            self.lost += 1

    def silent(self, now_ns: int) -> bool:
        """A standby that had joined says nothing any more: to be dropped."""
        return self.state in (Standing.CATCHING_UP, Standing.IN_SYNC) and self._silent(now_ns)

    def verdict(self, end: int, since_ns: int, now_ns: int) -> Verdict:
        """Of records up to below ``end``, which have been waiting since then."""
        limits = self.limits
        if self.state is Standing.TAKEN_OVER:
            return Verdict.TAKEN_OVER
        if self.state is Standing.IN_SYNC and self.acked >= end:
            return Verdict.GO
        if self.state is not Standing.IN_SYNC and limits.on_lost == "go_on":
            return Verdict.GO
        patience_ns = limits.deadline_ns
        if self.state is Standing.ALONE and not self._was_in_sync:
            patience_ns = max(patience_ns, limits.first_join_ns)
        waited_ns = now_ns - (since_ns if self.state is Standing.ALONE else max(since_ns, self._progress_ns))
        return Verdict.WAIT if waited_ns <= patience_ns else Verdict.LOST

    def _settle(self) -> None:
        if self.state is Standing.CATCHING_UP and self.acked >= self._needed:
            self.state = Standing.IN_SYNC
            self._was_in_sync = True

    def _silent(self, now_ns: int) -> bool:
        return now_ns - self._heard_ns > self.limits.deadline_ns
