"""``verify_log`` finds nothing wrong with whole logs, and names what was damaged, one thing at a time."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

from fabric.errors import LogMissing
from fabric.log import LogOptions, LogWriter, verify
from fabric.log.image import load_image, save_image
from fabric.log.verify import verify_log
from fabric.records import Flags, record

SECOND_NS = 1_000_000_000
TICK = record("verify_tick", image="last", value="i8")
SEGMENT = 4096
"""40 bytes a record: 160 KiB, three checksum blocks a segment."""
THIRD = 2 * SEGMENT + 1


def write(writer: LogWriter, count: int, *, flags: int = Flags.LAST_IN_EVENT) -> None:
    records = TICK.build(count, value=np.arange(writer.next, writer.next + count), instrument=1)
    records["flags"][-1] = flags
    writer.write(records, SECOND_NS + writer.next)


def new_writer(directory, **options) -> LogWriter:
    sizes = LogOptions(segment_bytes=SEGMENT * TICK.size, **options)
    return LogWriter(directory, "ticks", 77, TICK, sizes, now_ns=1000 * SECOND_NS)


@pytest.fixture
def log(tmp_path):
    """Three sealed segments, one with 100 records, and the session's directory."""
    writer = new_writer(tmp_path)
    write(writer, 3 * SEGMENT)
    write(writer, 100)
    writer.maintain(SECOND_NS, 1)
    writer.close()
    return writer.session_directory


def seg(begin: int) -> str:
    return f"{begin:020d}.seg"


