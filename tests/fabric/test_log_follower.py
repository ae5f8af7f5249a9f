"""A follower's log against a plain model: what it was given, at the publisher's own sequences, byte by byte, and its holes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from fabric.errors import LogError
from fabric.log import LogOptions, LogReader
from fabric.log.follower import Followed, FollowerLog
from fabric.log.holes import LogHoles, load_holes
from fabric.log.segments import segment_files
from fabric.log.verify import verify_log
from fabric.records import Flags, Records, record
from native.log import LogState

TICK = record("follower_tick", image="last", value="u8")
SEGMENT, SESSION = 32, (1000 << 32) | 7
START_NS = 10**18


def open_log(directory: Path, first: int = 1, session: int = SESSION, **options: int) -> FollowerLog:
    sizes = LogOptions(segment_bytes=SEGMENT * TICK.size, **options)
    followed = Followed(session, parent=3, fork=9, first=first)
    return FollowerLog(directory, "ticks", 5, TICK, sizes, followed, now_ns=START_NS)


def make(first: int, count: int) -> Records:
    """As the publisher wrote them: with times of their own."""
    records = TICK.build(count, value=np.arange(first, first + count))
    records["ts_publish_ns"] = START_NS + np.arange(first, first + count) // 3
    records["flags"][-1] = Flags.LAST_IN_EVENT
    return records


def read_all(directory: Path, holes: LogHoles) -> dict[int, bytes]:
    reader, found = LogReader(directory), {}
    for sequence in range(reader.first_available, reader.next):
        if holes.at(sequence) is None:
            found[sequence] = reader.read(sequence, 1).tobytes()
    return found


@pytest.mark.parametrize("seed", range(10))
def test_any_history_leaves_what_was_given(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    begin = generator.choice([1, 1, 2, SEGMENT, SEGMENT + 1, 500])
    log, model = open_log(tmp_path, begin), {}
    assert log.next == begin
    for _ in range(60):
        what = generator.choice(["follow"] * 6 + ["skip", "skip far", "killed", "closed", "maintain"])
        if what == "follow":
            records = make(log.next, generator.choice([1, 2, 5, SEGMENT, 3 * SEGMENT]))
            model |= {log.next + n: records[n : n + 1].tobytes() for n in range(len(records))}
            log.follow(log.next, records)
        elif what.startswith("skip"):
            log.skip(log.next + generator.randrange(1, 10 if what == "skip" else 4 * SEGMENT))
        elif what == "maintain":
            log.maintain(START_NS, 1)
        else:
            following = log.next
            log.close() if what == "closed" else log.abandon_in_child()
            log = open_log(tmp_path, 1)
            assert (log.next, log.damaged, log.cut_off) == (following, 0, 0)
    log.maintain(START_NS, 1)
    assert read_all(tmp_path, log.holes) == model
    assert load_holes(log.session_directory) == log.holes
    control = log.control
    assert (control.session, control.parent_session, control.fork_sequence, control.base) == (SESSION, 3, 9, 1)
    report = verify_log(tmp_path)
    assert report.problems == []
    assert report.holes == log.holes.ranges
    log.close()


def test_a_hole_is_an_error_to_who_reads_it_also_while_the_log_grows(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.follow(1, make(1, 10))
    reader = LogReader(tmp_path)
    assert len(reader.read(1, 100)) == 10
    log.skip(15)
    log.follow(16, make(16, 5))
    assert len(reader.read(1, 100)) == 10
    with pytest.raises(IndexError, match="records 11 to 15 are a hole of this log"):
        reader.read(13, 1)
    with pytest.raises(IndexError, match="are a hole"):
        list(reader.read_range(1, 20))
    assert reader.read(16, 100)["value"].tolist() == list(range(16, 21))
    log.close()


def test_records_must_follow_and_a_newer_session_leaves_the_older_one(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.follow(1, make(1, 40))
    with pytest.raises(LogError, match="record 42 does not follow 40"):
        log.follow(42, make(42, 1))
    log.close()
    newer = open_log(tmp_path, 1, SESSION + (1 << 32))
    newer.follow(1, make(1, 10))
    newer.maintain(START_NS, 1)
    old = LogReader(tmp_path / f"{SESSION:016x}")
    assert (old.state, old.next) == (LogState.SUPERSEDED, 41)
    assert LogReader(tmp_path).session == SESSION + (1 << 32)
    newer.close()


def test_a_damaged_segment_is_a_hole_and_one_at_the_end_is_read_again(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.follow(1, make(1, 6 * SEGMENT))
    log.maintain(START_NS, 1)
    log.close()
    files = segment_files(log.session_directory)
    for place in (1, 4):
        content = bytearray(files[place][1].read_bytes())
        content[3 * TICK.size + 32] ^= 4
        files[place][1].write_bytes(content)
    files[5][1].write_bytes(files[5][1].read_bytes()[:-1])
    assert len(verify_log(tmp_path).problems) == 3
    log = open_log(tmp_path)
    assert (log.damaged, log.holes.ranges) == (3, [(SEGMENT + 1, 2 * SEGMENT)])
    assert (log.next, log.cut_off) == (4 * SEGMENT + 1, 2 * SEGMENT)
    log.follow(log.next, make(log.next, 2 * SEGMENT))
    log.maintain(START_NS, 1)
    assert sorted(read_all(tmp_path, log.holes)) == [*range(1, SEGMENT + 1), *range(2 * SEGMENT + 1, 6 * SEGMENT + 1)]
    log.close()


def test_after_a_crash_of_the_operating_system_it_goes_on_in_its_session(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.follow(1, make(1, SEGMENT))
    log.follow(SEGMENT + 1, make(SEGMENT + 1, 20))
    log.maintain(START_NS, 1)
    log.abandon_in_child()
    control = log.session_directory / "control"
    page = bytearray(control.read_bytes())
    page[80:96] = b"the boot before!"
    control.write_bytes(page)
    _, path = segment_files(log.session_directory)[1]
    path.write_bytes(bytes(SEGMENT * TICK.size))
    log = open_log(tmp_path)
    assert (log.session, log.next, log.cut_off) == (SESSION, SEGMENT + 1, 20)
    log.follow(log.next, make(log.next, 5))
    assert sorted(read_all(tmp_path, log.holes)) == list(range(1, SEGMENT + 6))
    log.close()


def test_retention_by_size_and_age_takes_older_sessions_first(tmp_path: Path) -> None:
    size = SEGMENT * TICK.size
    for number in range(3):
        log = open_log(tmp_path, 1, SESSION + (number << 32), retain_bytes=8 * size)
        log.follow(1, make(1, 3 * SEGMENT))
        log.close()
    log = open_log(tmp_path, 1, SESSION + (3 << 32), retain_bytes=8 * size, retain_ns=10**9)
    log.follow(1, make(1, 2 * SEGMENT))
    log.maintain(START_NS, 1)
    assert sorted(path.name for path in tmp_path.glob("0*")) == [f"{SESSION + (n << 32):016x}" for n in (2, 3)]
    log.maintain(START_NS + 5 * 10**9, 1)
    assert sorted(path.name for path in tmp_path.glob("0*")) == [f"{SESSION + (3 << 32):016x}"]
    log.close()


def test_holes_join() -> None:
    holes = LogHoles()
    for first, last in ((10, 19), (30, 39), (20, 24), (29, 29)):
        holes.add(first, last)
    assert holes.ranges == [(10, 24), (29, 39)]
    assert [holes.at(n) for n in (9, 10, 24, 25, 39, 40)] == [None, (10, 24), (10, 24), None, (29, 39), None]
    assert [holes.begins_after(n) for n in (1, 9, 10, 28, 29)] == [10, 10, 29, 29, None]
