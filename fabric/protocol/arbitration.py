"""Line arbitration: two or more lines that carry one numbered stream, merged on the source's own numbers.

Pure: packets and heartbeats in with the time they came, items out by ``take``; no sockets, no clock.

- The first line to bring a message delivers it; what comes again is a duplicate. Delivery is in order, so what is above a
  hole is held. Lines may cut the stream in packets differently: only the new part of a packet is delivered.
- A hole is given up, and told as Gap exactly where it is, when every line that is not LOST has passed it, or ``reorder_ns``
  after it was seen; ``recover_ns`` later than that, if there is a source to ``recover`` from, or lines do not keep order;
  at once if too much is held.
- What depends on time depends on the times handed in, not on how often ``on_time`` is called.
- A numbering is over when a line brings a new session, or (under the same session) goes back by more than
  ``restart_window`` from the highest number that this line itself brought. What the other lines still bring of the old
  one is taken until each of those that are not LOST has gone over too, or for ``reorder_ns``; then comes Restarted.
  A session that is over does not come back: what is still sent of one of the last 16 is ``old``.

``adds_up`` in the report, at any time, for each numbering and over all of them:

    highest - start + 1      = delivered + lost + skipped + held + missing
    lines' first + recovered = delivered + held + discarded
    a line's received        = first + duplicates + late + early + old
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from fabric.protocol.arbitration_types import (
    Account,
    ArbitrationCounters,
    ArbitrationLimits,
    ArbitrationReport,
    Item,
    LineCounters,
    Restarted,
)
from fabric.protocol.lines import Lines
from fabric.protocol.numbering import Numbering, Slice

KEPT_ACCOUNTS = 16


class Arbiter:
    """Merges the lines of one numbered stream. Take all items after each call: what is not taken is kept.

    ``start``: the first number; None: the first one heard, what is below it is ``early``. ``base``: what each later
    numbering begins with, where the source says so (else it begins at the first number heard, and a loss before it can't
    be seen). ``snapshot``: deliver nothing until ``resume_at``. ``cut``: how to slice a payload; without one, items have
    whole packets.
    """

    def __init__(
        self,
        lines: tuple[str, ...] | Lines = ("A", "B"),
        limits: ArbitrationLimits | None = None,
        *,
        start: int | None = None,
        base: int | None = None,
        snapshot: bool = False,
        cut: Slice | None = None,
    ) -> None:
        self.limits = limits or ArbitrationLimits()
        self.lines = lines if isinstance(lines, Lines) else Lines(lines, self.limits.stale_ns)
        self._own_lines = not isinstance(lines, Lines)
        self.counters = ArbitrationCounters()
        self._tallies = {line: LineCounters() for line in self.lines.names}
        self._start = start
        self._base = base
        self._cut = cut
        self._items: deque[Item] = deque()
        self._open: list[Numbering] = []  # oldest first; two while lines go over from one to the next
        self._opened_ns = 0  # when the newest was
        self._at: dict[str, Numbering] = {}  # by line, the last one it brought something of
        self._heard_ns: dict[str, int] = {}
        self._over: deque[Account] = deque(maxlen=KEPT_ACCOUNTS)
        self._past: deque[Hashable] = deque(maxlen=KEPT_ACCOUNTS)  # sessions that are over
        self._waiting: deque[tuple[str, int, int, Any, Hashable, bool]] | None = deque() if snapshot else None

    # In

    def on_packet(self, line: str, first: int, count: int, payload: Any, now_ns: int, session: Hashable = None) -> None:
        """``count`` messages from number ``first`` on; 0 is a heartbeat, whose ``first`` is the next number."""
        if count < 0:
            raise ValueError(f"a packet can't have {count} messages")
        self._on_line(line, first, count, payload, now_ns, session)

    def on_heartbeat(self, line: str, next_sequence: int, now_ns: int, session: Hashable = None) -> None:
        """All below ``next_sequence`` was sent on this line: how a loss at the end is seen."""
        self._on_line(line, next_sequence, 0, None, now_ns, session)

    def on_time(self, now_ns: int) -> None:
        if self._own_lines:
            self._items.extend(self.lines.check(now_ns))
        self._settle(now_ns)

    def recover(self, first: int, count: int, payload: Any, now_ns: int) -> None:
        """Messages from a replay: those still missing of the numbering that is being delivered are taken."""
        self._settle(now_ns)
        if not self._open:
            self.counters.spare += count
            return
        self._open[0].recover(first, count, payload)
        self._settle(now_ns)

    def resume_at(self, sequence: int, now_ns: int, session: Hashable = None) -> bool:
        """A snapshot holds all below ``sequence``. False: it is older than what was delivered, and changes nothing."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if session is not None:
                while waiting and waiting[0][4] != session:
                    waiting.popleft()
            self._begin(session, sequence, now_ns)
            for line, first, count, payload, of, heartbeat in waiting:
                self._place(line, first, 0 if heartbeat else count, payload, now_ns, of)
            self._settle(now_ns)
            return True
        self._settle(now_ns)
        if not self._open:
            self._begin(session, sequence, now_ns)
            return True
        if session is not None and session != self._open[0].session and session == self._open[-1].session:
            self._close()
        if sequence <= self._open[0].next or (session is not None and session != self._open[0].session):
            return False
        self._items.extend(self._open[0].pass_over(sequence))
        self._settle(now_ns)
        return True

    # Out

    def take(self) -> Item | None:
        return self._items.popleft() if self._items else None

    @property
    def next(self) -> int | None:
        """The number that is to be delivered next, once one is known."""
        return self._open[0].next if self._open else self._start

    def wanted(self) -> list[tuple[int, int]]:
        """Holes that no line can fill any more and that are still open to ``recover``: (first, last)."""
        return self._open[0].wanted() if self._open else []

    @property
    def settled(self) -> bool:
        """Nothing here waits for the time to pass."""
        return len(self._open) <= 1 and not any(numbering.holes for numbering in self._open)

    def report(self) -> ArbitrationReport:
        accounts = [*self._over, *(numbering.account() for numbering in self._open)]
        states = {line: self.lines.state(line) for line in self.lines.names}
        return ArbitrationReport(self.counters, states, self.lines.losses, self._tallies, accounts)

    # Within

    def _on_line(self, line: str, first: int, count: int, payload: Any, now_ns: int, session: Hashable) -> None:
        if line not in self._tallies:
            raise ValueError(f"no such line: {line!r}, there are {', '.join(self._tallies)}")
        self.on_time(now_ns)
        back = self.lines.heard(line, now_ns)
        if back is not None:
            self._items.append(back)
        tally = self._tallies[line]
        tally.packets += count > 0
        tally.heartbeats += count == 0
        if self._waiting is not None:
            self._waiting.append((line, first, count, payload, session, count == 0))
            if len(self._waiting) > self.limits.max_held:
                self._waiting.popleft()
                self.counters.unplaced += 1
            return
        self._place(line, first, count, payload, now_ns, session)
        self._settle(now_ns)

    def _place(self, line: str, first: int, count: int, payload: Any, now_ns: int, session: Hashable) -> None:
        tally = self._tallies[line]
        tally.received += count
        numbering = self._numbering(line, first, now_ns, session)
        if numbering is None:
            tally.old += count
        elif count:
            numbering.accept(line, first, count, payload, now_ns, tally)
        else:
            numbering.place(line, first, first, now_ns, tally)
            numbering.reach(first, now_ns)

    def _numbering(self, line: str, first: int, now_ns: int, session: Hashable) -> Numbering | None:
        """The numbering that this packet belongs to: a new one if the line has restarted, None if it is over."""
        if not self._open:
            self._begin(session, first if self._start is None else self._start, now_ns)
        newest = self._open[-1]
        here = self._at.get(line, newest)
        was_silent = now_ns - self._heard_ns.get(line, now_ns) >= self.limits.stale_ns
        self._heard_ns[line] = now_ns
        if here.session is None and not here.places:
            here.session = session
        if session is None:
            session = here.session
        if session != here.session:
            target = self._of_session(session, first, now_ns)
        elif self._went_back(line, here, first):
            target = here.following or self._begin(session, first, now_ns, self._base)
        elif here in self._open:
            return self._stray(line, here, first) or self._go(line, here)
        else:
            target = newest if was_silent else None  # the others went over without it: what it brings is old
        if target is None or target.session != session:
            if here not in self._open and here.session == session:
                here.pass_by(line, first)
            return None
        if target not in self._open:  # a line that is more than one restart behind
            self._go(line, target).pass_by(line, first)
            return None
        if here in self._open and self._open.index(here) > self._open.index(target):
            return target  # a packet of the old session behind one of the new
        return self._go(line, target)

    def _go(self, line: str, numbering: Numbering) -> Numbering:
        self._at[line] = numbering
        return numbering

    def _of_session(self, session: Hashable, first: int, now_ns: int) -> Numbering | None:
        for numbering in reversed(self._open):
            if numbering.session == session:
                return numbering
        return None if session in self._past else self._begin(session, first, now_ns, self._base)

    def _went_back(self, line: str, here: Numbering, first: int) -> bool:
        place, window = here.places.get(line), self.limits.restart_window
        return window is not None and place is not None and place.next - first > window

    def _stray(self, line: str, here: Numbering, first: int) -> Numbering | None:
        """The old numbering, if a line that has just restarted brings one more packet of it, out of order."""
        old, place, window = self._open[0], here.places.get(line), self.limits.restart_window
        if old is here or old.session != here.session or window is None or place is None:
            return None
        before = old.places.get(line)
        if before is not None and first - place.next > window and abs(first - before.next) <= window:
            return old
        return None

    def _begin(self, session: Hashable, first: int, now_ns: int, base: int | None = None) -> Numbering:
        start = first if base is None or base > first else base
        numbering = Numbering(session, start, self.limits.max_held, self.counters, self._cut)
        if self._open:
            self._open[-1].following = numbering
        self._open.append(numbering)
        self._opened_ns = now_ns
        while len(self._open) > 2:
            self._close()
        return self._open[-1]

    def _close(self) -> None:
        """Give up what the oldest numbering still lacks, and go on with the next one."""
        old = self._open[0]
        while old.holes:
            self._items.extend(old.force())
        new = self._open[1]
        del self._open[0]
        self._over.append(old.account())
        for line in set(self._at) - set(self.lines.alive()):
            if self._at[line] is old:
                del self._at[line]
        if old.session != new.session:
            self._past.append(old.session)
        self.counters.restarts += 1
        self._items.append(Restarted(old.session, new.session, old.highest, new.start))

    def _settle(self, now_ns: int) -> None:
        while self._open:
            oldest = self._open[0]
            floor, over = self._floor(oldest, now_ns)
            self._items.extend(oldest.settle(floor, now_ns, self.limits.reorder_ns, self.limits.recover_ns))
            while self._too_much() and oldest.holes:
                self._items.extend(oldest.force())
            if len(self._open) == 1 or oldest.holes or not (over or self._too_much()):
                return
            self._close()

    def _too_much(self) -> bool:
        held = sum(numbering.held for numbering in self._open)
        holes = sum(len(numbering.holes) for numbering in self._open)
        return max(held, holes) > self.limits.max_held

    def _floor(self, oldest: Numbering, now_ns: int) -> tuple[int | None, bool]:
        """Below which number all lines that are waited for have passed; and whether this numbering is over."""
        alive = self.lines.alive()
        behind = alive
        if len(self._open) > 1:
            behind = [line for line in alive if self._at.get(line) is not self._open[-1]]
            if not behind or now_ns - self._opened_ns >= self.limits.reorder_ns:
                return oldest.highest + 1, True
        places = [oldest.places.get(line) for line in behind]
        if not places or None in places:
            return None, False
        return min(place.next for place in places if place is not None), False