def overwrite(path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def edit_json(path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_a_whole_log(log):
    for directory in (log, log.parent):
        report = verify_log(directory)
        assert report.problems == []
        assert (report.path, report.channel, report.state) == (str(log), "ticks", "OPEN")
        assert report.session == int(log.name, 16)
        assert (report.base, report.first_available, report.next) == (1, 1, 3 * SEGMENT + 101)
        assert (report.checked_by_checksum, report.checked_by_structure) == (3, 1)


@pytest.mark.parametrize("written", [0, 1, SEGMENT, SEGMENT + 1])
@pytest.mark.parametrize("close", [False, True])
def test_logs_of_any_length_are_whole(tmp_path, written, close):
    writer = new_writer(tmp_path)
    if written:
        write(writer, written)
    writer.maintain(SECOND_NS, 1)
    if close:
        writer.close()
    report = verify_log(tmp_path)
    assert report.problems == []
    assert report.next == written + 1


def test_a_log_in_use_with_retention_is_whole(tmp_path):
    writer = new_writer(tmp_path, retain_bytes=2 * SEGMENT * TICK.size)
    for _ in range(30):
        write(writer, 999)
        writer.maintain(SECOND_NS, 1)
        report = verify_log(tmp_path)
        assert report.problems == []
    assert report.first_available > 4 * SEGMENT
    writer.end()
    assert verify_log(tmp_path).state == "ENDED"


def test_retention_that_goes_on_meanwhile_is_no_damage(tmp_path, monkeypatch):
    writer = new_writer(tmp_path, retain_bytes=2 * SEGMENT * TICK.size)
    write(writer, 6 * SEGMENT)
    listing = verify.segment_files

    def retain_then_list(directory):
        writer.maintain(SECOND_NS, 1)
        return listing(directory)

    monkeypatch.setattr(verify, "segment_files", retain_then_list)
    report = verify_log(tmp_path)
    assert report.problems == []
    assert report.first_available == 1
    assert writer.control.first_available > 1


DAMAGE = {
    "a bit in the second block of a sealed segment": (
        lambda d: overwrite(d / seg(THIRD), 65536 + 17, b"\x55"),
        rf"{seg(THIRD)}: block 1 \(bytes 65536 to 131071, sequences {THIRD + 1638} to {THIRD + 3276}\) does not match",
    ),
    "a sealed segment cut short": (lambda d: (d / seg(1)).write_bytes(bytes(100)), f"{seg(1)}: has 100 bytes, not"),
    "an unsealed segment cut short": (
        lambda d: (d / seg(THIRD + SEGMENT)).write_bytes(b""),
        f"{seg(THIRD + SEGMENT)}: has 0 bytes, not",
    ),
    "first segment gone": (lambda d: (d / seg(1)).unlink(), f"{seg(1)}: is missing: committed records 1 to 4096 "),
    "two gone": (
        lambda d: [(d / seg(begin)).unlink() for begin in (1 + SEGMENT, THIRD)],
        f"{seg(1 + SEGMENT)}: is missing: committed records 4097 to 12288 ",
    ),
    "last gone": (
        lambda d: (d / seg(THIRD + SEGMENT)).unlink(),
        f"{seg(THIRD + SEGMENT)}: is missing: committed records 12289 to 12388 ",
    ),
    "a segment that begins between two": (
        lambda d: (d / seg(7)).write_bytes(b"x"),
        f"{seg(7)}: no segment begins at 7: each has 4096",
    ),
    "commit behind all segments": (
        lambda d: overwrite(d / "control", 128, u64(2**60)),
        f"{seg(THIRD + 2 * SEGMENT)}: is missing: committed records 16385 to {2**60} ",
    ),
    "first_available past the commit": (
        lambda d: overwrite(d / "control", 192, u64(10**6)),
        "control: first available 1000000 is not between base 1 and next 12389",
    ),
    "no control page": (lambda d: (d / "control").unlink(), "control: can't be read: No such file"),
    "a short control page": (lambda d: (d / "control").write_bytes(b"ZMFLOG01"), "control: is truncated"),
    "another control page": (lambda d: overwrite(d / "control", 0, b"Z" * 8), "control: is not the control page"),
    "an unknown state": (lambda d: overwrite(d / "control", 264, b"\x09"), "control: is not the control page"),
    "no wait page": (lambda d: (d / "wait").unlink(), "wait: is missing"),
    "a short wait page": (lambda d: (d / "wait").write_bytes(b""), "wait: is truncated"),
    "no description": (lambda d: (d / "log.json").unlink(), "log.json: is missing"),
    "not a description": (lambda d: (d / "log.json").write_text("{"), "log.json: unreadable"),
    "not a record type": (
        lambda d: edit_json(d / "log.json", record={"name": 3}),
        "log.json: not a record description",
    ),
    "another record type": (
        lambda d: edit_json(d / "log.json", record=record("verify_other", value="f4").describe()),
        "control: states records of another type than log.json",
    ),
    "a sidecar that is none": (
        lambda d: (d / seg(1)).with_suffix(".sum").write_text("[1]"),
        r"0001\.sum: is not a sidecar",
    ),
    "a checksum less": (
        lambda d: edit_json((d / seg(1)).with_suffix(".sum"), crc32c=[1, 2]),
        r"0001\.sum: is not a sidecar: .*2 checksums for 163840 bytes",
    ),
    "another session's sidecar": (
        lambda d: edit_json((d / seg(1)).with_suffix(".sum"), session=5),
        r"0001\.sum: states session 5, not \d+",
    ),
    "an image that is none": (lambda d: (d / "image").write_bytes(b"junk"), "image: is not an image"),
    "current names nothing": (
        lambda d: d.rename(d.with_name("moved")),
        "current: names a session that is not there",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(log, name):
    damage, named = DAMAGE[name]
    damage(log)
    report = verify_log(log.parent)
    assert re.search(named, report.problems[0]), report.problems
    assert len(report.problems) == (2 if name == "commit behind all segments" else 1), report.problems


def test_without_a_control_page_checksums_are_still_compared(log):
    (log / "control").unlink()
    overwrite(log / seg(1), 3, b"\x99")
    report = verify_log(log)
    assert [problem.split(":")[0] for problem in report.problems] == ["control", seg(1)]
    assert report.checked_by_checksum == 3


def test_times_that_go_back_are_named(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, SEGMENT + 10)
    writer.close()  # before the first segment was sealed
    overwrite(writer.session_directory / seg(SEGMENT + 1), 5 * TICK.size + 16, u64(3))
    assert verify_log(tmp_path).problems == [f"{seg(SEGMENT + 1)}: ts_publish_ns goes back at sequence {SEGMENT + 6}"]


def test_a_commit_inside_an_event_is_named(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, 5, flags=0)
    assert verify_log(tmp_path).problems == ["control: the commit is not at an event's end: sequence 5 is inside one"]


def test_an_image_behind_retention_or_ahead_of_the_commit_is_named(tmp_path):
    writer = new_writer(tmp_path, retain_bytes=SEGMENT * TICK.size)
    write(writer, 3 * SEGMENT)
    writer.maintain(SECOND_NS, 1)
    kept = (writer.session_directory / "image").read_bytes()
    (writer.session_directory / "image").unlink()
    first = writer.control.first_available
    assert verify_log(tmp_path).problems == [f"image: is as of 0, but retention has removed everything below {first}"]
    (writer.session_directory / "image").write_bytes(kept)
    assert verify_log(tmp_path).problems == []
    image = load_image(writer.session_directory, TICK)
    image.advance(10**6)
    save_image(writer.session_directory, image)
    assert verify_log(tmp_path).problems == [
        f"image: is as of 1000000, which is not committed yet: next is {3 * SEGMENT + 1}"
    ]


@pytest.mark.parametrize("seed", range(8))
def test_no_damage_at_random_makes_it_raise(log, seed):
    generator = random.Random(seed)
    for path in sorted(log.iterdir()):
        content = bytearray(path.read_bytes())
        for _ in range(generator.choice([0, 1, 50])):
            content[generator.randrange(min(len(content), 400))] = generator.randrange(256)
        path.write_bytes(bytes(content[: generator.choice([len(content), len(content), len(content) // 2])]))
    assert verify_log(log).problems


def test_no_log(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(LogMissing, match="no log here"):
            verify_log(path)
