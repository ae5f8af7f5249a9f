"""What is left of a log whose last pages never reached the disk, and who is told of it; and a writer that was replaced."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fabric.errors import Superseded
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.paths import LOCK
from fabric.log.salvage import last_whole
from fabric.log.segments import segment_files
from fabric.log.sessions import map_control
from fabric.records import Flags, record
from fabric.transport.publisher import Publisher
from native.log import LogState

TICK = record("salvage_tick", value="u8", more=("u8", (8,)))  # 104 bytes: records reach over pages
SEGMENT = 700
PAGE = 4096
_BOOT_ID = slice(80, 96)


def new_writer(directory, **more) -> LogWriter:
    options = LogOptions(segment_bytes=SEGMENT * TICK.size)
    return LogWriter(directory, "ticks", 5, TICK, options, now_ns=10**18, **more)


def write_events(writer: LogWriter, count: int, seed: int) -> list[int]:
    """Events of one to nine records; returns their last sequences."""
    generator, ends = random.Random(seed), []
    while writer.next <= count:
        size = min(generator.randrange(1, 10), count + 1 - writer.next)
        records = TICK.build(size, value=np.arange(writer.next, writer.next + size))
        records["more"] = 7
        records["flags"][-1] = Flags.LAST_IN_EVENT
        writer.write(records, 10**18 + writer.next)
        ends.append(writer.next - 1)
    return ends


def crash(writer: LogWriter) -> None:
    """As if the operating system had died: the lock is free, nothing was closed, and the machine was booted since."""
    writer.abandon_in_child()
    path = writer.session_directory / "control"
    content = bytearray(path.read_bytes())
    content[_BOOT_ID] = b"the boot before!"
    path.write_bytes(content)


def zero_page(writer: LogWriter, page: int) -> int:
    """Take a page of the log away; returns the sequence of the first record that lacks something of itself."""
    pages = -(-SEGMENT * TICK.size // PAGE)
    begin, path = segment_files(writer.session_directory)[page // pages]
    content, at = bytearray(path.read_bytes()), page % pages * PAGE
    content[at : at + PAGE] = bytes(len(content[at : at + PAGE]))
    path.write_bytes(content)
    return begin + at // TICK.size


@pytest.mark.parametrize("sealed", [False, True])
def test_the_fork_is_at_the_last_event_before_the_first_page_that_is_missing(tmp_path, sealed):
    count, generator = 3 * SEGMENT - 90, random.Random(20240817)
    pages = count * TICK.size // PAGE
    for attempt in range(12):
        directory = tmp_path / str(attempt)
        old = new_writer(directory)
        ends = write_events(old, count, attempt)
        if sealed:
            old.maintain(10**18, 1)
        crash(old)
        damaged = min(zero_page(old, generator.randrange(pages)) for _ in range(generator.randrange(1, 4)))
        new = new_writer(directory)
        fork = new.control.fork_sequence
        assert new.control.parent_session == old.session
        assert new.session >> 32 > old.session >> 32
        # A checksum is of 64 KiB: with it, what is left may be less than with none, and never more.
        exact = max((end for end in ends if end < damaged), default=0)
        assert fork in (0, *ends)
        assert fork <= exact
        assert sealed or fork == exact
        assert new.cut_off == count - fork
        former = LogReader(old.session_directory)
        assert (former.state, former.next) == (LogState.SUPERSEDED, fork + 1)
        views = [view for _, view in former.read_range(1, count)]
        values = np.concatenate(views)["value"].tolist() if views else []
        assert values == list(range(1, fork + 1))
        new.close()


def test_nothing_is_cut_off_where_all_is_there_nor_in_the_same_boot(tmp_path):
    old = new_writer(tmp_path / "whole")
    write_events(old, 1000, 1)
    crash(old)
    new = new_writer(tmp_path / "whole")
    assert (new.control.fork_sequence, new.cut_off) == (1000, 0)
    new.close()
    killed = new_writer(tmp_path / "same boot")
    write_events(killed, 1000, 1)
    killed.abandon_in_child()
    again = new_writer(tmp_path / "same boot")
    assert (again.session, again.next, again.cut_off) == (killed.session, 1001, 0)
    again.close()


@pytest.mark.parametrize("damage", ["removed", "truncated"])
def test_a_segment_that_is_gone_or_short_ends_what_is_left(tmp_path, damage):
    old = new_writer(tmp_path)
    ends = write_events(old, 3 * SEGMENT, 3)
    crash(old)
    begin, path = segment_files(old.session_directory)[1]
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-PAGE])
    control, _ = map_control(old.session_directory)
    assert last_whole(old.session_directory, control, TICK) == max(end for end in ends if end < begin)


def test_a_writer_whose_channel_was_taken_over_stops_at_once(tmp_path):
    old = new_writer(tmp_path)
    write_events(old, 10, 4)
    (tmp_path / LOCK).unlink()  # whoever did this has two writers; readers must not have
    old.control.clean_close = False
    path = old.session_directory / "control"
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(_BOOT_ID.start)
        file.write(b"the boot before!")
    new = new_writer(tmp_path)
    assert new.session != old.session
    assert before[:8] == path.read_bytes()[:8]
    with pytest.raises(
        Superseded, match=f"channel 'ticks' was taken over by session {new.session:016x}: this writer st"
    ):
        old.write(TICK.build(1), 10**18)
    assert old.fast.write(TICK.build(1), 10**18) == 0
    assert old.fast.put({"value": 1}, 10**18) == 0
    assert (old.next, old.superseded) == (11, True)
    old.end()
    assert old.control.state == LogState.SUPERSEDED
    write_events(new, 5, 5)
    new.close()
    old.close()


def test_a_publisher_looks_whether_it_was_replaced_and_falls_silent(tmp_path):
    """In a copy of the directory nobody sets its state: it finds out by ``current``, or is told."""
    for how in ("current", "told"):
        directory = tmp_path / how
        old = new_writer(directory)
        newer = (old.session >> 32) + 1 << 32 | 7
        with Publisher(["tcp://127.0.0.1:*"]) as publisher:
            channel = publisher.add(old)
            channel.write(TICK.build(1), 10**18)
            if how == "told":
                old.fence(newer)
            else:
                (directory / "current").unlink()
                (directory / "current").symlink_to(f"{newer:016x}")
                old.maintain(10**18, 1)
            with pytest.raises(Superseded, match=f"session {newer:016x}"):
                channel.write(TICK.build(1), 10**18)
            heartbeats = old.control.counter(1)
            with publisher.lock:
                channel.announce()
            assert (old.next, old.control.counter(1)) == (2, heartbeats)
        old.close()


def test_an_older_session_does_not_stop_anybody(tmp_path):
    writer = new_writer(tmp_path)
    older = (writer.session >> 32) - 1 << 32 | 7
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(f"{older:016x}")
    writer.maintain(10**18, 1)
    assert not writer.superseded
    writer.close()
