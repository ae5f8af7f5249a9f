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

from fabric.log.paths import SIDECAR, segment_name
from fabric.log.segments import CRC_BLOCK_BYTES
from fabric.records import Flags, Records, RecordType
from native.log import Control
from native.packet import crc32c

_PAGE_BYTES = 4096
_STAMP_OFFSET = 16


def last_whole(session_directory: Path, control: Control, record: RecordType) -> int:
    """The last sequence up to which every record from ``first_available`` on is there: that of the commit, else an event's
    end before what is missing; one less than ``first_available`` if there is none. Raises OSError for a disk that can't be
    read."""
    first = control.first_available
    whole, stamp_ns = first - 1, 0
    begin = first - (first - control.base) % control.segment_records
    while begin < control.next:
        count = min(control.segment_records, control.next - begin)
        records = _read(session_directory / segment_name(begin), control.segment_records, record)
        if records is None:
            return whole
        good = _good(records[:count], stamp_ns, session_directory / segment_name(begin))
        ends = np.flatnonzero(records["flags"][:good] & Flags.LAST_IN_EVENT)
        if len(ends):
            whole = max(whole, begin + int(ends[-1]))
        if good < count:
            return whole
        stamp_ns = int(records["ts_publish_ns"][count - 1])
        begin += control.segment_records
    return control.next - 1


def _read(path: Path, segment_records: int, record: RecordType) -> Records | None:
    """A whole segment; None if it is missing or has another size."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return record.view(content, 0, segment_records) if len(content) == segment_records * record.size else None


def _good(records: Records, before_ns: int, path: Path) -> int:
    """How many records from the first one on are there."""
    stamps = records["ts_publish_ns"]
    bad = np.flatnonzero((stamps <= 0) | (np.diff(stamps, prepend=before_ns) < 0))
    good = len(records)
    if len(bad):
        # The page that this stamp is on is missing, and with it the end of a record that reaches into it.
        page = (int(bad[0]) * records.itemsize + _STAMP_OFFSET) // _PAGE_BYTES * _PAGE_BYTES
        good = min(int(bad[0]), page // records.itemsize)
    return min(good, _good_by_checksum(records, path))


def _good_by_checksum(records: Records, path: Path) -> int:
    """The same by the sidecar, where there is one that can be read and is of this segment."""
    content = records.tobytes()
    try:
        stated = json.loads(path.with_suffix(SIDECAR).read_bytes())
        checksums = [int(each) for each in stated["crc32c"]]
        if stated["count"] != len(records) or stated["crc32c_block_bytes"] != CRC_BLOCK_BYTES:
            return len(records)
    except (OSError, ValueError, KeyError, TypeError):
        return len(records)
    for number, checksum in enumerate(checksums):
        block = content[number * CRC_BLOCK_BYTES : (number + 1) * CRC_BLOCK_BYTES]
        if crc32c(block) != checksum:
            return number * CRC_BLOCK_BYTES // records.itemsize
    return len(records)
