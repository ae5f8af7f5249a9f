"""One numbering of a redundant stream: what was delivered, what is held above a hole, what is missing."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from fabric.protocol.arbitration_types import (
    FORCED,
    PASSED,
    TIMED_OUT,
    Account,
    ArbitrationCounters,
    Delivered,
    Gap,
    Item,
    LineCounters,
    PassedOver,
)
from fabric.protocol.intervals import Hole, Holes

Slice = Callable[[Any, int, int], Any]
"""(payload, offset, count) to the payload of just these messages."""


@dataclass(slots=True)
class Place:
    """Where one line is in a numbering: the number it brings next, and what it jumped over (the last such holes)."""

    next: int
    jumped: Holes


class Numbering:
    """From ``start`` on. All below ``next`` is settled: delivered, lost or passed over.

    Above it is only what waits: ``held`` messages, and the ``holes`` between them up to ``highest``.
    """

    def __init__(
        self,
        session: Hashable,
        start: int,
        max_held: int,
        counters: ArbitrationCounters,
        cut: Slice | None,
    ) -> None:
        self.session = session
        self.start = self.next = start
        self.highest = start - 1
        self.holes = Holes()
        self.places: dict[str, Place] = {}
        self.following: Numbering | None = None
        self._held: list[Delivered] = []
        self._given_up = Holes()  # lost and passed over: the last such ranges, to tell late from duplicate
        self._passed: deque[tuple[int, int, str]] = deque()  # no line can fill holes up to here, since then, why
        self._max_held = max_held
        self._counters = counters
        self._cut = cut
        self._lost = self._skipped = self._delivered = 0

    @property
    def held(self) -> int:
        """Packets, or parts of them."""
        return len(self._held)

    def account(self) -> Account:
        held = sum(item.count for item in self._held)
        missing = sum(hole.count for hole in self.holes)
        return Account(
            self.session, self.start, self.highest, self._delivered, self._lost, self._skipped, held, missing
        )

    # What comes

    def accept(self, line: str, first: int, count: int, payload: Any, now_ns: int, tally: LineCounters) -> None:
        """A line brought these messages: keep what is new, count the rest."""
        last = first + count - 1
        self.place(line, first, last + 1, now_ns, tally)
        at = max(first, self.start)
        tally.early += min(at, last + 1) - first
        late = sum(end - begin + 1 for begin, end, _ in self._given_up.fill(at, last)) if at < self.next else 0
        new = self._keep(line, at, last, payload, first)
        if last > self.highest:
            begin = max(at, self.highest + 1)
            self.reach(begin, now_ns)
            self.highest = last
            new += self._hold(begin, last, payload, first, line)
        tally.first += new
        tally.late += late
        tally.duplicates += max(0, last - at + 1) - new - late

    def recover(self, first: int, count: int, payload: Any) -> None:
        """Fill holes from another source. Only what is missing is taken."""
        new = self._keep("", max(first, self.start), first + count - 1, payload, first)
        self._counters.recovered += new
        self._counters.spare += count - new

    def reach(self, next_sequence: int, now_ns: int) -> None:
        """Everything below this number exists."""
        if next_sequence > self.highest + 1:
            self.holes.add(Hole(self.highest + 1, next_sequence - 1, now_ns, missed=True), join=False)
            self.highest = next_sequence - 1

    def place(self, line: str, first: int, following: int, now_ns: int, tally: LineCounters) -> None:
        """The line is beyond ``following`` - 1, having brought ``first`` on."""
        place = self.places.get(line)
        if place is None:
            self.places[line] = Place(following, Holes())
            return
        if first > place.next:
            tally.gaps += 1
            tally.lacked += first - place.next
            place.jumped.add(Hole(place.next, first - 1, now_ns, missed=True), join=False)
            if len(place.jumped) > self._max_held:
                place.jumped.pop_head()
        elif first < place.next and place.jumped:
            tally.lacked -= sum(end - begin + 1 for begin, end, _ in place.jumped.fill(first, following - 1))
        place.next = max(place.next, following)

    def pass_by(self, line: str, following: int) -> None:
        """This numbering is over, but the line is still in it: that it goes back must be seen."""
        place = self.places.setdefault(line, Place(following, Holes()))
        place.next = max(place.next, following)

    def _keep(self, line: str, first: int, last: int, payload: Any, packet_first: int) -> int:
        if not self.holes or last < self.holes.head.first:
            return 0
        return sum(
            self._hold(begin, end, payload, packet_first, line) for begin, end, _ in self.holes.fill(first, last)
        )

    def _hold(self, first: int, last: int, payload: Any, packet_first: int, line: str) -> int:
        if self._cut is not None:
            payload, packet_first = self._cut(payload, first - packet_first, last - first + 1), first
        item = Delivered(first, last, payload, packet_first, line)
        if not self._held or first > self._held[-1].first:
            self._held.append(item)
        else:
            insort(self._held, item, key=lambda other: other.first)
        return item.count

    # What is settled

    def settle(self, floor: int | None, now_ns: int, reorder_ns: int, recover_ns: int) -> Iterator[Item]:
        """Deliver and declare what is due. Every line that is waited for has passed all below ``floor``."""
        for hole in self.holes:
            if floor is not None and hole.first < floor:
                self._pass(min(hole.last, floor - 1), PASSED, now_ns)
            if now_ns - hole.since_ns >= reorder_ns:
                self._pass(hole.last, TIMED_OUT, now_ns)
            if self._passed_through < hole.last:
                break
        while self._passed and (not self.holes or self.holes.head.first > self._passed[0][0]):
            self._passed.popleft()
        while self._passed and now_ns - self._passed[0][1] >= recover_ns:
            through, _, why = self._passed.popleft()
            yield from self._give_up(through, why)
        yield from self._deliver()

    def force(self) -> Iterator[Item]:
        """Give up the lowest hole."""
        head = self.holes.head
        self._counters.forced += head.count
        yield from self._give_up(head.last, FORCED)
        yield from self._deliver()

    def wanted(self) -> list[tuple[int, int]]:
        """What no line can fill any more and is still open to ``recover``: first and last of each hole."""
        through = self._passed_through
        return [(hole.first, min(hole.last, through)) for hole in self.holes if hole.first <= through]

    def pass_over(self, sequence: int) -> Iterator[Item]:
        """A snapshot holds the effect of all below ``sequence``."""
        self.highest = max(self.highest, sequence - 1)
        self._skipped += sequence - self.next
        self._counters.skipped += sequence - self.next
        yield PassedOver(self.next, sequence - 1)
        for _ in self.holes.split_below(sequence):
            self.holes.pop_head()
        while self._held and self._held[0].first < sequence:
            item = self._held.pop(0)
            below = min(item.last, sequence - 1) - item.first + 1
            self._counters.discarded += below
            if item.last >= sequence:
                self._hold(sequence, item.last, item.payload, item.packet_first, item.line)
        self._remember(self.next, sequence - 1)
        self.next = sequence
        yield from self._deliver()

    @property
    def _passed_through(self) -> int:
        return self._passed[-1][0] if self._passed else self.next - 1

    def _pass(self, through: int, why: str, now_ns: int) -> None:
        if through > self._passed_through:
            self._passed.append((through, now_ns, why))

    def _give_up(self, through: int, why: str) -> Iterator[Item]:
        for hole in self.holes.split_below(through + 1):
            yield from self._deliver()
            assert hole.first == self.next
            self.holes.pop_head()
            self._lost += hole.count
            self._counters.lost += hole.count
            self._counters.gaps += 1
            self.next = hole.last + 1
            self._remember(hole.first, hole.last)
            yield Gap(hole.first, hole.last, why)

    def _remember(self, first: int, last: int) -> None:
        self._given_up.add(Hole(first, last, 0, missed=True))
        if len(self._given_up) > self._max_held:
            self._given_up.pop_head()

    def _deliver(self) -> Iterator[Item]:
        done = 0
        for item in self._held:
            if item.first != self.next:
                break
            done += 1
            self.next = item.last + 1
            self._delivered += item.count
            self._counters.delivered += item.count
            yield item
        del self._held[:done]
