"""A follower's log: what a publisher's log holds, under the publisher's own session and sequences, byte by byte.

It may begin in mid-session, and have holes where the publisher's log was gone before it was read (fabric.log.holes). Its
older sessions stay, until its own retention removes them.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fabric.errors import LogDamaged, LogError
from fabric.log.holes import LogHoles, load_holes
from fabric.log.paths import CURRENT, SIDECAR, boot_id, session_name
from fabric.log.salvage import damaged_segments, last_whole
from fabric.log.segments import Segment, create_segment, open_segment, segment_files
from fabric.log.sessions import build_session, map_control, sessions, sync_directory
from fabric.log.writer import LogOptions, LogWriter
from fabric.records import Records, RecordType

CONFIRMED = 15
"""Index of the log's counter that tells how much of it is known to be its publisher's."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A publisher's session, and the first record that is to be had of it."""

    session: int
    parent: int
    fork: int
    first: int


class FollowerLog(LogWriter):
    """Opens the log of a publisher's session in ``directory``, or goes on with it. Raises LogLocked, LogFull, LogDamaged.

    What lies on the disk is verified first: damaged segments become holes (``damaged`` counts them), an unsynced tail is
    cut off, and read again from ``next`` on.
    """

    forks_off = False

    def __init__(
        self,
        directory: Path,
        channel: str,
        channel_id: int,
        record: RecordType,
        options: LogOptions,
        followed: Followed,
        *,
        now_ns: int,
        lock: int | None = None,
    ) -> None:
        self._followed = followed
        self.holes = LogHoles()
        self.damaged = 0
        super().__init__(directory, channel, channel_id, record, options, now_ns=now_ns, reopen_ended=True, lock=lock)
        self.fast.shut()  # its records have their time already
        self.confirm(followed.first)

    def follow(self, first: int, records: Records) -> None:
        """Append the records from sequence ``first`` on, which is ``next``; the last one ends an event."""
        if first != self.next:
            raise LogError(f"record {first} does not follow {self.next - 1}", path=self.session_directory)
        if len(records):
            self.write(records, int(records["ts_publish_ns"][-1]))

    def skip(self, last: int) -> None:
        """All up to ``last`` that is not here can't be had: a hole, or a later beginning."""
        first = self.next
        if last < first:
            return
        if self.control.first_available == first:
            self.control.first_available = last + 1
        else:
            self.holes.add(first, last)
            self.holes.save(self.session_directory)
        with self._hand_over:
            if last + 1 > self._current.last:
                # Where the rest of it lies: segments in between that would be all hole are not made.
                if self._current.last < self.control.first_available:
                    self._current.path.unlink(missing_ok=True)
                else:
                    stamp_ns = self.control.last_publish_ns
                    self._full.append((self._current, self._segment_records))
                    self._kept.append((self._current.path, self._current.first, self._current.last, stamp_ns))
                spare, self._spare = self._spare, None
                if spare is not None:
                    spare.path.unlink(missing_ok=True)
                self._current = self._segment_of(last + 1)
        self.control.store_commit(last + 1 - self.control.base, self.control.last_publish_ns)

    @property
    def confirmed(self) -> int:
        """All below this sequence is known to be committed by its publisher; above it a `sync` standby may have one write
        more, that nobody has seen."""
        return self.control.base + self.control.counter(CONFIRMED)

    def confirm(self, following: int) -> None:
        """The publisher has committed all below this sequence."""
        more = min(following, self.next) - self.confirmed
        if more > 0:
            self.control.count(CONFIRMED, more)

    def cut_back(self) -> int:
        """Forget what is above ``confirmed``, which nobody has seen; how many records that was."""
        following = self.confirmed
        more = self.next - following
        if more <= 0:
            return 0
        with self._hand_over:
            spare, self._spare = self._spare, None
            if spare is not None:
                spare.path.unlink(missing_ok=True)
            while following < self._current.first:
                self._current.path.unlink(missing_ok=True)
                path, first, _, _ = self._kept.pop()
                if self._full and self._full[-1][0].first == first:
                    self._full.pop()
                path.with_suffix(SIDECAR).unlink(missing_ok=True)
                self._current = open_segment(self.session_directory, first, self._segment_records, self.record.size)
        self.control.cut(following - self.control.base)
        return more

    def end_unknown(self) -> None:
        """Whether the session went further than this is not known."""
        self.holes.open_end = True
        self.holes.save(self.session_directory)

    def maintain(self, now_ns: int, monotonic_ns: int) -> None:
        """As a writer's; and what is sealed is on the disk."""
        sealing = [segment for segment, _ in self._full]
        super().maintain(now_ns, monotonic_ns)
        for segment in sealing:
            with contextlib.suppress(ValueError, OSError):  # removed since
                segment.memory.flush()
        if sealing:
            sync_directory(self.session_directory)
        self._drop_old_sessions(now_ns)

    # How it differs from a publisher's

    def _continue_session(self, reopen_ended: bool) -> bool:
        directory = self.directory / CURRENT
        try:
            if directory.readlink().name != session_name(self._followed.session):
                return False
            control, _ = map_control(directory)
            self.holes = load_holes(directory) or LogHoles()
        except (LogError, OSError, ValueError):
            return False
        self._segment_records = control.segment_records  # as long as the session lasts, whatever the options say
        damaged = damaged_segments(directory, control, self.holes)
        whole = control.next - 1
        if control.boot_id != boot_id() and not control.clean_close:
            whole = last_whole(directory, control, self.record, LogHoles([*self.holes.ranges, *damaged]))
        while damaged and damaged[-1][1] >= whole:  # at the end: perhaps it can be read again
            whole = min(whole, damaged.pop()[0] - 1)
            self.damaged += 1
        for first, last in damaged:
            self.holes.add(first, last)
            self.damaged += 1
        self.holes.save(directory)
        if whole < control.next - 1:
            self.cut_off = control.next - 1 - whole
            control.cut(max(0, whole + 1 - control.base))
        control.clean_close = True  # what lies there is what is stated: it can be gone on with in any boot
        return super()._continue_session(reopen_ended)

    def _new_session(self, now_ns: int, epoch_file: Path | None) -> None:
        followed, records = self._followed, self._segment_records
        parent = self._current_session()
        if followed.session in sessions(self.directory) and parent == followed.session:
            raise LogDamaged(
                "is not a log that can be gone on with", path=self.directory, remedy="remove that session's directory"
            )
        for left in [*self.directory.glob(f".{'[0-9a-f]' * 16}"), self.directory / session_name(followed.session)]:
            shutil.rmtree(left, ignore_errors=True)  # half-made: ``current`` never named it
        building = self.directory / f".{session_name(followed.session)}"
        try:
            segment = build_session(
                building, self.channel, self.channel_id, self.record, records, followed.session,
                followed.parent, followed.fork, now_ns,
            )  # fmt: skip
            self.holes.save(building)
            control, _ = map_control(building)
            control.first_available = followed.first
            control.store_commit(followed.first - control.base, 0)
            begin = followed.first - (followed.first - control.base) % records
            if begin != segment.first:
                segment.path.unlink()
                segment = create_segment(building, begin, records, self.record.size)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self._install(building, segment, followed.session, self._old_control())

    def _copy(self, sequence: int, records: Records, begin: int, count: int, publish_ns: int) -> None:
        """As they are, with the times that they have."""
        size = self.record.size
        at = (sequence - self._current.first) * size
        content = np.ascontiguousarray(records[begin : begin + count]).view(np.uint8).reshape(-1)
        np.frombuffer(self._current.memory, np.uint8)[at : at + count * size] = content

    def _fold_into_image(self, path: Path, first: int, last: int) -> None:
        """A follower has no image: it may not have been there from the beginning."""

    # Inside

    def _current_session(self) -> int:
        try:
            return int((self.directory / CURRENT).readlink().name, 16)
        except (OSError, ValueError):
            return 0

    def _segment_of(self, sequence: int) -> Segment:
        begin = sequence - (sequence - self.control.base) % self._segment_records
        return create_segment(self.session_directory, begin, self._segment_records, self.record.size)

    def _drop_old_sessions(self, now_ns: int) -> None:
        """Whole sessions, oldest first, that are too old or for which there is no room beside the current one."""
        older = [each for each in sessions(self.directory) if each != self.session]
        room = self.options.retain_bytes - _bytes_in(self.session_directory)
        kept = {each: _bytes_in(self.directory / session_name(each)) for each in older}
        for session in older:
            directory = self.directory / session_name(session)
            with contextlib.suppress(LogError, OSError):
                control, _ = map_control(directory)
                age_ns = now_ns - control.last_publish_ns
                if sum(kept.values()) <= room and not 0 < self.options.retain_ns < age_ns:
                    continue
                control.first_available = control.next  # who has it mapped is told, and not surprised
                for _, path in segment_files(directory):
                    path.with_suffix(SIDECAR).unlink(missing_ok=True)
                    path.unlink()
            shutil.rmtree(directory, ignore_errors=True)
            kept.pop(session)


def _bytes_in(directory: Path) -> int:
    total = 0
    for _, path in segment_files(directory):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
