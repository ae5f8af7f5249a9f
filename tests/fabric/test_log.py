"""Writing and reading one session of a log: segments, commit, views, retention, image checkpoint."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fabric.errors import Closed, LogError, LogMissing, RecordTypeError
from fabric.log import LogOptions, LogReader, LogWriter, open_log
from fabric.log.image import empty_image, load_image, newest_image
from fabric.log.paths import IMAGE
from fabric.records import Flags, record
from native.log import LogState
from native.packet import crc32c

SECOND_NS = 1_000_000_000
TICK = record("log_tick", image="last", value="i8")
LEVEL = record("log_level", image="book", key=("instrument", "price"), price="i8", action="u1")
SEGMENT = 16


def new_writer(directory, kind=TICK, *, segment=SEGMENT, now_ns=SECOND_NS, **options) -> LogWriter:
    sizes = LogOptions(segment_bytes=segment * kind.size, **options)
    return LogWriter(directory, "ticks", 77, kind, sizes, now_ns=now_ns)


def ticks(first: int, count: int, *, instruments: int = 5):
    """Records whose content tells their sequence."""
    sequences = np.arange(first, first + count)
    records = TICK.build(count, value=sequences * 3, instrument=sequences % instruments)
    records["flags"][-1] = Flags.LAST_IN_EVENT
    return records


def check(records, first: int) -> None:
    sequences = np.arange(first, first + len(records))
    assert records["value"].tolist() == (sequences * 3).tolist()
    assert (np.diff(records["ts_publish_ns"]) >= 0).all()


def write_batches(writer: LogWriter, seed: int, total: int) -> None:
    generator = random.Random(seed)
    while writer.next <= total:
        count = min(generator.choice([1, 1, 2, 7, SEGMENT, 40]), total + 1 - writer.next)
        assert writer.write(ticks(writer.next, count), SECOND_NS + writer.next) == writer.next - count
        if generator.random() < 0.3:
            writer.maintain(SECOND_NS, 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_appended_across_segments_is_read_back(tmp_path, seed):
    writer = new_writer(tmp_path)
    write_batches(writer, seed, 500)
    reader = LogReader(tmp_path)
    assert (reader.base, reader.first_available, reader.next, len(reader)) == (1, 1, 501, 500)
    pieces = list(reader.read_range(1, 10**9))
    check(np.concatenate([view for _, view in pieces]), 1)
    assert [first for first, _ in pieces] == list(range(1, 501, SEGMENT))
    for first, view in pieces:
        assert not view.flags.writeable
        assert reader.read(first, 10**9).tobytes() == view.tobytes()
    assert sum(len(view) for _, view in reader.read_range(10, 200)) == 191
    assert (writer.session, writer.channel_id) == (reader.session, reader.control.channel)
    writer.close()


def test_nothing_is_read_past_the_commit(tmp_path):
    writer = new_writer(tmp_path)
    reader = open_log(tmp_path)
    for count in (1, 3, SEGMENT * 3):
        first = writer.next
        assert not len(reader.read(first, 100))
        assert list(reader.read_range(first, first + 100)) == []
        writer.write(ticks(first, count), SECOND_NS)
        assert sum(len(view) for _, view in reader.read_range(first, first + 1000)) == count
        assert reader.next == first + count
    assert not len(reader.read(10**6, 5))
    assert not len(reader.read(1, 0))


def test_views_stay_as_they_are_after_retention_and_close(tmp_path):
    writer = new_writer(tmp_path, retain_bytes=2 * SEGMENT * TICK.size)
    writer.write(ticks(1, 20), SECOND_NS)
    reader = LogReader(tmp_path)
    views = dict(reader.read_range(1, 20))
    before = {first: view.tobytes() for first, view in views.items()}
    writer.write(ticks(21, 200), SECOND_NS)
    writer.maintain(SECOND_NS, 1)
    assert reader.first_available > 20
    with pytest.raises(IndexError, match="below the first available"):
        reader.read(1, 1)
    reader.close()
    writer.close()
    del reader, writer
    for first, view in views.items():
        assert view.tobytes() == before[first]
        check(view, first)


def test_publish_times_never_go_back(tmp_path):
    writer = new_writer(tmp_path)
    for now_ns in (50, 40, 60, 10):
        records = ticks(writer.next, 2)
        writer.write(records, now_ns)
        assert (
            records["ts_publish_ns"].tolist() == LogReader(tmp_path).read(writer.next - 2, 2)["ts_publish_ns"].tolist()
        )
    assert LogReader(tmp_path).read(1, 8)["ts_publish_ns"].tolist() == [50, 50, 50, 50, 60, 60, 60, 60]


def kept_files(writer: LogWriter) -> tuple[list[int], list[int]]:
    found = [[int(path.stem) for path in sorted(writer.session_directory.glob(f"*{end}"))] for end in (".seg", ".sum")]
    return found[0], found[1]


def test_retention_by_bytes_and_its_floor(tmp_path):
    writer = new_writer(tmp_path, retain_bytes=3 * SEGMENT * TICK.size)
    writer.retention_floor = 30
    for first in range(1, 161, 8):
        writer.write(ticks(first, 8), SECOND_NS)
    writer.maintain(SECOND_NS, 1)
    assert (LogReader(tmp_path).first_available, kept_files(writer)[0][0]) == (17, 17)
    writer.retention_floor = None
    writer.maintain(SECOND_NS, 1)
    assert LogReader(tmp_path).first_available == 161 - 3 * SEGMENT
    segments, sidecars = kept_files(writer)
    assert segments[:3] == [113, 129, 145]
    assert sidecars == [113, 129]


@pytest.mark.parametrize("restart", [False, True])
def test_retention_by_age(tmp_path, restart):
    options = {"retain_ns": 10 * SECOND_NS}
    writer = new_writer(tmp_path, **options)
    for second in range(1, 11):
        writer.write(ticks(writer.next, SEGMENT), second * SECOND_NS)
        writer.maintain(second * SECOND_NS, 1)
    assert writer.control.first_available == 1
    if restart:
        writer.close()
        writer = new_writer(tmp_path, **options)
    writer.maintain(14 * SECOND_NS, 1)
    assert writer.control.first_available == 1 + 3 * SEGMENT
    writer.maintain(10**6 * SECOND_NS, 1)
    assert kept_files(writer)[0][0] == writer.control.first_available
    assert writer.control.first_available >= 1 + 9 * SEGMENT


def test_age_is_that_of_the_records_not_of_those_before_them(tmp_path):
    writer = new_writer(tmp_path, retain_ns=10 * SECOND_NS)
    writer.write(ticks(1, 4), SECOND_NS)
    writer.write(ticks(5, 3 * SEGMENT), 100 * SECOND_NS)
    writer.maintain(101 * SECOND_NS, 1)
    assert writer.control.first_available == 1


@pytest.mark.parametrize("kind", [TICK, LEVEL], ids=["last", "book"])
def test_image_checkpoint_and_the_rest_make_the_image_of_everything(tmp_path, kind):
    generator = random.Random(4)
    writer = new_writer(tmp_path, kind, retain_bytes=2 * SEGMENT * kind.size)
    everything = empty_image(kind)
    for _ in range(120):
        columns = {"instrument": [generator.randrange(1, 6) for _ in range(5)]}
        if kind is LEVEL:
            columns["price"] = [generator.randrange(20) for _ in range(5)]
            columns["action"] = [generator.choice([0, 0, 1, 2, 3]) for _ in range(5)]
        records = kind.build(5, **columns)
        everything_first = writer.write(records, SECOND_NS)
        everything.update(records, everything_first)
        if generator.random() < 0.5:
            writer.maintain(SECOND_NS, 1)
        reader = LogReader(tmp_path)
        image = load_image(writer.session_directory, kind)
        assert image.as_of + 1 >= reader.first_available
        for first, view in reader.read_range(image.as_of + 1, reader.next - 1):
            image.update(view, first)
        assert image.export() == everything.export()
    assert reader.first_available > SEGMENT
    (writer.session_directory / IMAGE).unlink()
    with pytest.raises(LogMissing, match="its image does not have them"):
        newest_image(reader)


def test_a_sealed_segment_gets_its_sidecar(tmp_path):
    writer = new_writer(tmp_path, segment=3000)
    for first in range(1, 6101, 1000):
        writer.write(ticks(first, 1000), SECOND_NS)
    writer.maintain(SECOND_NS, 1)
    assert kept_files(writer)[1] == [1, 3001]
    content = (writer.session_directory / f"{3001:020d}.seg").read_bytes()
    assert json.loads((writer.session_directory / f"{3001:020d}.sum").read_bytes()) == {
        "session": writer.session,
        "base": 3001,
        "count": 3000,
        "schema": TICK.schema,
        "record_bytes": TICK.size,
        "crc32c_block_bytes": 65536,
        "crc32c": [crc32c(content[at : at + 65536]) for at in range(0, len(content), 65536)],
    }
    assert len(content) == 3000 * TICK.size > 65536


def test_numpy_opens_a_segment_directly(tmp_path):
    writer = new_writer(tmp_path)
    writer.write(ticks(1, 40), SECOND_NS)
    path = writer.session_directory / f"{17:020d}.seg"
    check(np.memmap(path, TICK.dtype, mode="r"), 17)


def test_segments_are_ready_before_they_are_needed(tmp_path):
    writer = new_writer(tmp_path)
    for first in range(1, 1000, 4):
        writer.maintain(SECOND_NS, 1)
        writer.write(ticks(first, 4), SECOND_NS)
    assert writer.inline_rolls == 0
    writer.write(ticks(writer.next, 5 * SEGMENT), SECOND_NS)
    assert writer.inline_rolls in (4, 5)


@pytest.mark.parametrize("wrong", ["read-only", "another dtype", "not contiguous"])
def test_records_that_cannot_be_written_leave_no_trace(tmp_path, wrong):
    writer = new_writer(tmp_path)
    writer.write(ticks(1, 3), SECOND_NS)
    records = ticks(4, 2 * SEGMENT)
    if wrong == "read-only":
        records.flags.writeable = False
    elif wrong == "another dtype":
        records = LEVEL.build(2 * SEGMENT)
    else:
        records = ticks(4, 4 * SEGMENT)[::2]
    with pytest.raises((ValueError, BufferError, RecordTypeError)):
        writer.write(records, SECOND_NS)
    assert writer.next == 4
    writer.write(ticks(4, 1), SECOND_NS)
    check(LogReader(tmp_path).read(1, 100), 1)
    assert writer.next == 5


def test_an_ended_log_takes_no_more_records(tmp_path):
    writer = new_writer(tmp_path)
    writer.write(ticks(1, 3), SECOND_NS)
    writer.end()
    assert writer.ended
    assert LogReader(tmp_path).state is LogState.ENDED
    with pytest.raises(LogError, match="ended"):
        writer.write(ticks(4, 1), SECOND_NS)
    assert LogReader(tmp_path).next == 4


def test_a_closed_writer_refuses_and_may_be_closed_twice(tmp_path):
    writer = new_writer(tmp_path)
    writer.maintain(SECOND_NS, 1)
    writer.close()
    writer.close()
    writer.maintain(SECOND_NS, 1)
    with pytest.raises(Closed):
        writer.write(ticks(1, 1), SECOND_NS)
    assert kept_files(writer)[0] == [1]
