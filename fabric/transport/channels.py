"""One subscribed channel of a receiver, and what a receiver counts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fabric.protocol.events import Event
from fabric.protocol.ladder import Rung
from fabric.protocol.requests import Reply
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Origin, PathWanted, Run, State
from fabric.records import RecordType
from fabric.transport.climb import Climb
from fabric.transport.mapped import MappedLog
from fabric.transport.security import CurveClient
from fabric.transport.sockets import Socket
from native.follow import LogCursor
from native.log import LogState
from native.packet import ParseResult
from native.wire import Lane

_RECORDS_A_VIEW = 65_536
_RECORDS_A_CALL = 8_192
"""What a node is given at once where it is behind: more would cost it no less for each, and memory that it keeps."""


@dataclass(slots=True)
class WireCounters:
    """What arrived and was not a packet or reply of ours: dropped, never delivered."""

    malformed: int = 0
    bad_crc: int = 0
    bad_version: int = 0
    unknown_channel: int = 0
    wrong_schema: int = 0
    bad_replies: int = 0

    def count_bad(self, result: int) -> None:
        """A packet that is none, by what the parser said of it."""
        if result == ParseResult.BAD_CRC:
            self.bad_crc += 1
        elif result == ParseResult.BAD_VERSION:
            self.bad_version += 1
        else:
            self.malformed += 1


class ChannelReceiver:
    """One subscribed channel: its state machine, its record type once known, its replay socket, its log if mapped.

    Records of a mapped log or a lane are taken by the reader and pass the machine by (``pull``, ``take``). While the
    cursor is open, or the lane plain, only the reader moves; whatever else is to happen to the machine closes it first,
    under ``lock``. ``pulled``: the reader waits for the mapped log by itself; else whoever polls the receiver is told.
    """

    def __init__(
        self,
        name: str,
        machine: Subscription,
        record: RecordType | None,
        data: Sequence[str],
        rungs: Sequence[Rung],
        curve: CurveClient | None = None,
        *,
        standbys: Sequence[str] = (),
        path: PathWanted = "auto",
        pulled: bool = False,
    ) -> None:
        self.name = name
        self.machine = machine
        self.record = record
        self.line_endpoints = tuple(data)
        """Where live packets come from; several are lines: the same packets on each."""
        self.standby_endpoints = tuple(standbys)
        """Where they come from once a standby has taken over: on the first line as well."""
        self.rungs = tuple(rungs)
        """Who replays, in the order in which they are asked; the first one answers all other questions too."""
        self.climb = Climb(name, self.rungs, machine.jitter) if len(self.rungs) > 1 else None
        self.curve = curve
        self.path_wanted = path
        self.pulled = pulled
        self.dealers: dict[int, Socket] = {}
        """Its own, by the number of the rung."""
        self.asked_ns = 0
        """When one of them was used last; monotonic."""
        self.subscribed = False
        """Live packets are asked for: the channel is not read from its log."""
        self.lane: Lane | None = None
        """Where packets come in natively; None: they are parsed here."""
        self._counted = 0
        self._dropped = 0
        self.mapped: MappedLog | None = None
        self.locate_at_ns: int | None = 0
        """When to ask where the log is; None: not any more."""
        self.gone = False
        """Received no longer."""
        self.lock = threading.RLock()  # a signal handler may close what its own thread is about to open

    @property
    def path(self) -> str:
        """How records come: ``local`` (the mapped log), ``ipc`` or ``tcp``."""
        return "local" if self.mapped is not None else self.line_endpoints[0].partition("://")[0]

    @property
    def replay_endpoint(self) -> str:
        """Of the channel's log server."""
        return self.rungs[0].endpoint

    def take(self) -> Run | Event | None:
        """The next run or event, or None."""
        item = self.machine.take()
        return self.pull(_RECORDS_A_CALL) if item is None else item

    def pull(self, max_records: int) -> Run | None:
        """The next records of the mapped log or the lane, if nothing comes before them. From any thread."""
        return self.pull_lane(max_records) if self.mapped is None else self.pull_log(max_records)

    @property
    def rests(self) -> bool:
        """Nothing is to be done for it but to notice when it falls silent, or its log goes on elsewhere."""
        if self.locate_at_ns is not None or self.dealer_waits or self.machine.out:
            return False
        if self.machine.state in (State.ENDED, State.FAILED):
            return True
        if self.mapped is not None:
            return self.mapped.cursor.open or (self.pulled and self.closed_cursor)
        return self.lane is not None and self.lane.plain

    @property
    def dealer_waits(self) -> bool:
        """Something was asked and not answered yet, or is to be asked."""
        return self.machine.waits_for_answer or bool(self.machine.requests)

    # The lane: packets in order, which never pass through the machine

    def take_lane(self, max_records: int) -> Run | None:
        """The next records that came in order."""
        taken = self.lane.take(max_records) if self.lane is not None else None
        if taken is None:
            return None
        session, first, records = taken
        return Run(Origin.LIVE, session, first, first + len(records) - 1, records)

    def pull_lane(self, max_records: int) -> Run | None:
        """``take_lane``, if nothing comes before it. From any thread."""
        if self.lane is None or not self.lock.acquire(blocking=False):
            return None
        try:
            return None if self.machine.out or self.gone else self.take_lane(max_records)
        finally:
            self.lock.release()

    def account_lane(self) -> None:
        """Bring the machine's accounts up to what the lane took in."""
        lane, lines = self.lane, self.machine.lines
        if lane is None:
            return
        fresh, again = lane.received - self._counted, 0
        if lines is not None:
            again = lines.accounts.dropped - self._dropped
        if fresh or again or lane.plain:
            self._counted += fresh
            self._dropped += again
            self.machine.on_lane(fresh, lane.heard_ns, again)

    def use_lane(self, lane: Lane) -> None:
        """Packets come in there from now on; nothing of it was counted yet."""
        self.lane = lane
        self._counted = 0

    def stop_lane(self) -> None:
        """Let the machine decide again, after all that came before. The caller holds the lock."""
        lane = self.lane
        if lane is None:
            return
        lane.pause()
        self.account_lane()
        while (run := self.take_lane(_RECORDS_A_VIEW)) is not None:
            self.machine.out.append(run)
            self.machine.queued_records += len(run.records)

    def start_lane(self) -> None:
        """Let packets in order pass the machine by, if nothing is open in it."""
        machine, lane = self.machine, self.lane
        if lane is None or lane.plain or not self.subscribed or not machine.plain or not machine.room:
            return
        lane.resume()

    def learn(self, reply: Reply, counters: WireCounters) -> bool:
        """Take the record type from an INFO, where the subscriber has none of its own; False if the reply is no good."""
        if reply.base < 1 or reply.next < reply.base or reply.session == 0:
            counters.bad_replies += 1
            return False
        if self.record is None:
            try:
                self.record = RecordType.from_description(reply.extra["record"])
            except Exception:  # a peer may send anything
                counters.bad_replies += 1
                return False
            self.machine.schema = self.record.schema
        return True

    # The mapped log; called where the sockets are used, but for ``open_cursor`` and ``settle``

    def attach(self, mapped: MappedLog, now_ns: int) -> None:
        """Read the machine's session from its log from now on."""
        with self.lock:
            self._close_cursor(now_ns)
            self.stop_lane()
            self.mapped = mapped
            self.machine.mapped = True
            mapped.cursor.seek(max(self.machine.seen + 1, mapped.reader.base))
            mapped.cursor.reach()
            self.machine.on_alive(now_ns)

    def detach(self, now_ns: int) -> None:
        """Go back to packets."""
        with self.lock:
            self._close_cursor(now_ns)
            self.mapped = None
            self.machine.mapped = False

    def follow(self, now_ns: int) -> bool:
        """Look after the mapped log: whether its writer lives, what else it says, what is missing of it. False if it can't
        be read any more (or not yet, of a newer session)."""
        mapped, machine = self.mapped, self.machine
        assert mapped is not None
        alive = mapped.alive(now_ns, machine.limits.stale_ns)
        if self.standby_endpoints and (mapped.superseded or not alive) and mapped.successor() is None:
            return False  # it may go on at the standby
        if alive:
            machine.on_alive(now_ns)
            if mapped.cursor.open and mapped.reader.state == LogState.OPEN and not mapped.cursor.overrun:
                return True
        with self.lock:
            self._close_cursor(now_ns)
            if machine.session != mapped.session:
                return self._follow_successor(mapped)
            if mapped.cursor.overrun:
                machine.on_log_begins(mapped.reader.first_available, now_ns)
                mapped.cursor.seek(max(mapped.reader.first_available, mapped.reader.base))
            self._fill_holes(mapped, now_ns)
            if machine.seen + 1 == mapped.next:
                if mapped.ended:
                    machine.on_heartbeat(mapped.session, mapped.next, now_ns, end=True)
                elif (not alive or mapped.superseded) and (successor := mapped.successor()) is not None:
                    machine.on_reply(successor.info(), now_ns)
                    if not mapped.removed():  # else its log server is asked, and says that it is gone
                        machine.on_reply(mapped.info(), now_ns)
                    if machine.session != mapped.session:
                        return self._follow_successor(mapped)
            machine.on_time(now_ns)
            self._reopen()
        return alive or not mapped.removed()

    def pull_log(self, max_records: int) -> Run | None:
        """The next records of the mapped log, if nothing comes before them. From any thread."""
        cursor = self.open_cursor()
        if cursor is None:
            return None
        first = cursor.next
        records = cursor.take(max_records)
        if records is None:
            return None
        return Run(Origin.LIVE, cursor.session, first, first + len(records) - 1, records)

    def open_cursor(self) -> LogCursor | None:
        """A cursor that gives the next records, if that is all there is to be given."""
        mapped = self.mapped
        if mapped is None or not self.lock.acquire(blocking=False):
            return None
        try:
            return mapped.cursor if mapped is self.mapped and self._open(mapped) else None
        finally:
            self.lock.release()

    @contextlib.contextmanager
    def held(self, now_ns: int) -> Iterator[None]:
        """While something else than the next records happens to the machine."""
        with self.lock:
            self._close_cursor(now_ns)
            self.stop_lane()
            yield
            self.start_lane()
            self._reopen()

    def settle(self, now_ns: int) -> None:
        """Bring the machine's accounts up to what the reader has pulled, and what the lane has."""
        with self.lock:
            self.account_lane()
            if self.mapped is not None and self.mapped.cursor.open:
                self._count_pulled(self.mapped, now_ns)

    def leave(self, now_ns: int) -> None:
        """Nothing is to be read any more; the accounts stand. From any thread."""
        with self.lock:
            self._close_cursor(now_ns)
            self.gone = True

    def abandon(self) -> None:
        """As ``leave``, in a forked child, where whoever held the lock is not there any more."""
        self.lock = threading.RLock()
        self.gone = True
        if self.mapped is not None:
            self.mapped.cursor.open = False

    @property
    def behind(self) -> int:
        """Records in the mapped log or the lane that a reader who pulls has not taken yet."""
        mapped = self.mapped
        if not self.pulled:
            return 0
        if mapped is None:
            return self.lane.waiting if self.lane is not None else 0
        if mapped.cursor.open:
            return mapped.cursor.behind
        return max(0, mapped.next - 1 - self.machine.seen) if self.closed_cursor else 0

    @property
    def last(self) -> int:
        """The last sequence that is here, read or not."""
        mapped = self.mapped
        if self.pulled and mapped is not None and (mapped.cursor.open or self.closed_cursor):
            return mapped.next - 1
        return self.machine.delivered

    @property
    def closed_cursor(self) -> bool:
        """The reader could open the cursor, and has not yet."""
        mapped = self.mapped
        if mapped is None or mapped.cursor.open or self.gone or mapped.cursor.overrun:
            return False
        return self.machine.plain and self.machine.session == mapped.session

    def _open(self, mapped: MappedLog) -> bool:
        machine, cursor = self.machine, mapped.cursor
        if cursor.open:
            return True
        if self.gone or not machine.plain or machine.out or machine.session != mapped.session or cursor.overrun:
            return False
        cursor.seek(max(machine.seen + 1, mapped.reader.base))
        cursor.open = True
        cursor.open = not self._has_left()  # asked again: a signal handler may have closed it in between
        return cursor.open

    def _reopen(self) -> None:
        """Whoever polls waits for open cursors. (A reader opens its own, when it has read what came before.)"""
        if self.mapped is not None and not self.pulled:
            self._open(self.mapped)

    def _has_left(self) -> bool:
        return self.gone

    def _close_cursor(self, now_ns: int) -> None:
        if self.mapped is not None and self.mapped.cursor.open:
            self.mapped.cursor.open = False
            self._count_pulled(self.mapped, now_ns)

    def _count_pulled(self, mapped: MappedLog, now_ns: int) -> None:
        last = mapped.cursor.next - 1
        if last > self.machine.delivered:
            self.machine.on_read(last, now_ns)

    def _follow_successor(self, mapped: MappedLog) -> bool:
        """The machine has gone over to another session: so does its log, if that is the one."""
        successor = mapped.successor()
        if successor is None or successor.session != self.machine.session:
            return False
        self.mapped = successor
        return True

    def _fill_holes(self, mapped: MappedLog, now_ns: int) -> None:
        machine = self.machine
        while (wanted := machine.wanted()) is not None and machine.room:
            first, last = wanted
            try:
                view = mapped.reader.read(first, min(last - first + 1, _RECORDS_A_VIEW))
            except IndexError:
                machine.on_log_begins(mapped.reader.first_available, now_ns)
                continue
            if not len(view):
                return  # announced, but not committed where we look: what has been announced elsewhere
            machine.on_log(first, view, now_ns)
            if machine.wanted() == wanted:
                return  # refused for now: the reader is slow
