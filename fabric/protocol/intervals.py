"""What a subscription lacks and what it holds above a hole: two sorted lists of sequence intervals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any


@dataclass(slots=True)
class Hole:
    """Sequences ``first`` to ``last`` (inclusive) that exist and were not received.

    ``missed``: they were sent live while this subscriber listened (else they are older: catching up).
    ``lost``: why they can't be had, once that is known. ``off_log``: the mapped log of the session has them no more; whether
    the log server has is not known. ``pending``: another line may still bring it; it is not counted yet.
    """

    first: int
    last: int
    since_ns: int
    missed: bool
    unavailable: bool = False
    lost: str = ""
    off_log: bool = False
    pending: bool = False

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Held:
    """Records received above a hole. ``filled`` is the kind of hole they filled, "" if none."""

    first: int
    records: Any
    replayed: bool
    filled: str

    @property
    def last(self) -> int:
        return self.first + len(self.records) - 1


class Holes:
    """Sorted, disjoint holes."""

    def __init__(self) -> None:
        self._holes: list[Hole] = []

    def __iter__(self) -> Iterator[Hole]:
        return iter(self._holes)

    def __len__(self) -> int:
        return len(self._holes)

    def __bool__(self) -> bool:
        return bool(self._holes)

    @property
    def head(self) -> Hole:
        return self._holes[0]

    def add(self, hole: Hole, *, join: bool = True) -> bool:
        """Append above all others; False if it only made the last one longer (the same kind, without a break).

        Without ``join`` it stays a hole of its own, with its own ``since_ns``.
        """
        if self._holes and join:
            tail = self._holes[-1]
            assert hole.first > tail.last
            told = tail.unavailable or tail.lost or tail.off_log
            alike = tail.missed == hole.missed and tail.pending == hole.pending
            waits_longer = hole.pending and tail.since_ns != hole.since_ns
            if tail.last + 1 == hole.first and alike and not told and not waits_longer:
                tail.last = hole.last
                return False
        self._holes.append(hole)
        return True

    def insert_first(self, hole: Hole) -> None:
        assert not self._holes or hole.last < self._holes[0].first
        self._holes.insert(0, hole)

    def pop_head(self) -> Hole:
        return self._holes.pop(0)

    def clear(self) -> None:
        self._holes.clear()

    def fill(self, first: int, last: int) -> list[tuple[int, int, bool]]:
        """Take ``first`` to ``last`` out of the holes; returns the parts (first, last, missed) that were in one."""
        holes = self._holes
        at = max(0, bisect_right(holes, first, key=lambda hole: hole.first) - 1)
        parts: list[tuple[int, int, bool]] = []
        while at < len(holes) and holes[at].first <= last:
            hole = holes[at]
            begin, end = max(first, hole.first), min(last, hole.last)
            if begin > end:
                at += 1
                continue
            parts.append((begin, end, hole.missed))
            if begin == hole.first and end == hole.last:
                del holes[at]
            elif begin == hole.first:
                hole.first = end + 1
                at += 1
            elif end == hole.last:
                hole.last = begin - 1
                at += 1
            else:
                upper = replace(hole, first=end + 1)
                hole.last = begin - 1
                holes.insert(at + 1, upper)
                at += 2
        return parts

    def within(self, first: int, last: int) -> list[Hole]:
        """The holes that lie between ``first`` and ``last``, whole."""
        holes = self._holes
        begin = bisect_left(holes, first, key=lambda hole: hole.first)
        end = bisect_right(holes, last, key=lambda hole: hole.last)
        return holes[begin:end]

    def split_below(self, sequence: int) -> list[Hole]:
        """All holes below ``sequence``; one that reaches across it is cut in two first."""
        below = []
        for at, hole in enumerate(self._holes):
            if hole.first >= sequence:
                break
            if hole.last >= sequence:
                upper = replace(hole, first=sequence)
                hole.last = sequence - 1
                self._holes.insert(at + 1, upper)
            below.append(hole)
        return below

    def split_above(self, sequence: int) -> list[Hole]:
        """All holes above ``sequence``; one that reaches across it is cut in two first."""
        kept = len(self.split_below(sequence + 1))
        return self._holes[kept:]


class Holding:
    """Records received above a hole, in order, with a count."""

    def __init__(self) -> None:
        self._held: deque[Held] = deque()
        self.records = 0

    def __len__(self) -> int:
        return len(self._held)

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def head(self) -> Held:
        return self._held[0]

    def add(self, held: Held) -> None:
        """Insert in order; the caller made sure that it overlaps nothing."""
        self.records += len(held.records)
        if not self._held or held.first > self._held[-1].last:
            self._held.append(held)
            return
        self._held.insert(bisect_right(self._held, held.first, key=lambda each: each.first), held)

    def pop_head(self) -> Held:
        held = self._held.popleft()
        self.records -= len(held.records)
        return held

    def drop_through(self, sequence: int) -> None:
        """Forget everything up to ``sequence``."""
        while self._held and self._held[0].first <= sequence:
            held = self.pop_head()
            if held.last > sequence:
                cut = sequence - held.first + 1
                rest = Held(sequence + 1, held.records[cut:], held.replayed, held.filled)
                self._held.appendleft(rest)
                self.records += len(rest.records)
                return

    def clear(self) -> None:
        self._held.clear()
        self.records = 0
