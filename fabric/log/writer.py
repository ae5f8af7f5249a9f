"""The one writer of a log.

Append and commit are called by the publishing thread; ``maintain`` by a helper thread, which prepares the next segment,
seals full ones and applies retention, so that the publishing thread meets no system call that can take long.
"""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fabric.errors import Closed, FabricError, LogError, RecordTypeError, Superseded
from fabric.log.image import load_image, save_image
from fabric.log.paths import (
    CURRENT,
    HOLES,
    SIDECAR,
    boot_id,
    new_session_id,
    next_epoch,
    point_current,
    read_description,
    session_name,
)
from fabric.log.salvage import last_whole
from fabric.log.segments import (
    Segment,
    create_segment,
    last_publish_ns,
    open_segment,
    segment_files,
    write_sidecar,
)
from fabric.log.sessions import build_session, map_control, sessions, sweep, sync_directory, take_lock
from fabric.records import Flags, Records, RecordType
from native.appender import Appender
from native.image import KeyedImage
from native.log import Control, LogState, append

_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Sizes and retention of one log. A segment is the unit that retention removes."""

    retain_bytes: int = 128 << 20
    retain_ns: int = 0
    """0: no limit by age."""
    segment_bytes: int = 8 << 20
    sync: bool = False
    """Reach the disk before a commit (orders)."""


class LogWriter:
    """Opens or continues the log in ``directory``. Raises LogLocked, LogFull, LogDamaged.

    The same session goes on unless continuity can't be proven: no log there, the machine was booted since and the log
    was not closed, another dtype or segment size, or (with ``reopen_ended=False``) the log was ended.

    ``only_if_closed``: go on only in a session whose writer closed it. What a killed one had given a `sync` standby, and not
    committed, is then never followed by other records at the same place.

    ``lock``: the descriptor that holds the log's lock, where the caller has waited for it; it is the writer's from then on.
    """

    forks_off = True
    """Of what a follower left here (a standby that takes over) a new session is begun, with that as its parent."""

    def __init__(
        self,
        directory: Path,
        channel: str,
        channel_id: int,
        record: RecordType,
        options: LogOptions,
        *,
        now_ns: int,
        epoch_file: Path | None = None,
        reopen_ended: bool = False,
        only_if_closed: bool = False,
        lock: int | None = None,
    ) -> None:
        self.directory = directory
        self.channel = channel
        self.channel_id = channel_id
        self.record = record
        self.options = options
        self.retention_floor: int | None = None
        """Retention keeps everything from this sequence on (None: no such limit)."""
        self.inline_rolls = 0
        """Segments that the publishing thread had to prepare itself because the helper was late."""
        self.unsealed_segments = 0
        """Full segments whose checksums could not be written."""
        self.retention_blocked = False
        """The image checkpoint can't be written (no space), so retention removes nothing."""
        self.cut_off = 0
        """Records of the session before that its commit names and that did not reach the disk."""
        self._superseded_by = 0
        self._only_if_closed = only_if_closed
        self._gate: Callable[[int, Records], None] | None = None
        self._stopped: FabricError | None = None
        self._segment_records = max(1, options.segment_bytes // record.size)
        self._hand_over = threading.Lock()
        # _current, _spare, _full and _kept change under it. The helper holds it while it prepares a segment, and who
        # rolls in the meantime waits for just that segment.
        self._spare: Segment | None = None
        self._failure: LogError | None = None
        self._full: deque[tuple[Segment, int]] = deque()
        self._kept: deque[tuple[Path, int, int, int]] = deque()  # path, first, last, last ts_publish_ns
        self._image: KeyedImage | None = None
        self._lock_fd = take_lock(directory) if lock is None else lock
        try:
            if not self._continue_session(reopen_ended):
                self._new_session(now_ns, epoch_file)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.fast = Appender(self.control, record.dtype, int(Flags.LAST_IN_EVENT))
        """For the publishing thread: writes what is plain and fits into the segment; see ``write`` for the rest."""
        self.on_roll: Callable[[], None] | None = None
        """Called by the publishing thread when it has gone over to another segment: ``maintain`` has something to do."""
        self._turn()
        self._closed = False
        _writers.add(self)

    # Opening

    def _continue_session(self, reopen_ended: bool) -> bool:
        session_directory = self.directory / CURRENT
        try:
            described = RecordType.from_description(read_description(session_directory)["record"])
            control, memory = map_control(session_directory)
        except (LogError, RecordTypeError, OSError):
            return False
        if not control.valid or described.schema != self.record.schema:
            return False
        if self.forks_off and (session_directory / HOLES).exists():
            return False
        same_boot = control.boot_id == boot_id()
        if (
            control.schema != self.record.schema
            or control.channel != self.channel_id
            or control.segment_records != self._segment_records
            or control.record_bytes != self.record.size
            or not ((same_boot and not self._only_if_closed) or control.clean_close)
            or (control.state != LogState.OPEN and not (control.state == LogState.ENDED and reopen_ended))
        ):
            return False
        self.session_directory = session_directory.resolve()
        self.control, self._control_memory = control, memory
        count = control.commit
        control.clean_close = False
        control.writer_pid = os.getpid()
        position = count - count % self._segment_records
        first = control.base + position
        if count % self._segment_records == 0:
            self._current = create_segment(self.session_directory, first, self._segment_records, self.record.size)
        else:
            self._current = open_segment(self.session_directory, first, self._segment_records, self.record.size)
        self._current.path.with_suffix(SIDECAR).unlink(missing_ok=True)  # written just before a kill undid the records
        for begin, path in segment_files(self.session_directory):
            if (
                begin + self._segment_records <= control.first_available
            ):  # a writer died between announcing and removing it
                path.with_suffix(SIDECAR).unlink(missing_ok=True)
                path.unlink()
            elif begin < first:
                stamp_ns = last_publish_ns(path, self._segment_records, self.record.size)
                self._kept.append((path, begin, begin + self._segment_records - 1, stamp_ns))
                if not path.with_suffix(SIDECAR).exists():
                    sealed = open_segment(self.session_directory, begin, self._segment_records, self.record.size)
                    self._full.append((sealed, self._segment_records))
        return True

    def _new_session(self, now_ns: int, epoch_file: Path | None) -> None:
        parent, fork = 0, 0
        previous = max((session >> 32 for session in sessions(self.directory)), default=0)
        old = self._old_control()
        if old is not None:
            parent, fork = old.session, self._cut_off(old)
        session = new_session_id(next_epoch(epoch_file, previous, now_ns))
        # Made under a hidden name and renamed at the end: what fails or dies half-way leaves nothing that looks like a
        # session, and the next writer sweeps it away.
        sweep(self.directory, keep=parent)
        building = self.directory / f".{session_name(session)}"
        try:
            first = build_session(
                building,
                self.channel,
                self.channel_id,
                self.record,
                self._segment_records,
                session,
                parent,
                fork,
                now_ns,
            )
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self._install(building, first, session, old)

    def _old_control(self) -> Control | None:
        """Of the session that is current, if it can be read."""
        try:
            old, _ = map_control(self.directory / CURRENT)
        except (LogError, OSError):
            return None
        return old if old.valid else None

    def _install(self, building: Path, first: Segment, session: int, old: Control | None) -> None:
        """Make a whole new session the current one, in steps between any two of which the writer may be killed."""
        self.session_directory = (self.directory / session_name(session)).resolve()
        building.rename(self.session_directory)
        first.path = self.session_directory / first.path.name
        self._current = first
        self.control, self._control_memory = map_control(self.session_directory)
        self.control.writer_pid = os.getpid()
        if old is not None:
            old.state = LogState.SUPERSEDED
        point_current(self.directory, session)
        if old is not None:
            old.wake()  # its readers look for the one that is current now

    def _cut_off(self, old: Control) -> int:
        """Where the session before ends. After a crash of the operating system its commit may be ahead of what reached the
        disk: nobody is to be given what is not there, and who was given more is told by the fork."""
        if old.boot_id == boot_id() or old.clean_close:
            return old.next - 1
        try:
            described = RecordType.from_description(read_description(self.directory / CURRENT)["record"])
            whole = last_whole(self.directory / CURRENT, old, described)
        except (LogError, RecordTypeError):
            return old.next - 1
        if whole < old.next - 1:
            self.cut_off = old.next - 1 - whole
            old.cut(max(0, whole + 1 - old.base))
        return whole

    # The publishing thread

    @property
    def session(self) -> int:
        return self.control.session

    @property
    def next(self) -> int:
        """The sequence of the next record to be committed."""
        return self.control.next

    @property
    def ended(self) -> bool:
        return self.control.state == LogState.ENDED

    @property
    def superseded(self) -> bool:
        """A newer session was begun by somebody else: nothing more is written."""
        return self.control.state == LogState.SUPERSEDED

    @property
    def superseded_by(self) -> int:
        """The session that took the channel over, where that is known; else 0."""
        return self._superseded_by or self._newer()

    def fence(self, session: int) -> None:
        """Stop at once, because this session has taken the channel over. From any thread."""
        self._superseded_by = session
        if not self.superseded:
            self.control.state = LogState.SUPERSEDED
            self.control.wake()  # its readers look for the newer one

    def hold_back(self, gate: Callable[[int, Records], None]) -> None:
        """Call ``gate(first, records)`` before each commit; the records are not visible until it returns. What it raises
        (FabricError) comes out of ``write``, and ends this writer: every further write raises it again."""
        self._gate = gate
        self.fast.shut()

    @property
    def stopped(self) -> bool:
        """Nothing can be written any more: a gate raised."""
        return self._stopped is not None

    def write(self, records: Records, now_ns: int) -> int:
        """Append records and commit them; returns the first one's sequence.

        Each gets ``ts_publish_ns = max(now_ns, the one before)`` in the log, and in ``records`` itself, which the
        caller is about to send. All of them become visible at once; the last one must end an event. If it raises
        (LogFull, RecordTypeError), nothing of them is in the log and the writer can be used again.
        """
        if self._closed:
            raise Closed(f"the log of {self.channel!r} is closed")
        if self.superseded:
            raise Superseded(self.channel, self.superseded_by, path=self.directory)
        if self._stopped is not None:
            raise self._stopped
        if self.ended:
            raise LogError("the log is ended: no record can follow", path=self.session_directory)
        if records.dtype != self.record.dtype:
            raise RecordTypeError(f"channel {self.channel!r} carries {self.record!r}, not {records.dtype}")
        total = len(records)
        count = self.control.commit
        first = self.control.base + count
        before_ns = self.control.last_publish_ns
        publish_ns = max(now_ns, before_ns)
        done = min(total, self._current.last + 1 - first)
        rolled = done < total
        if done == total:
            self._copy(first, records, 0, total, publish_ns)
        else:
            with self._hand_over:
                following = self._following(total - done)  # what can fail comes before anything changes
                self._copy(first, records, 0, done, publish_ns)
                last_stamp_ns = publish_ns if done else before_ns
                for segment in following:
                    self._roll(segment, last_stamp_ns)
                    fits = min(total - done, self._segment_records)
                    self._copy(first + done, records, done, fits, publish_ns)
                    done += fits
                    last_stamp_ns = publish_ns
        if self.options.sync:
            self._current.memory.flush()
        if self._gate is not None:
            try:
                self._gate(first, records)
            except FabricError as error:
                self._stopped = error  # somebody may have these records: others must not follow at their place
                raise
        self.control.store_commit(count + total, publish_ns)
        if self.options.sync:
            self._control_memory.flush()
        self._turn()
        if rolled and self.on_roll is not None:
            self.on_roll()
        return first

    def _turn(self) -> None:
        """The fast path goes on where the log now ends; never where each record has to reach the disk, or a standby."""
        if not self.options.sync and self._gate is None and not self.ended:
            self.fast.turn_to(self._current.memory, self._current.first, self._segment_records)

    def _copy(self, sequence: int, records: Records, begin: int, count: int, publish_ns: int) -> None:
        at_record = sequence - self._current.first
        append(self._current.memory, at_record, records, begin, count, self.record.size, publish_ns)

    def _following(self, records: int) -> list[Segment]:
        """The segments after the current one that so many records need. Raises LogFull and leaves all as it was."""
        made: list[Segment] = []
        spare, self._spare = self._spare, None
        try:
            for position in range(-(-records // self._segment_records)):
                first = self._current.last + 1 + position * self._segment_records
                if position or spare is None:
                    if self._failure is not None:
                        raise self._failure
                    self.inline_rolls += 1
                    made.append(create_segment(self.session_directory, first, self._segment_records, self.record.size))
                else:
                    made.append(spare)
        except BaseException:
            self._spare = made.pop(0) if made else None
            for segment in made:
                segment.path.unlink(missing_ok=True)
            raise
        return made

    def _roll(self, following: Segment, last_stamp_ns: int) -> None:
        if self.options.sync:
            self._current.memory.flush()
        self._full.append((self._current, self._segment_records))
        self._kept.append((self._current.path, self._current.first, self._current.last, last_stamp_ns))
        self._current = following
        if self.options.sync:
            sync_directory(self.session_directory)

    def end(self) -> None:
        """The source is finished: nothing will follow in this session."""
        self.fast.shut()
        if self.superseded:
            return
        self.control.state = LogState.ENDED
        self.control.wake()

    # The helper thread

    def maintain(self, now_ns: int, monotonic_ns: int) -> None:
        """Prepare the next segment, seal full ones, apply retention, show that the writer lives.

        A failure to prepare is kept and raised by the write that needs the segment.
        """
        if self._closed:
            return
        self.control.alive_ns = monotonic_ns
        if newer := self._newer():
            if not self._superseded_by:
                self.fence(newer)
            return
        with self._hand_over:
            if self._spare is None and not self.ended and not self._closed:
                wanted = self._current.last + 1
                try:
                    self._spare = create_segment(
                        self.session_directory, wanted, self._segment_records, self.record.size
                    )
                    self._failure = None
                except LogError as error:
                    self._failure = error
        while self._full:
            segment, count = self._full[0]
            try:
                write_sidecar(
                    segment, count, session=self.session, schema=self.record.schema, record_bytes=self.record.size
                )
            except OSError:  # no room: retention below must go on; the next opening makes up for it
                self.unsealed_segments += 1
            with self._hand_over:
                self._full.popleft()
        self._retain(now_ns)

    def _newer(self) -> int:
        """The session that ``current`` names, if that is another one and no older; else 0."""
        try:
            session = int((self.directory / CURRENT).readlink().name, 16)
        except (OSError, ValueError):
            return 0
        return session if session != self.session and session >> 32 >= self.session >> 32 else 0

    def _retain(self, now_ns: int) -> None:
        while self._kept:
            path, first, last, published_ns = self._kept[0]
            kept_bytes = (len(self._kept) + 1) * self._segment_records * self.record.size
            too_old = 0 < self.options.retain_ns < now_ns - published_ns and published_ns > 0
            if kept_bytes <= self.options.retain_bytes and not too_old:
                return
            if self.retention_floor is not None and last >= self.retention_floor:
                return
            if self._full and self._full[0][0].first <= first:
                return  # filled this moment, not sealed yet
            if self.record.image != "none":
                try:
                    self._fold_into_image(path, first, last)
                except OSError:  # no room for it: without it nothing may be removed
                    self.retention_blocked = True
                    return
                self.retention_blocked = False
            self.control.first_available = last + 1
            path.with_suffix(SIDECAR).unlink(missing_ok=True)  # first: no sidecar is ever left alone
            path.unlink(missing_ok=True)
            with self._hand_over:
                self._kept.popleft()

    def _fold_into_image(self, path: Path, first: int, last: int) -> None:
        """Retention never passes the image checkpoint: it moves first."""
        if self._image is None:
            self._image = load_image(self.session_directory, self.record)
        if self._image.as_of < last:
            # Mapped, not read: a buffer of a segment's size would stay in the process.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                self._image.update(memory, first)
            self._image.advance(last)
            save_image(self.session_directory, self._image)

    def close_keeping_lock(self) -> int:
        """As ``close``, but that nobody else may write in between: the descriptor that now holds the lock."""
        lock = os.dup(self._lock_fd)
        self.close()
        return lock

    def close(self) -> None:
        """Orderly: the log can be continued, also after a reboot. Safe to call twice."""
        if self._closed:
            return
        self.fast.shut()
        with self._hand_over:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.path.unlink(missing_ok=True)
        self.control.clean_close = True
        os.close(self._lock_fd)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # dropped without close(): the lock must not outlive this object
            self._closed = True
            os.close(self._lock_fd)

    def abandon_in_child(self) -> None:
        """After a fork: the lock belongs to the parent, and a descriptor kept here would outlive its kill."""
        if not self._closed:
            self.fast.shut()
            self._closed = True
            os.close(self._lock_fd)


def _abandon_all() -> None:
    for writer in list(_writers):
        writer.abandon_in_child()


os.register_at_fork(after_in_child=_abandon_all)
