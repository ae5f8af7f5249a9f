"""What is left of a log after the operating system died: pages that had not reached the disk are zeros, or gone.

The control page and the segments reach a disk in any order, so the commit may be ahead of the records. Segments are
preallocated with zeros and never written twice, so a page that is missing is a page of zeros: there ``ts_publish_ns``,
which is never zero nor below the record before, tells it. Sealed segments have checksums.

Not seen: a page of zeros in the middle of a record larger than a page. Where that must not be, ``sync`` is the way.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fabric.log.holes import LogHoles
from fabric.log.paths import SIDECAR, segment_name
from fabric.log.segments import CRC_BLOCK_BYTES
from fabric.records import Flags, Records, RecordType
from native.log import Control
from native.packet import crc32c

_PAGE_BYTES = 4096
_STAMP_OFFSET = 16


def last_whole(session_directory: Path, control: Control, record: RecordType, holes: LogHoles | None = None) -> int:
    """The last sequence up to which every record from ``first_available`` on is there: that of the commit, else an event's
    end before what is missing; one less than ``first_available`` if there is none. What is in ``holes`` is known to be
    missing. Raises OSError for a disk that can't be read."""
    first = control.first_available
    whole, stamp_ns = first - 1, 0
    begin = first - (first - control.base) % control.segment_records
    while begin < control.next:
        count = min(control.segment_records, control.next - begin)
        known = _known(begin, count, first, holes)
        if known.all() and not (session_directory / segment_name(begin)).exists():
            begin += control.segment_records
            continue
        records = _read(session_directory / segment_name(begin), control.segment_records, record)
        if records is None:
            return whole
        good = _good(records[:count], stamp_ns, session_directory / segment_name(begin), known)
        ends = np.flatnonzero((records["flags"][:good] & Flags.LAST_IN_EVENT) != 0)
        if len(ends):
            whole = max(whole, begin + int(ends[-1]))
        if good < count:
            return whole
        stamp_ns = max(stamp_ns, int(records["ts_publish_ns"][:count].max()))
        begin += control.segment_records
    return control.next - 1


def _read(path: Path, segment_records: int, record: RecordType) -> Records | None:
    """A whole segment; None if it is missing or has another size."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return record.view(content, 0, segment_records) if len(content) == segment_records * record.size else None


def damaged_segments(session_directory: Path, control: Control, holes: LogHoles) -> list[tuple[int, int]]:
    """(first, last) of each full segment that is missing, has another size, or does not match its checksums."""
    found = []
    records, size = control.segment_records, control.record_bytes
    begin = control.first_available - (control.first_available - control.base) % records
    while begin + records <= control.next:
        path = session_directory / segment_name(begin)
        if not _known(begin, records, control.first_available, holes).all():
            content = path.read_bytes() if path.exists() else b""
            if len(content) != records * size or _good_by_checksum(content, records, size, path) < records:
                found.append((max(begin, control.first_available), begin + records - 1))
        begin += records
    return found


def _known(begin: int, count: int, first_available: int, holes: LogHoles | None) -> npt.NDArray[np.bool_]:
    """Of each record of a segment: whether it is known not to be there."""
    known = np.zeros(count, bool)
    known[: max(0, first_available - begin)] = True
    for first, last in holes.ranges if holes is not None else ():
        known[max(0, first - begin) : max(0, last + 1 - begin)] = True
    return known


def _good(records: Records, before_ns: int, path: Path, known: npt.NDArray[np.bool_]) -> int:
    """How many records from the first one on are there, those that are ``known`` not to be among them."""
    stamps = records["ts_publish_ns"].copy()
    stamps[known] = 0
    highest = np.maximum.accumulate(np.concatenate([[before_ns], stamps]))[:-1]
    bad = np.flatnonzero(~known & ((stamps <= 0) | (stamps < highest)))
    good = len(records)
    if len(bad):
        # The page that this stamp is on is missing, and with it the end of a record that reaches into it.
        page = (int(bad[0]) * records.itemsize + _STAMP_OFFSET) // _PAGE_BYTES * _PAGE_BYTES
        good = min(int(bad[0]), page // records.itemsize)
    return min(good, _good_by_checksum(records.tobytes(), len(records), records.itemsize, path))


def _good_by_checksum(content: bytes, count: int, record_bytes: int, path: Path) -> int:
    """The same by the sidecar, where there is one that can be read and is of this segment."""
    try:
        stated = json.loads(path.with_suffix(SIDECAR).read_bytes())
        checksums = [int(each) for each in stated["crc32c"]]
        if stated["count"] != count or stated["crc32c_block_bytes"] != CRC_BLOCK_BYTES:
            return count
    except (OSError, ValueError, KeyError, TypeError):
        return count
    for number, checksum in enumerate(checksums):
        block = content[number * CRC_BLOCK_BYTES : (number + 1) * CRC_BLOCK_BYTES]
        if crc32c(block) != checksum:
            return number * CRC_BLOCK_BYTES // record_bytes
    return count
