"""One channel that a standby follows: what its subscription and its `sync` connection bring, into a follower's log. No socket, no
clock.

Both bring the same records of one session. Whichever comes first is taken, and what is here already is dropped: so going
over from the one to the other needs no agreement about where.
"""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from fabric.archive.channel import ArchivedChannel
from fabric.channel import channel_id
from fabric.log.writer import LogOptions
from fabric.protocol.events import Lost, Session, Skipped
from fabric.protocol.requests import Reply
from fabric.protocol.syncmessages import FromPrimary, FromStandby, Kind
from fabric.protocol.types import Start
from fabric.records import Records, RecordType

_log = logging.getLogger("fabric.standby")
ASK_EVERY_NS = 200_000_000
"""JOIN until it is answered; ACK, where nothing is new."""
_MOST_WAITING_BYTES = 64 << 20
"""Of writes above what is here; then the connection is left, and joined again nearer to the end."""


class StandbyChannel(ArchivedChannel):
    """``who``: 8 random bytes of this process, where it is to join a primary's `sync` endpoint; else empty."""

    def __init__(self, name: str, directory: Path, options: LogOptions, who: bytes = b"") -> None:
        super().__init__(name, directory, options)
        self.identity = channel_id(name)
        self.who = who
        self.life = 0
        """Of the primary that the newest records are from; 0: not known."""
        self.joined = False
        self.in_sync = False
        """By the primary's last word: nobody sees what is not here."""
        self.heard_ns: int | None = None
        """When the `sync` connection brought anything last."""
        self.was_in_sync = False
        """So it was when the primary was heard last."""
        self.busy = False
        """Another standby has the place."""
        self.cut_off = 0
        """Records that a life of the primary had sent and not committed."""
        self._flushes = options.sync
        self._waiting: deque[tuple[int, Records]] = deque()
        self._waiting_bytes = 0
        self._partial_next = 0
        self._published = 0
        """All of the session below it was published, by the subscription."""
        self._said_ns: int | None = None

    @property
    def next(self) -> int:
        """All of the session below it is here; 0: no session yet."""
        return self.log.next if self.log is not None else 0

    # The sync connection

    def due(self, now_ns: int, *, near: bool) -> bytes | None:
        """What is to be said to the primary now, if anything. ``near``: the subscription has caught up, or the connection
        has brought us so far."""
        log = self.log
        if not self.who or log is None or not (near or self.joined):
            return None
        if self._said_ns is not None and now_ns - self._said_ns < ASK_EVERY_NS:
            return None
        return self._say(Kind.ACK if self.joined else Kind.JOIN, now_ns)

    def take_message(self, message: FromPrimary, frame: bytes | None, now_ns: int) -> bytes | None:
        """Of this channel; returns what is to be answered. Raises LogFull."""
        log = self.log
        self.heard_ns = now_ns
        if log is None:
            return None
        if message.kind is Kind.OTHER or message.session != log.session:
            self.leave()  # the subscription goes over to it, and then we join there
            return None
        self.busy = message.kind is Kind.BUSY
        if message.kind is Kind.CUT:
            if self.joined and message.life == self.life:
                return None  # the answer to a question that was asked twice
            return self._cut(message, now_ns)
        if message.kind is Kind.JOINED:
            self.joined, self.in_sync = True, False
            return None
        if not self.joined or message.life != self.life:
            self.leave()
            return None
        log.confirm(message.next)
        self.in_sync = self.was_in_sync = message.gated and message.next <= log.next
        if message.kind is Kind.ALIVE:
            if message.ended and message.next == log.next:
                log.end()
            return None
        if message.kind is not Kind.WRITE or frame is None or len(frame) % log.record.size:
            return None
        records = log.record.view(frame, 0, len(frame) // log.record.size)
        before = log.next
        self._put(message.next, records)
        return self._say(Kind.ACK, now_ns) if log.next > before else None

    def leave(self) -> None:
        """The connection brings nothing any more that could be used: join again."""
        self.joined = self.in_sync = False
        self._waiting.clear()
        self._waiting_bytes = 0

    def taken(self, session: int) -> bytes:
        """What the primary is told when we have taken over."""
        return FromStandby(Kind.TAKEN, self.identity, session, self.life, 0, self.who or bytes(8)).encode()

    def _say(self, kind: Kind, now_ns: int) -> bytes:
        assert self.log is not None
        self._said_ns = now_ns
        log = self.log
        return FromStandby(kind, self.identity, log.session, self.life, log.next, self.who, self._flushes).encode()

    def _cut(self, message: FromPrimary, now_ns: int) -> bytes:
        assert self.log is not None
        self.leave()
        cut = self.log.cut_back()
        self.cut_off += cut
        self.life = message.life
        if cut:
            _log.warning("channel %r: %d records that its publisher never committed are dropped", self.name, cut)
        return self._say(Kind.JOIN, now_ns)

    def _put(self, first: int, records: Records) -> None:
        """Of a write: what is next, or waits for what is missing below it."""
        assert self.log is not None
        if first > self.log.next:
            self._waiting.append((first, records))
            self._waiting_bytes += records.nbytes
            if self._waiting_bytes > _MOST_WAITING_BYTES:
                self.leave()
            return
        known = self.log.next - first
        if known < len(records):
            self.log.follow(self.log.next, records[known:])
            self.counters.archived += len(records) - known

    def _put_waiting(self) -> None:
        assert self.log is not None
        while self._waiting and self._waiting[0][0] <= self.log.next:
            first, records = self._waiting.popleft()
            self._waiting_bytes -= records.nbytes
            self._put(first, records)

    # The subscription

    def start(self, now_ns: int) -> Start:
        """As the archive's; also where the subscription is begun again after the `sync` connection."""
        start = Start.at(self.log.next, self.log.session) if self.log is not None else super().start(now_ns)
        self._forget_partial()
        self._published = self.next
        return start

    def _change(self, item: Session, record: RecordType, info: Reply | None, now_ns: int) -> None:
        if self.log is not None and self.log.session != item.new:
            self.leave()
            if self._fork is None:  # the newer session forks off no lower than where the subscription has got
                self.log.confirm(self._published)
            self.log.cut_back()
            self._drop_superseded()
        super()._change(item, record, info, now_ns)
        self._published = self.next

    def _append(self, first: int, records: Records) -> None:
        assert self.log is not None
        known = self._drop_superseded() - first
        if known < len(records):
            known = max(0, known)
            super()._append(first + known, records[known:])
            self._partial_next = self.log.next
        self._published = first + len(records)
        self.log.confirm(self._published)
        self._put_waiting()

    def _miss(self, item: Lost | Skipped) -> None:
        if self.log is not None and item.session == self.log.session:
            self._drop_superseded()
        super()._miss(item)
        if self.log is not None:
            self._put_waiting()

    def _drop_superseded(self) -> int:
        """The beginning of an event that has come whole otherwise; returns the next sequence that is wanted."""
        assert self.log is not None
        if self._partial and self.log.next != self._partial_next:
            self._forget_partial()
        return self.log.next + sum(map(len, self._partial))

    def ends_whole(self) -> int:
        """How many records of an event have come whose end has not: they are in no log."""
        return sum(map(len, self._partial))
