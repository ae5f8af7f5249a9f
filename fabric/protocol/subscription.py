"""The subscription state machine: packets, replies and time in; runs, events and requests out. No socket, no clock.

    JOINING ──▶ LIVE ◀──▶ RECOVERING        ENDED   FAILED        (stale is a flag beside the state)

Everything between ``delivered`` (all up to it went out, or was announced as lost or skipped) and ``seen`` (the highest
sequence known to exist) is either in a hole or held; a hole is filled by any packet of the right session that covers
it, whoever sent it. The rungs above a hole: the publisher's log, then the archive's, then a snapshot, then Lost.

Accounts, at any time and for each session: seen - joined_at = received + skipped + lost + held + in holes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fabric.protocol.channellines import ChannelLines
from fabric.protocol.events import (
    NO_ANSWER,
    NOT_RETAINED,
    NOT_RETAINED_UNKNOWN,
    SESSION_FORKED,
    SESSION_GONE,
    SESSION_GONE_UNKNOWN,
    SESSION_LEFT,
    SESSION_LEFT_UNKNOWN,
    Diverged,
    Ended,
    Event,
    Lost,
    Session,
    Skipped,
)
from fabric.protocol.intervals import Held, Holding, Hole, Holes
from fabric.protocol.recovery import Recovery
from fabric.protocol.requests import Op, Reply, Request, Status
from fabric.protocol.types import Counters, Limits, Origin, Run, Start, State
from native.log import LogState
from native.sequence import Tracker, Verdict

_OF_ANOTHER_WRITER = (Verdict.FENCED, Verdict.CONFLICT)


@dataclass(slots=True)
class _Upcoming:
    """A newer session that waits for the end of the current one."""

    since_ns: int
    packets: list[tuple[int, Any, int]] = field(default_factory=list)
    """First sequence, records, line."""
    records: int = 0
    next: int = 0
    ended: bool = False
    base: int = 1
    parent: int = 0
    """0: not known."""
    fork: int = 0
    known: bool = False
    gone: bool = False
    """Its log does not exist any more."""


class Subscription:
    """One channel's state machine. Feed it with ``on_*``; take ``out`` and ``requests`` after each call. ``lines``: on
    how many the publisher's packets come."""

    def __init__(
        self, channel: int, start: Start, limits: Limits, *, schema: int = 0, jitter: Any = None, lines: int = 1
    ) -> None:
        self.channel = channel
        self.start = start
        self.limits = limits
        self.schema = schema
        """0: not known yet; taken from the first INFO."""
        self.jitter: Callable[[], float] = jitter or (lambda: 1.0)
        self.counters = Counters()
        self.lines = ChannelLines(lines, limits.stale_ns) if lines > 1 else None
        """Their states and accounts; None for one line."""
        self.out: deque[Run | Event] = deque()
        self.queued_records = 0
        self.stale = False
        self.failure = ""
        self.problem = "no packet of the channel and no answer from its log server yet"
        """Why it is not live, for NotConnected."""
        self.joined_at = 0
        self.info: Reply | None = None
        self._tracker = Tracker()
        self._holes = Holes()
        self._held = Holding()
        self._pending: deque[tuple[int, int, int]] = deque()
        """Ranges (first, last, since) that may be gaps, or only slower on another line."""
        self._left = 0  # the session before
        self._upcoming: dict[int, _Upcoming] = {}
        self._awaiting_snapshot = False
        self._want_snapshot = False
        self._image = True  # until a reply says that there is none
        self._end: int | None = None
        self._ended = False
        self._final: int | None = None  # the last sequence of the session that is being left
        self.active = False
        """A live packet has been heard: the subscription reaches its publisher. What came before it is catching up."""
        self.mapped = False
        """The log of the session is read on this host (``on_log``): nobody is asked for a replay."""
        self._had_after = (
            0  # of the session: what its reader began with. All of it, where an image or an earlier life stands for it
        )
        self._gone = False  # the log of the session that is being left does not exist any more
        self._kept_elsewhere = False  # but an archive has some of it
        self._end_unknown = False  # of the session that is being left: nobody said in time
        self._superseded = False  # its log server says that the session is not the newest
        self._heard_ns: int | None = None
        self.answered_ns: int | None = None
        """When its log server said anything last."""
        self._progress_ns = 0
        self._recovery = Recovery(channel, limits, self.counters, jitter)

    # What it is

    @property
    def tracker(self) -> Tracker:
        """Where it stands; what native code moves while all is ``plain``."""
        return self._tracker

    @property
    def session(self) -> int:
        return self._tracker.session

    @property
    def delivered(self) -> int:
        return self._tracker.delivered

    @property
    def seen(self) -> int:
        return self._tracker.seen

    @property
    def held_records(self) -> int:
        return self._held.records

    @property
    def newer_records(self) -> int:
        """Of sessions that wait for the end of the current one."""
        return sum(upcoming.records for upcoming in list(self._upcoming.values()))

    @property
    def holes(self) -> int:
        """How many there are."""
        return len(self._holes)

    @property
    def requests(self) -> deque[Request]:
        return self._recovery.requests

    @property
    def waits_for_answer(self) -> bool:
        """A request is under way, or about to be sent."""
        return self._recovery.under_way

    def put_off(self, until_ns: int) -> None:
        """What was asked last can't be asked of anybody before that time."""
        self._recovery.put_off(until_ns)

    @property
    def reconnect(self) -> bool:
        """True once after a request timed out: the socket that carried it is to be replaced."""
        return self._recovery.take_reconnect()

    @property
    def state(self) -> State:
        if self.failure:
            return State.FAILED
        if self._ended:
            return State.ENDED
        if not self._tracker.session or self._awaiting_snapshot:
            return State.JOINING
        if self._upcoming:
            return State.RECOVERING
        if (self._holes or self._held) and not (self._holes and self._holes.head.pending):
            return State.RECOVERING
        return State.LIVE

    @property
    def heard_ns(self) -> int | None:
        """When its publisher was heard last."""
        return self._heard_ns

    @property
    def plain(self) -> bool:
        """A session is followed and nothing is open in it: the record after ``seen`` is all that is waited for."""
        open_ = self._holes or self._held or self._upcoming or self._awaiting_snapshot or self._ended or self.failure
        return bool(self._tracker.session) and not open_

    @property
    def room(self) -> int:
        """Records that may be fed in before the reader takes some."""
        return max(0, self._room())

    def wanted(self) -> tuple[int, int] | None:
        """The lowest range (first, last) that is missing and may still be had from the session's log."""
        told = (hole for hole in self._holes if not (hole.lost or hole.unavailable or hole.off_log))
        return next(((hole.first, hole.last) for hole in told), None)

    def take(self) -> Run | Event | None:
        """The next run or event, or None. Taking makes room for more."""
        if not self.out:
            return None
        item = self.out.popleft()
        if isinstance(item, Run):
            self.queued_records -= len(item.records)
        return item

    # What comes in

    def on_data(self, session: int, first: int, records: Any, now_ns: int, line: int = 0) -> None:
        """A live packet, and on which line it came."""
        self._heard(now_ns)
        if self._ended or self.failure:
            return
        if self._finding:
            self.on_time(now_ns)
            return
        count = len(records)
        plain = not (self._holes or self._held or self._upcoming or self._awaiting_snapshot)
        if plain and self._room() >= count and self._tracker.accept(session, first, count) == Verdict.IN_ORDER:
            self.active = True
            self._emit_run(Run(Origin.LIVE, session, first, first + count - 1, records))
            self.counters.received += count
            if self.lines is not None:
                self.lines.accounts.brought(line, first, count, count, now_ns)
            return  # the usual case, and all there is to it
        verdict = self._verdict(session, first, count, now_ns, line)
        if verdict == Verdict.NEWER_SESSION:
            upcoming = self._upcoming_session(session, now_ns)
            if upcoming.records + count <= self.limits.max_held_records:
                upcoming.packets.append((first, records, line))
                upcoming.records += count
            upcoming.next = max(upcoming.next, first + count)
        elif verdict not in _OF_ANOTHER_WRITER:
            self._exists_through(first - 1, now_ns, missed=self.active)
            self.active = True
            self._arrive(first, records, now_ns, live=True, line=line)
        self.on_time(now_ns)

    def on_heartbeat(self, session: int, next_sequence: int, now_ns: int, *, end: bool = False, line: int = 0) -> None:
        """A live HEARTBEAT or END: the publisher has sent everything below ``next_sequence``."""
        self._heard(now_ns)
        if self._ended or self.failure:
            return
        if self._finding:
            self.on_time(now_ns)
            return
        verdict = self._verdict(session, next_sequence, 0, now_ns, line)
        if verdict == Verdict.NEWER_SESSION:
            upcoming = self._upcoming_session(session, now_ns)
            upcoming.next = max(upcoming.next, next_sequence)
            upcoming.ended = upcoming.ended or end
        elif verdict not in _OF_ANOTHER_WRITER:
            self._exists_through(next_sequence - 1, now_ns, missed=self.active)
            self.active = True
            if end:
                self._end = next_sequence - 1
            self._advance(now_ns)
        self.on_time(now_ns)

    def on_read(self, last: int, now_ns: int) -> None:
        """The reader has itself taken everything up to ``last`` from the mapped log, while all was ``plain``."""
        self._heard(now_ns)
        tracker = self._tracker
        self.active = True
        self.counters.received += last - tracker.delivered
        tracker.delivered = tracker.seen = last

    def on_lane(self, count: int, heard_ns: int, again: int = 0) -> None:
        """``count`` more records came in order and passed by, all ``plain``; the tracker has moved with them. ``again``:
        records that had come already, on another line."""
        self.counters.received += count
        self.counters.duplicates += again
        self.active = self.active or heard_ns > 0
        if heard_ns and (self._heard_ns is None or heard_ns > self._heard_ns):
            self._heard(heard_ns)

    def on_log(self, first: int, records: Any, now_ns: int) -> None:
        """Records of a hole, from the mapped log."""
        self._arrive(first, records, now_ns, live=False)
        self.on_time(now_ns)

    def on_log_begins(self, first_available: int, now_ns: int) -> None:
        """The session's log has nothing below this sequence any more: what is missing there, and what was not read yet,
        must come from elsewhere: the log server is asked, which may know an archive."""
        self._exists_through(first_available - 1, now_ns, missed=self.active)
        for hole in self._holes.split_below(first_available):
            hole.off_log = True
        self.on_time(now_ns)

    def on_alive(self, now_ns: int) -> None:
        """The publisher is seen to live, by its mapped log."""
        self._heard(now_ns)
        self.active = True

    def on_reply(self, reply: Reply, now_ns: int, first: int = 0, records: Any = None) -> None:
        """A reply of the log server; ``first`` and ``records`` are its packet's, for DATA and SNAPSHOT."""
        self.answered_ns = now_ns
        if self._ended or self.failure:
            return
        whole_snapshot = self._recovery.on_reply(reply, now_ns, first, records)
        current = reply.session == self._tracker.session
        if reply.status == Status.DATA:
            if current and records is not None:
                self._arrive(first, records, now_ns, live=False)
        elif reply.status == Status.UNAVAILABLE:
            if current:
                for hole in self._holes.split_below(reply.first_available):
                    hole.unavailable = True
        elif reply.status == Status.INFO:
            self._on_info(reply, now_ns)
        elif reply.status == Status.UNKNOWN_SESSION:
            if current and reply.session:
                self._session_gone(replays=reply.extra.get("replays") is True)
            elif reply.session in self._upcoming:
                upcoming = self._upcoming[reply.session]
                upcoming.known = upcoming.gone = True  # nothing more will be learnt of it
        elif reply.status == Status.NO_IMAGE:
            self._image = False
            self._want_snapshot = False
            if self._awaiting_snapshot:
                self._awaiting_snapshot = False
                if self.start.mode == "resync":
                    self._fall_back(now_ns)
        elif reply.status == Status.UNKNOWN_CHANNEL:
            self.problem = "its log server knows no such channel (yet)"
        elif whole_snapshot is not None:
            self._apply_snapshot(*whole_snapshot, now_ns)
        self._advance(now_ns)
        self.on_time(now_ns)

    def on_time(self, now_ns: int) -> None:
        """Time passes: ask for what is missing, give up what nobody answers for."""
        if self._ended or self.failure:
            return
        if self._heard_ns is None:
            self._heard_ns = now_ns
        if self.lines is not None:
            if not self.mapped:
                self.lines.check(now_ns)
            if self._pending:
                self._tell_gaps(now_ns)
        quiet = now_ns - self._heard_ns > self.limits.stale_ns
        self.stale = self.stale or quiet
        if self._upcoming:
            self._leave_session(now_ns)
        if self._room() <= 0:
            self._progress_ns = now_ns  # nothing is asked for while the reader is slow: that is nobody's silence
        self._give_up_holes(now_ns)
        # A slow reader may have made room; and what is simply next passes by without a look at whether it was the last.
        if self._held or self._upcoming or self._end is not None or (self._holes and self._holes.head.lost):
            self._advance(now_ns)
        if not self._recovery.idle(now_ns):
            return
        if self._finding:
            self._recovery.ask(Op.FIND, 0, ((self.start.time_ns, self.start.time_ns),), now_ns)
        elif not self._tracker.session or (self._superseded and not self._upcoming):
            self._recovery.ask(Op.STATUS, 0, (), now_ns)
        elif self._upcoming and (self._final is None or not self._first_upcoming()[1].known):
            # The newer one first: it knows where it forked, whoever is left of the old one.
            session, upcoming = self._first_upcoming()
            self._recovery.ask(Op.STATUS, self._tracker.session if upcoming.known else session, (), now_ns)
        elif self._awaiting_snapshot or self._want_snapshot:
            self._recovery.ask(Op.SNAPSHOT, self._tracker.session, self._wanted_image(), now_ns)
        elif ranges := self._ranges_to_ask(now_ns):
            self._recovery.ask(Op.REPLAY, self._tracker.session, ranges, now_ns)
        elif quiet:
            self._recovery.probe(now_ns, self._tracker.session)

    def fail(self, reason: str) -> None:
        """Something that no waiting can mend, such as another dtype."""
        self.failure = reason

    # Inside

    def _verdict(self, session: int, first: int, count: int, now_ns: int, line: int) -> int:
        """Where a live packet stands; the first one of all joins. What another writer sent is counted here."""
        verdict = self._tracker.verdict(session, first, count)
        if verdict == Verdict.NO_SESSION:
            self._join(session, first, now_ns)
            verdict = self._tracker.verdict(session, first, count)
        if self.lines is not None:
            if verdict == Verdict.FENCED and session == self._left:
                self.lines.accounts.came_late(line, count, now_ns)  # a slower line's: no other writer
                return verdict
            self.lines.accounts.heard(line, first + count - 1 if session == self._tracker.session else 0, now_ns)
        self.counters.fenced += verdict == Verdict.FENCED
        self.counters.conflicts += verdict == Verdict.CONFLICT
        return verdict

    @property
    def _finding(self) -> bool:
        """The sequence to begin at is not known yet: the log server is asked which one it is."""
        return self.start.mode == "time" and not self._tracker.session

    def _heard(self, now_ns: int) -> None:
        self._heard_ns = now_ns
        self.stale = False

    def _room(self) -> int:
        return self.limits.max_queued_records - self.queued_records

    def _emit_run(self, run: Run) -> None:
        self.out.append(run)
        self.queued_records += len(run.records)

    def _join(self, session: int, next_sequence: int, now_ns: int) -> None:
        """The first session is known, and that ``next_sequence`` is the next one to come."""
        start = self.start
        tracker = self._tracker
        self._recovery.restart()
        if start.mode in ("at", "resync") and start.session and start.session != session:
            tracker.session = start.session
            tracker.delivered = tracker.seen = start.sequence - 1
            self.joined_at = start.sequence - 1
            if (session >> 32) <= (start.session >> 32):
                self.fail(f"asked for session {start.session:016x}, but {session:016x} is not newer")
                return
            self._upcoming_session(session, now_ns).next = next_sequence
            return
        tracker.session = session
        if start.mode in ("live", "snapshot", "resync"):
            tracker.delivered = tracker.seen = next_sequence - 1
            self._awaiting_snapshot = start.mode != "live" and self._image
            if start.mode == "resync" and not self._image:
                self._fall_back(now_ns)
        else:
            first = self._first_wanted(next_sequence)
            tracker.delivered = tracker.seen = first - 1
            self._exists_through(next_sequence - 1, now_ns, missed=False)
        self.joined_at = tracker.delivered
        if not start.session:
            self._had_after = self.joined_at
        self.out.append(Session(0, session))
        self.counters.sessions += 1
        if start.mode == "time" and self.info is not None and not self.info.extra.get("whole", True):
            self.out.append(Lost(session, tracker.delivered + 1, tracker.delivered, NOT_RETAINED_UNKNOWN))

    def _first_wanted(self, next_sequence: int) -> int:
        """Where a stream that does not begin live begins."""
        if self.start.mode == "at":
            return self.start.sequence
        base = self.info.base if self.info else 1
        if self.start.mode == "first":
            return base
        at = self.info.extra.get("at") if self.info else None
        return max(base, min(at, next_sequence)) if isinstance(at, int) else next_sequence

    def _fall_back(self, now_ns: int) -> None:
        """There is no image to begin a resync with: go on from the cursor."""
        tracker, cursor = self._tracker, self.start.sequence - 1
        if cursor < tracker.delivered:
            self._holes.insert_first(Hole(cursor + 1, tracker.delivered, now_ns, missed=False))
            tracker.delivered = self.joined_at = cursor

    def _exists_through(self, last: int, now_ns: int, *, missed: bool, came: bool = False) -> None:
        """Everything up to ``last`` exists; what is above ``seen`` was not received. ``came``: it was, and not taken."""
        tracker = self._tracker
        if last <= tracker.seen:
            return
        pending = missed and not came and self.lines is not None
        new = self._holes.add(Hole(tracker.seen + 1, last, now_ns, missed and not pending, pending=pending))
        if pending and new:
            self._pending.append((tracker.seen + 1, last, now_ns))
        elif pending:  # the hole grew that the latest of these ranges is about
            self._pending[-1] = (self._pending[-1][0], last, now_ns)
        elif missed:
            self.counters.missed += last - tracker.seen
            self.counters.gaps += new
        tracker.seen = last

    def _tell_gaps(self, now_ns: int) -> None:
        """What every line has passed, or none has brought for ``reorder_ns``, is a gap: counted, and asked for."""
        assert self.lines is not None
        while self._pending:
            first, last, since_ns = self._pending[0]
            if now_ns - since_ns < self.limits.reorder_ns and not self.lines.passed(last):
                return
            self._pending.popleft()
            for hole in self._holes.within(first, last):
                hole.pending, hole.missed = False, True
                self.counters.missed += hole.count
                self.counters.gaps += 1
                self.lines.accounts.tell(hole.first, hole.last)

    def _arrive(self, first: int, records: Any, now_ns: int, *, live: bool, line: int = 0) -> None:
        """Records of the current session: fill holes with them, or extend what is seen."""
        tracker = self._tracker
        last = first + len(records) - 1
        self._exists_through(first - 1, now_ns, missed=live)
        room = self.limits.max_held_records - self._held.records + (0 if live else self.limits.max_request_records)
        if room < len(records) and first <= tracker.seen:
            self.counters.refused += len(records)  # what it would have filled stays a hole and is asked for again
            return
        accepted = 0
        for begin, end, missed in self._holes.fill(max(first, tracker.delivered + 1), min(last, tracker.seen)):
            part = records[begin - first : end - first + 1]
            self._held.add(Held(begin, part, not live, "missed" if missed else "catch-up"))
            accepted += end - begin + 1
        if accepted:
            self._progress_ns = now_ns
        taken, new = len(records), accepted
        if last > tracker.seen:
            fresh = tracker.seen + 1
            count = last - tracker.seen
            if self._held.records + count > self.limits.max_held_records:
                self.counters.refused += count
                self._exists_through(last, now_ns, missed=live, came=True)
                taken -= count
            else:
                self._held.add(Held(fresh, records[fresh - first :], not live, ""))
                tracker.seen = last
                new += count
            accepted += count
        self.counters.duplicates += len(records) - accepted
        if live and self.lines is not None:
            self.lines.accounts.brought(line, first, taken, new, now_ns)
        self._advance(now_ns)

    def _advance(self, now_ns: int) -> None:
        """Hand out everything that is next in order."""
        tracker = self._tracker
        while not self._awaiting_snapshot:
            if self._held and self._held.head.first == tracker.delivered + 1:
                if self._room() < len(self._held.head.records) and self.queued_records:
                    return
                held = self._held.pop_head()
                count = len(held.records)
                origin = Origin.REPLAY if held.replayed else Origin.LIVE
                self._emit_run(Run(origin, tracker.session, held.first, held.last, held.records))
                tracker.delivered += count
                self.counters.received += count
                self.counters.replayed += count if held.replayed else 0
                self.counters.recovered += count if held.filled == "missed" else 0
            elif self._holes and self._holes.head.lost:
                hole = self._holes.pop_head()
                self.out.append(Lost(tracker.session, hole.first, hole.last, hole.lost))
                self.counters.lost += hole.count
                tracker.delivered = hole.last
            else:
                break
        complete = self._end is not None and tracker.delivered >= self._end
        over = complete and not self._ended and not self._upcoming and not self._awaiting_snapshot
        if over and self._end is not None:
            self._ended = True
            self.out.append(Ended(tracker.session, self._end))

    def _give_up_holes(self, now_ns: int) -> None:
        """From the lowest hole up, as far as there is something to decide. What can't be replayed is always lowest, and what
        is lower is as old or older: so the first one that is neither ends it. Every packet comes by here, and there may be
        ten thousands of holes."""
        if self._holes and self._holes.head.lost:
            return  # decided already; what is above it is looked at once it is out
        for hole in self._holes:
            if hole.lost:
                continue
            if now_ns - max(hole.since_ns, self._progress_ns) > self.limits.recovery_deadline_ns:
                hole.lost = NO_ANSWER
            elif hole.unavailable and not (self._image and self.limits.snapshots):
                hole.lost = NOT_RETAINED
            else:
                self._want_snapshot = hole.unavailable
                return
        self._want_snapshot = False  # what it was wanted for has come after all

    def _ranges_to_ask(self, now_ns: int) -> tuple[tuple[int, int], ...]:
        """Holes that may be asked for now, as far as there is room to keep the answer."""
        room = self.limits.max_held_records - self._held.records
        ranges: list[tuple[int, int]] = []
        for hole in self._holes:
            if hole.lost or hole.unavailable or (self.mapped and not hole.off_log):
                continue
            if hole.pending or (self.lines is None and now_ns - hole.since_ns < self.limits.reorder_ns):
                break  # always the lowest first: who has not got that is taken at its word for all that is below
            # What fills the head goes straight out, and what is held above it follows: it always has credit.
            credit = self.limits.max_request_records if not ranges else room
            count = min(hole.count, credit)
            if count <= 0 or len(ranges) == 64:
                break
            ranges.append((hole.first, hole.first + count - 1))
            room = min(room, self.limits.max_request_records) - count
        if self._room() <= 0:
            return ()  # the reader is slow: do not fetch what could not be handed out
        return tuple(ranges)

    def _wanted_image(self) -> tuple[tuple[int, int], ...]:
        """In the middle of the stream: the oldest image that covers what can't be replayed. Joining: the newest."""
        last = max((hole.last for hole in self._holes if hole.unavailable), default=0)
        return ((last, last),) if last and not self._awaiting_snapshot else ()

    def _on_info(self, info: Reply, now_ns: int) -> None:
        schema = info.extra.get("schema", 0)
        if self.schema and schema and schema != self.schema:
            self.fail(f"the channel carries records of schema {schema:08x}, not {self.schema:08x}")
            return
        self._image = info.extra.get("image", "none") != "none"
        newer = self._tracker.session and info.session >> 32 > self._tracker.session >> 32
        if newer or info.session in self._upcoming:
            upcoming = self._upcoming_session(info.session, now_ns)
            upcoming.known, upcoming.base = True, info.base
            upcoming.parent, upcoming.fork = info.parent, info.fork
            upcoming.next = max(upcoming.next, info.next)
            if info.parent == self._tracker.session:
                self._ends_at(info.fork, now_ns)
            between = info.parent >> 32 > self._tracker.session >> 32 and info.parent not in self._upcoming
            if between and info.parent >> 32 < info.session >> 32:
                self._upcoming_session(info.parent, now_ns)
        elif not self._tracker.session:
            if self._finding and "at" not in info.extra:
                return  # an older question's answer
            self.info = info
            self._join(info.session, info.next, now_ns)
            if info.state == LogState.ENDED and info.session == self._tracker.session:
                self._end = info.next - 1
        elif info.session == self._tracker.session:
            if info.next - 1 > self._tracker.seen and (not self.mapped or self._upcoming):
                self._exists_through(info.next - 1, now_ns, missed=self.active and not self.mapped)
            if info.state == LogState.ENDED:
                self._end = info.next - 1
            if self._upcoming:
                self._final = max(info.next - 1, self._tracker.seen)
            self._superseded = info.state == LogState.SUPERSEDED

    def _ends_at(self, fork: int, now_ns: int) -> None:
        """A newer session goes on from this record of the one that is followed: all up to it is to be delivered. What is above
        it and is not here has no place any more, whoever may still have it."""
        tracker = self._tracker
        self._exists_through(fork, now_ns, missed=False)
        for hole in self._holes.split_above(fork):
            hole.lost = hole.lost or SESSION_FORKED
        self._final = max(fork, tracker.seen)

    def _session_gone(self, *, replays: bool) -> None:
        """The log of the session that is followed does not exist any more. ``replays``: an archive has some of it."""
        self._superseded = True
        self._kept_elsewhere = replays
        if replays:  # records are still to be had, an image is not
            self._image = self._want_snapshot = False
        else:
            for hole in self._holes:
                hole.lost = SESSION_GONE
        if self._upcoming:
            self._final = self._tracker.seen
            self._gone = True

    def _apply_snapshot(self, as_of: int, session: int, records: Any, sequences: Any, now_ns: int) -> None:
        tracker = self._tracker
        joining = self._awaiting_snapshot
        if session != tracker.session or not (joining or (self._want_snapshot and as_of > tracker.delivered)):
            return  # refused: of another session, older than what went out, or nothing needs it any more
        self._awaiting_snapshot = self._want_snapshot = False
        if joining:
            joined = tracker.delivered
            if self.start.mode == "resync" and session == self.start.session and as_of >= self.start.sequence:
                self.out.append(Skipped(session, self.start.sequence, as_of))
                self.counters.skipped += as_of - self.start.sequence + 1
            tracker.delivered = self.joined_at = as_of
            if as_of < joined:
                self._holes.insert_first(Hole(as_of + 1, joined, now_ns, missed=False))
        else:
            passed = as_of - tracker.delivered
            self.out.append(Skipped(session, tracker.delivered + 1, as_of))
            self.counters.skipped += passed
            tracker.delivered = as_of
        tracker.seen = max(tracker.seen, as_of)
        self._holes.fill(1, as_of)
        self._held.drop_through(as_of)
        self._emit_run(Run(Origin.SNAPSHOT, session, 0, as_of, records, sequences))
        self._had_after = 0
        self.counters.snapshots += 1
        self.counters.snapshot_records += len(records)

    # A newer session

    def _upcoming_session(self, session: int, now_ns: int) -> _Upcoming:
        if session not in self._upcoming:
            if self._awaiting_snapshot and self.start.mode == "resync":
                self._awaiting_snapshot = False  # what is owed of this session comes by replay, or is told as lost
                self._fall_back(now_ns)
            self._upcoming[session] = _Upcoming(now_ns)
            self._recovery.restart()  # whatever was under way, the end of the old session matters most now
        return self._upcoming[session]

    def _first_upcoming(self) -> tuple[int, _Upcoming]:
        return min(self._upcoming.items(), key=lambda item: item[0] >> 32)

    def _leave_session(self, now_ns: int) -> None:
        """Go over to the newer session once the old one is complete, or its time is up."""
        session, upcoming = self._first_upcoming()
        tracker = self._tracker
        late = now_ns - upcoming.since_ns > self.limits.session_deadline_ns
        if late:
            if self._final is None or tracker.delivered < self._final or self._holes:
                for hole in self._holes:
                    hole.lost = hole.lost or SESSION_LEFT
            if self._final is None:
                self._final, self._end_unknown = tracker.seen, self._end is None
            self._awaiting_snapshot = False
            self._advance(now_ns)
        if self._awaiting_snapshot:  # nothing was delivered yet: begin with the newer one
            self._held.clear()
            self._holes.clear()
            self._final = tracker.delivered = self.joined_at = self._had_after = tracker.seen
        if self._final is None or tracker.delivered < self._final or not (upcoming.known or late):
            return
        joining = self._awaiting_snapshot  # then nothing was promised of the old session
        untold, succeeds = self._gone or self._end_unknown, upcoming.parent == tracker.session
        if untold and not joining and succeeds and upcoming.fork > tracker.seen:
            self._exists_through(upcoming.fork, now_ns, missed=False)  # its successor still knows how far it went
            if late or not self._kept_elsewhere:
                for hole in self._holes:
                    hole.lost = hole.lost or (SESSION_GONE if self._gone else SESSION_LEFT)
            self._final = upcoming.fork
            self._advance(now_ns)
        if self._holes or self._held:
            return
        # It goes on from before all of this session.
        passes_over = upcoming.known and 0 < upcoming.parent >> 32 < tracker.session >> 32
        if not joining and not succeeds and not passes_over and (untold or upcoming.gone or not upcoming.parent):
            reason = SESSION_GONE_UNKNOWN if self._gone or upcoming.gone else SESSION_LEFT_UNKNOWN
            self.out.append(Lost(tracker.session, tracker.delivered + 1, tracker.delivered, reason))
        beyond = max(upcoming.fork if succeeds else 0, self._had_after)
        if ((succeeds and upcoming.known) or passes_over) and not joining and beyond < tracker.delivered:
            self.out.append(Diverged(beyond + 1, tracker.delivered))
        self.out.append(Session(tracker.session, session))
        self.counters.sessions += 1
        del self._upcoming[session]
        for later in self._upcoming.values():
            later.since_ns = now_ns  # the session that is begun now has its own time for its rest
        self._left = tracker.session
        self._pending.clear()
        if self.lines is not None:
            self.lines.accounts.restart()
        tracker.session = session
        tracker.delivered = tracker.seen = self.joined_at = upcoming.base - 1
        self._had_after = 0
        self._final = self._end = None
        self._gone = self._kept_elsewhere = self._superseded = self._end_unknown = self._want_snapshot = False
        self._recovery.restart()
        if self._awaiting_snapshot:
            tracker.delivered = tracker.seen = self.joined_at = max(upcoming.next, upcoming.base) - 1
            self._had_after = self.joined_at
            return
        first = upcoming.packets[0][0] if upcoming.packets else upcoming.next
        self._exists_through(first - 1, now_ns, missed=False)
        for begin, records, line in upcoming.packets:
            if self.lines is not None:
                self.lines.accounts.heard(line, begin + len(records) - 1, now_ns)
            self._arrive(begin, records, now_ns, live=True, line=line)
        self._exists_through(upcoming.next - 1, now_ns, missed=bool(upcoming.packets))
        if upcoming.ended:
            self._end = upcoming.next - 1
        self._advance(now_ns)
