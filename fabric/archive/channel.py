"""One archived channel: what its subscription hands out, into follower's logs. No socket, no clock."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabric.channel import channel_id
from fabric.errors import FabricError, LogDamaged
from fabric.log.follower import Followed, FollowerLog
from fabric.log.paths import CURRENT
from fabric.log.reader import LogReader
from fabric.log.writer import LogOptions
from fabric.protocol.events import END_UNKNOWN, Diverged, Ended, Event, Lost, Session, Skipped
from fabric.protocol.requests import Reply
from fabric.protocol.types import Origin, Run, Start
from fabric.records import Flags, Records, RecordType

_log = logging.getLogger("fabric.archive")
MOST_PARTIAL_RECORDS = 262_144
"""An event that is longer is kept in parts, before its end has come."""


@dataclass(slots=True)
class ArchiveCounters:
    """Records, of this life of the process."""

    archived: int = 0
    missing: int = 0
    """In holes: the publisher's log did not have them any more."""
    partial_most: int = 0
    """Of an event that waited for its end."""


class ArchivedChannel:
    """Takes runs and events in their order. ``directory`` is the channel's in the archive. Its methods raise LogLocked (another
    archive writes there) and LogFull."""

    def __init__(self, name: str, directory: Path, options: LogOptions) -> None:
        self.name = name
        self.directory = directory
        self.counters = ArchiveCounters()
        self.log: FollowerLog | None = None
        self._options = options
        self._partial: list[Records] = []
        """Of an event whose end has not come."""
        self._partial_records = 0
        self._fork: int | None = None
        self._parent_unknown = False
        """Nobody said how what comes next goes on from here."""

    def start(self, now_ns: int) -> Start:
        """Where to subscribe: after what is here; else at the beginning of what there is."""
        try:
            reader = LogReader(self.directory)
            control = reader.control
            followed = Followed(reader.session, control.parent_session, control.fork_sequence, reader.first_available)
            self._open(followed, reader.record, now_ns)
        except LogDamaged as error:
            _log.error("channel %r: its newest session is damaged, and left as it is: %s", self.name, error)
            return Start.first()
        except FabricError:
            if (self.directory / CURRENT).exists():
                raise
            return Start.first()
        assert self.log is not None
        if self.log.damaged or self.log.cut_off:
            _log.error(
                "channel %r: %d damaged segments, and %d records at the end that did not reach the disk; what the "
                "publisher still has of it is read again",
                self.name, self.log.damaged, self.log.cut_off,
            )  # fmt: skip
        return Start.at(self.log.next, self.log.session)

    def take(self, item: Run | Event, record: RecordType, info: Reply | None, now_ns: int) -> None:
        """``info``: what the log server said of the session that was joined."""
        match item:
            case Session():
                self._change(item, record, info, now_ns)
            case Diverged():
                self._fork = item.first - 1
            case Run() if item.origin is not Origin.SNAPSHOT:
                self._append(item.first, item.records)
            case Lost() | Skipped():
                self._miss(item)
            case Ended() if self.log is not None:
                self.log.end()

    def maintain(self, now_ns: int, monotonic_ns: int) -> None:
        if self.log is not None:
            self.log.maintain(now_ns, monotonic_ns)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()
        self.log = None

    def _open(self, followed: Followed, record: RecordType, now_ns: int) -> None:
        identity = channel_id(self.name)
        self.log = FollowerLog(self.directory, self.name, identity, record, self._options, followed, now_ns=now_ns)

    def _change(self, item: Session, record: RecordType, info: Reply | None, now_ns: int) -> None:
        log = self.log
        if log is not None and log.session == item.new:
            return  # joined where it was left
        parent, fork, first = item.old, 0, 1
        if log is not None:
            self._keep_partial(log)
            parent, fork = log.session, log.next - 1 if self._fork is None else self._fork
            if self._parent_unknown:
                parent = fork = 0
        elif info is not None and info.session == item.new:
            parent, fork, first = info.parent, info.fork, info.base
        self._fork, self._parent_unknown = None, False
        self.close()
        self._open(Followed(item.new, parent, fork, first), record, now_ns)

    def _append(self, first: int, records: Records) -> None:
        assert self.log is not None
        ends = np.flatnonzero(records["flags"] & Flags.LAST_IN_EVENT)
        whole = int(ends[-1]) + 1 if len(ends) else 0
        if whole and self._partial:
            before = self._take_partial()
            self.log.follow(first - len(before), before)
        if whole:
            self.log.follow(first, records[:whole])
        if whole < len(records):
            self._partial.append(records[whole:].copy())
            self._partial_records += len(records) - whole
            self.counters.partial_most = max(self.counters.partial_most, self._partial_records)
            if self._partial_records > MOST_PARTIAL_RECORDS:
                self.log.follow(first + len(records) - self._partial_records, self._take_partial())
        self.counters.archived += len(records)

    def _take_partial(self) -> Records:
        partial = np.concatenate(self._partial)
        self._forget_partial()
        return partial

    def _keep_partial(self, log: FollowerLog) -> None:
        """The session was cut within an event: all up to the fork is part of it."""
        if not self._partial:
            return
        partial = self._take_partial()
        kept = len(partial) if self._fork is None else min(len(partial), self._fork - log.next + 1)
        if kept > 0:
            log.follow(log.next, partial[:kept])

    def _forget_partial(self) -> None:
        self._partial.clear()
        self._partial_records = 0

    def _miss(self, item: Lost | Skipped) -> None:
        if self.log is None or item.session != self.log.session:
            return
        if self._partial:
            before = self._take_partial()
            self.log.follow(item.first - len(before), before)
        if isinstance(item, Lost) and item.reason in END_UNKNOWN:
            self.log.end_unknown()
            self._parent_unknown = True
        if item.last < item.first:
            return
        self.counters.missing += item.count
        _log.warning("channel %r: records %d to %d can't be had: a hole", self.name, item.first, item.last)
        self.log.skip(item.last)
