"""When a log goes on in its session, when a new one begins, who may write it, and what is said of a damaged one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import fabric.log.writer
from fabric.errors import LogDamaged, LogLocked, LogMissing
from fabric.log import LogOptions, LogReader, LogWriter
from fabric.log.image import load_image, save_image
from fabric.log.paths import next_epoch
from fabric.records import record
from native.log import LogState

SECOND_NS = 1_000_000_000
TICK = record("session_tick", image="last", value="i8")
WIDER = record("session_tick_wider", image="last", value="i8", size="i8")
SEGMENT = 16


def new_writer(directory, kind=TICK, *, segment=SEGMENT, now_ns=1000 * SECOND_NS, channel_id=77, **more) -> LogWriter:
    sizes = LogOptions(segment_bytes=segment * kind.size)
    return LogWriter(directory, "ticks", channel_id, kind, sizes, now_ns=now_ns, **more)


def write(writer: LogWriter, count: int) -> None:
    sequences = np.arange(writer.next, writer.next + count)
    writer.write(writer.record.build(count, value=sequences * 3, instrument=sequences % 5), SECOND_NS)


def check_all(directory, last: int) -> None:
    reader = LogReader(directory)
    views = [view for _, view in reader.read_range(reader.first_available, 10**9)]
    values = np.concatenate(views)["value"] if views else np.zeros(0)
    assert values.tolist() == [3 * sequence for sequence in range(reader.first_available, last + 1)]


def die(writer: LogWriter) -> None:
    """As if the process had been killed: the lock is free, nothing was tidied up."""
    writer.abandon_in_child()


@pytest.mark.parametrize("written", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
@pytest.mark.parametrize("leave", [LogWriter.close, die], ids=["closed", "killed"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_restart_goes_on_in_the_same_session(tmp_path, written, leave, prepared):
    writer = new_writer(tmp_path)
    if written:
        write(writer, written)
    if prepared:
        writer.maintain(SECOND_NS, 1)
    leave(writer)
    again = new_writer(tmp_path, now_ns=2000 * SECOND_NS)
    assert (again.session, again.next) == (writer.session, written + 1)
    assert again.control.writer_pid == os.getpid()
    assert not again.control.clean_close
    write(again, 2 * SEGMENT)
    check_all(tmp_path, written + 2 * SEGMENT)
    again.maintain(SECOND_NS, 1)
    sealed = (written + 2 * SEGMENT - 1) // SEGMENT
    assert len(list(again.session_directory.glob("*.sum"))) == sealed


def test_what_a_killed_writer_had_not_committed_is_overwritten(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, 5)
    writer._current.memory[5 * TICK.size : 9 * TICK.size] = b"\xee" * 4 * TICK.size
    die(writer)
    again = new_writer(tmp_path)
    check_all(tmp_path, 5)
    write(again, 6)
    check_all(tmp_path, 11)


def test_publish_times_do_not_go_back_over_a_restart(tmp_path):
    writer = new_writer(tmp_path)
    writer.write(TICK.build(1), 500)
    die(writer)
    again = new_writer(tmp_path)
    again.write(TICK.build(1), 400)
    assert LogReader(tmp_path).read(1, 2)["ts_publish_ns"].tolist() == [500, 500]


def test_a_writer_that_died_while_removing_a_segment_is_tidied_up_after(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, 3 * SEGMENT)
    writer.maintain(SECOND_NS, 1)
    writer.control.first_available = SEGMENT + 1
    (tmp_path / ".00000000deadbeef").mkdir()
    (tmp_path / ".00000000deadbeef" / "control").write_bytes(b"half")
    die(writer)
    again = new_writer(tmp_path)
    assert sorted(path.name for path in again.session_directory.glob("0*"))[0] == f"{SEGMENT + 1:020d}.seg"
    check_all(tmp_path, 3 * SEGMENT)
    die(again)
    new_writer(tmp_path, WIDER)
    assert not (tmp_path / ".00000000deadbeef").exists()


def superseded(tmp_path, old: LogWriter, new: LogWriter, fork: int) -> None:
    assert new.session >> 32 > old.session >> 32
    assert (new.control.parent_session, new.control.fork_sequence, new.next) == (old.session, fork, 1)
    description = json.loads((tmp_path / "current" / "log.json").read_bytes())
    assert (description["parent_session"], description["fork_sequence"]) == (old.session, fork)
    assert LogReader(tmp_path).session == new.session == description["session"]
    former = LogReader(old.session_directory)
    assert (former.state, former.next) == (LogState.SUPERSEDED, fork + 1)


@pytest.mark.parametrize(
    "change", [{"kind": WIDER}, {"segment": 2 * SEGMENT}, {"channel_id": 78}], ids=["dtype", "segment size", "channel"]
)
def test_another_layout_begins_a_new_session(tmp_path, change):
    old = new_writer(tmp_path)
    write(old, 20)
    old.close()
    superseded(tmp_path, old, new_writer(tmp_path, **change), 20)
    check_all(old.session_directory, 20)


@pytest.mark.parametrize("leave", [LogWriter.close, die], ids=["closed", "killed"])
def test_a_boot_without_a_clean_close_begins_a_new_session(tmp_path, monkeypatch, leave):
    old = new_writer(tmp_path)
    write(old, 20)
    leave(old)
    monkeypatch.setattr(fabric.log.writer, "boot_id", lambda: b"another boot 001")
    new = new_writer(tmp_path)
    if leave is die:
        superseded(tmp_path, old, new, 20)
    else:
        assert (new.session, new.next) == (old.session, 21)


@pytest.mark.parametrize("reopen", [False, True])
def test_an_ended_log_is_reopened_only_if_asked(tmp_path, reopen):
    old = new_writer(tmp_path)
    write(old, 20)
    old.end()
    old.close()
    new = new_writer(tmp_path, reopen_ended=reopen)
    if reopen:
        assert (new.session, new.next, new.ended) == (old.session, 21, True)
    else:
        assert not new.ended
        superseded(tmp_path, old, new, 20)


def test_epochs_go_up_when_the_clock_goes_back(tmp_path):
    epochs, kinds = [], [TICK, WIDER, TICK, WIDER]
    for kind, now_s in zip(kinds, [1000, 400, 1, 5000], strict=True):
        writer = new_writer(tmp_path / "log", kind, now_ns=now_s * SECOND_NS)
        epochs.append(writer.session >> 32)
        writer.close()
    assert epochs == [1000, 1001, 1002, 5000]


def test_epochs_go_up_when_the_log_is_gone_too(tmp_path):
    file = tmp_path / "epochs" / "ticks"
    epochs = []
    for attempt, now_s in enumerate([1000, 400, 1, 5000]):
        writer = new_writer(tmp_path / str(attempt), now_ns=now_s * SECOND_NS, epoch_file=file)
        epochs.append(writer.session >> 32)
    assert epochs == [1000, 1001, 1002, 5000]
    file.write_text("garbage")
    assert next_epoch(file, 7, 0) == 8


def test_a_second_writer_is_told_who_holds_the_log(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, 3)
    with pytest.raises(LogLocked, match=rf"another process writes this log \(pid {os.getpid()}\).*stop the other") as e:
        new_writer(tmp_path)
    assert e.value.path == str(tmp_path)
    write(writer, 3)
    writer.close()
    new_writer(tmp_path).close()
    check_all(tmp_path, 6)


def cut(path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def edit_description(directory, **changes) -> None:
    path = directory / "current" / "log.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: cut(d / "current" / f"{1:020d}.seg", 100), f"{1:020d}.seg: has 100 bytes, not"),
        (lambda d: cut(d / "current" / "control", 100), "control: is truncated"),
        (lambda d: (d / "current" / "control").write_bytes(bytes(4096)), "control: the control page is not"),
        (lambda d: (d / "current" / "log.json").write_text("{"), "log.json: unreadable"),
        (lambda d: (d / "current" / "log.json").write_text("[]"), "log.json: is not a log description"),
        (lambda d: (d / "current" / "log.json").write_text('{"record": {}}'), "log.json: is not a log description"),
        (lambda d: edit_description(d, record={"name": 5}), "log.json: describes no record type"),
        (lambda d: edit_description(d, record=[]), "log.json: describes no record type"),
    ],
)
def test_a_damaged_log_is_named(tmp_path, damage, named):
    writer = new_writer(tmp_path)
    write(writer, 20)
    session = writer.session
    writer.close()
    damage(tmp_path)
    with pytest.raises(LogDamaged, match=named):
        LogReader(tmp_path).read(1, 1)
    if ".seg" in named:
        with pytest.raises(LogDamaged, match=named):
            new_writer(tmp_path)
    else:  # continuity can't be proven
        assert new_writer(tmp_path).session >> 32 > session >> 32


def test_a_lost_last_segment_stops_the_writer(tmp_path):
    writer = new_writer(tmp_path)
    write(writer, 20)
    writer.close()
    (writer.session_directory / f"{SEGMENT + 1:020d}.seg").unlink()
    with pytest.raises(LogDamaged, match="the segment is missing"):
        new_writer(tmp_path)
    with pytest.raises(LogMissing, match="the segment is not there"):
        LogReader(tmp_path).read(SEGMENT + 1, 1)


@pytest.mark.parametrize(
    "content", [b"", b"\x93garbage", b"\x80", b"\xff", b"\x83\xa5as_of\xff\xa7records\xc4\x00\xa9sequences\xc4\x00"]
)
def test_a_damaged_image_is_named(tmp_path, content):
    writer = new_writer(tmp_path)
    image = load_image(writer.session_directory, TICK)
    assert (image.count, image.as_of) == (0, 0)
    image.update(TICK.build(3, instrument=[1, 2, 1]), 1)
    save_image(writer.session_directory, image)
    assert load_image(writer.session_directory, TICK).export() == image.export()
    (writer.session_directory / "image").write_bytes(content)
    with pytest.raises(LogDamaged, match="image: is not an image"):
        load_image(writer.session_directory, TICK)


def test_no_log(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(LogMissing, match=r"no log here.*directory"):
            LogReader(path)
