"""Reading a log by mapping it: no socket, no copy, never past the commit."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, overload

import numpy as np

from fabric.errors import LogDamaged, LogMissing, RecordTypeError
from fabric.log.holes import FollowedHoles
from fabric.log.paths import CONTROL, CURRENT, DESCRIPTION, WAIT, read_description, segment_name
from fabric.records import Records, RecordType
from native.log import PAGE_BYTES, Control, LogState

if TYPE_CHECKING:
    from fabric.log.slice import LogSlice

_MAPPED_SEGMENTS = 4


class LogReader:
    """One session of a log. ``directory`` is a channel's (its current session) or a session's own.

    Views that ``read`` returns stay valid and constant for as long as they are referenced, also after ``close`` and
    after retention removed the file. Raises LogMissing, LogDamaged.
    """

    def __init__(self, directory: Path) -> None:
        session_directory = directory / CURRENT if (directory / CURRENT).exists() else directory
        self.directory = session_directory.resolve()
        description = read_description(self.directory)
        self.channel: str = description["channel"]
        try:
            self.record = RecordType.from_description(description["record"])
        except RecordTypeError as error:
            raise LogDamaged(f"describes no record type: {error}", path=self.directory / DESCRIPTION) from None
        self.control = _map_control(self.directory)
        if not self.control.valid or self.control.record_bytes != self.record.size:
            raise LogDamaged("the control page is not that of a log", path=self.directory / CONTROL)
        self._segments: OrderedDict[int, Records] = OrderedDict()
        self._holes = FollowedHoles.of(self.directory)
        """Of a follower's log."""

    @property
    def session(self) -> int:
        return self.control.session

    @property
    def base(self) -> int:
        return self.control.base

    @property
    def first_available(self) -> int:
        """The oldest sequence that retention has left."""
        return self.control.first_available

    @property
    def next(self) -> int:
        """The sequence that the next record will have: all below it are committed."""
        return self.control.next

    @property
    def state(self) -> LogState:
        return self.control.state

    def __len__(self) -> int:
        return self.next - self.first_available

    @overload
    def __getitem__(self, place: slice) -> LogSlice: ...
    @overload
    def __getitem__(self, place: SupportsIndex) -> np.void: ...
    def __getitem__(self, place: slice | SupportsIndex) -> LogSlice | np.void:
        """``log[a:b]``: records ``a`` to ``b - 1``. Bounds are sequences (negative: from the end), aware datetimes or
        ``numpy.datetime64`` (by time of publication), or left out. ``log[a]``: the one record of that sequence, read-only.
        Raises IndexError for what is not there or retention has removed, UserMistake for other bounds."""
        from fabric.log.slice import record_at, slice_of

        return slice_of(self, place) if isinstance(place, slice) else record_at(self, place)

    def read(self, first: int, max_records: int) -> Records:
        """A read-only view of committed records from ``first`` on, up to a segment's end; empty if there are none yet.

        Raises IndexError for a sequence that is not available any more (or below the base), or in a hole of a follower's log.
        """
        if first < self.first_available:
            raise IndexError(f"sequence {first} is below the first available one, {self.first_available}")
        available = self.next - first
        if available <= 0 or max_records <= 0:
            return self.record.zeros(0)
        position = first - self.base
        begin = first - position % self.control.segment_records
        offset = first - begin
        count = min(max_records, available, self.control.segment_records - offset)
        if self._holes is not None:
            count = self._holes.until(first, count)
        try:
            segment = self._segment(begin)
        except LogMissing:
            if first < self.first_available:
                raise IndexError(f"sequence {first} is below the first available one, {self.first_available}") from None
            raise
        return segment[offset : offset + count]

    def read_range(self, first: int, last: int) -> Iterator[tuple[int, Records]]:
        """(first sequence, view) pairs that cover ``first`` to ``last``, as far as committed."""
        while first <= last:
            view = self.read(first, last - first + 1)
            if not len(view):
                return
            yield first, view
            first += len(view)

    def find_time(self, time_ns: int) -> int:
        """The first available sequence published at ``time_ns`` (UTC) or later; ``next`` where there is none. Bisects on
        ``ts_publish_ns``, which never falls within a log."""
        while True:
            low, high = self.first_available, self.next
            try:
                while low < high:
                    middle = (low + high) // 2
                    if int(self.read(middle, 1)["ts_publish_ns"][0]) < time_ns:
                        low = middle + 1
                    else:
                        high = middle
                return low
            except IndexError:  # retention went on meanwhile
                continue

    def wait_beyond(self, sequence: int, timeout_ns: int) -> int:
        """Block until a record after ``sequence`` is committed, or the time is over; returns ``next``."""
        return self.control.wait_beyond(sequence, timeout_ns)

    def map_whole(self, begin: int) -> Records:
        """The whole segment whose first record has sequence ``begin``, what is not committed yet included: for cursors
        that look at the commit themselves. Raises IndexError where retention has removed it."""
        try:
            return self._segment(begin)
        except LogMissing:
            raise IndexError(f"sequence {begin} is below the first available one, {self.first_available}") from None

    def close(self) -> None:
        """Forget the mapped segments; views already handed out stay valid."""
        self._segments.clear()

    def _segment(self, begin: int) -> Records:
        segment = self._segments.get(begin)
        if segment is None:
            segment = _map_segment(self.directory / segment_name(begin), self.control.segment_records, self.record)
            self._segments[begin] = segment
            if len(self._segments) > _MAPPED_SEGMENTS:
                self._segments.popitem(last=False)
        else:
            self._segments.move_to_end(begin)
        return segment


def open_log(path: str | Path) -> LogReader:
    """Open a channel's log (its current session) or one session of it for reading."""
    return LogReader(Path(path))


def _map_segment(path: Path, records: int, record: RecordType) -> Records:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != records * record.size:
                raise LogDamaged(f"has {size} bytes, not {records * record.size}", path=path)
            memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
    except FileNotFoundError:
        raise LogMissing("the segment is not there", path=path) from None
    return np.frombuffer(memory, record.dtype)


def _map_control(directory: Path) -> Control:
    try:
        with (directory / CONTROL).open("rb") as file:
            if os.fstat(file.fileno()).st_size < PAGE_BYTES:
                raise LogDamaged("is truncated", path=directory / CONTROL)
            page = mmap.mmap(file.fileno(), PAGE_BYTES, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
    except FileNotFoundError:
        raise LogMissing("no control page", path=directory) from None
    wait = None
    try:
        with (directory / WAIT).open("r+b") as file:
            wait = mmap.mmap(file.fileno(), PAGE_BYTES)
    except (OSError, ValueError):
        pass  # no write permission: waiting falls back to timed polling
    return Control(page, wait)
