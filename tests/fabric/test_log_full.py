"""A log on a file system that is full: nothing half-written stays, and it goes on once there is room."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

import fabric.log.segments
from fabric.errors import LogFull
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.records import record

SECOND_NS = 1_000_000_000
TICK = record("full_tick", image="last", value="i8")
SEGMENT = 16


def new_writer(directory, **options) -> LogWriter:
    sizes = LogOptions(segment_bytes=SEGMENT * TICK.size, **options)
    return LogWriter(directory, "ticks", 77, TICK, sizes, now_ns=SECOND_NS)


def ticks(first: int, count: int):
    """Records whose content tells their sequence."""
    return TICK.build(count, value=np.arange(first, first + count) * 3)


def check(records, first: int) -> None:
    assert records["value"].tolist() == [3 * sequence for sequence in range(first, first + len(records))]


def sealed(writer: LogWriter) -> list[int]:
    return [int(path.stem) for path in sorted(writer.session_directory.glob("*.sum"))]


@pytest.fixture
def small_disk(monkeypatch):
    """A file system with room for as many more segments as ``room[0]`` says."""
    room = [0]
    allocate = os.posix_fallocate

    def posix_fallocate(descriptor, offset, length):
        if os.fstat(descriptor).st_size < length:
            if room[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            room[0] -= 1
        allocate(descriptor, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    return room


@pytest.mark.parametrize("ahead", [False, True], ids=["met by the write", "met by the helper"])
def test_a_full_disk_leaves_the_log_as_it_was_and_usable(tmp_path, small_disk, ahead):
    small_disk[0] = 2
    writer = new_writer(tmp_path)
    writer.write(ticks(1, 10), SECOND_NS)
    files = sorted(path.name for path in writer.session_directory.iterdir())
    for _ in range(3):
        if ahead:
            writer.maintain(SECOND_NS, 1)
        with pytest.raises(LogFull, match=r"\.seg: no space left.*log_dir") as caught:
            writer.write(ticks(11, 3 * SEGMENT), SECOND_NS)  # needs three more segments, one fits
        assert str(writer.session_directory) in caught.value.path
        assert (writer.next, LogReader(tmp_path).next) == (11, 11)
    if not ahead:
        assert len(sorted(path.name for path in writer.session_directory.iterdir())) <= len(files) + 1
    small_disk[0] = 100
    writer.maintain(SECOND_NS, 1)
    assert writer.write(ticks(11, 3 * SEGMENT), SECOND_NS) == 11
    writer.maintain(SECOND_NS, 1)
    check(np.concatenate([view for _, view in LogReader(tmp_path).read_range(1, 99)]), 1)
    assert sealed(writer) == [1, 17, 33]
    writer.close()
    again = new_writer(tmp_path)
    assert (again.session, again.next) == (writer.session, 59)


def test_a_disk_too_full_for_a_sidecar_does_not_stop_retention(tmp_path, monkeypatch):
    writer = new_writer(tmp_path, retain_bytes=3 * SEGMENT * TICK.size)

    def no_room(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(fabric.log.segments, "write_atomically", no_room)
        writer.write(ticks(1, 6 * SEGMENT), SECOND_NS)
        writer.maintain(SECOND_NS, 1)
    assert writer.control.first_available == 1 + 3 * SEGMENT
    assert (sealed(writer), writer.unsealed_segments) == ([], 5)
    writer.close()
    again = new_writer(tmp_path)  # makes up for it
    again.maintain(SECOND_NS, 1)
    assert sealed(again) == [1 + at * SEGMENT for at in (3, 4, 5)]


def test_a_new_log_on_a_full_disk_leaves_nothing_behind(tmp_path, small_disk):
    with pytest.raises(LogFull, match="log_dir"):
        new_writer(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "lock"] == []
    small_disk[0] = 1
    assert new_writer(tmp_path).next == 1
