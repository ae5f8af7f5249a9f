"""The recording: lines by number, over files and lives; what is bounded, cut off, and told."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import LogDamaged, LogError, LogFull, LogLocked, LogMissing
from fabric.testing import ManualClock
from nodes.feed.capture import parse_line
from nodes.feed.recorder import Recorder
from nodes.feed.recording import RecordingLimits, RecordingReader, RecordingWriter, file_of, recording_files

SMALL = RecordingLimits(file_bytes=200, retain_bytes=600)
ENDLESS = RecordingLimits(file_bytes=200, retain_bytes=1 << 40)


def line(number: int) -> bytes:
    return b"%d.5: {%d}\n" % (number, number)


def written(folder: Path, numbers: range, limits: RecordingLimits = ENDLESS, floor: int = 0) -> RecordingWriter:
    """Write lines ``numbers`` in commits of three."""
    writer = RecordingWriter(folder, limits)
    writer.floor = floor
    assert writer.next == numbers.start
    for number in numbers:
        writer.append(line(number))
        if number % 3 == 0:
            writer.commit()
    writer.commit()
    assert writer.next == numbers.stop
    return writer


def contents(folder: Path, first: int, count: int) -> list[bytes]:
    reader = RecordingReader(folder)
    lines = [found.content + b"\n" for found in reader.read(first, count)]
    reader.close()
    return lines


def test_lines_are_numbered_over_files_and_lives(tmp_path: Path) -> None:
    written(tmp_path, range(1, 51)).close()
    written(tmp_path, range(51, 101)).close()
    assert len(recording_files(tmp_path)) > 3
    assert contents(tmp_path, 1, 100) == [line(number) for number in range(1, 101)]
    for first in range(1, 101):
        assert contents(tmp_path, first, 1) == [line(first)]


def test_a_line_is_told_by_file_and_place(tmp_path: Path) -> None:
    written(tmp_path, range(1, 51)).close()
    reader = RecordingReader(tmp_path)
    for found in reader.read(1, 50):
        assert found.file.read_bytes().splitlines()[found.line - 1] == found.content
    reader.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 2**32))
def test_reading_in_any_steps_while_it_is_written_gives_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], seed: int
) -> None:
    folder, draw = tmp_path_factory.mktemp("recording"), random.Random(seed)
    writer, reader = RecordingWriter(folder, ENDLESS), RecordingReader(folder)
    given_so_far = 1
    for step in steps:
        for _ in range(step):
            writer.append(line(writer.next + len(writer._staged)))
            if draw.random() < 0.3:
                writer.commit()
        count = draw.randint(0, writer.next - given_so_far)
        found = list(reader.read(given_so_far, count)) if count else []
        assert [each.content + b"\n" for each in found] == [line(given_so_far + place) for place in range(count)]
        assert [each.number for each in found] == list(range(given_so_far, given_so_far + count))
        given_so_far += count
    reader.close()
    writer.close()


@pytest.mark.parametrize("torn", [b"1", b"9.5: {", b"x" * 1000])
def test_what_a_killed_writer_left_unfinished_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    written(tmp_path, range(1, 8)).close()
    with recording_files(tmp_path)[-1].open("ab") as file:
        file.write(torn)
    written(tmp_path, range(8, 11)).close()
    assert recording_files(tmp_path)[0].read_bytes() == b"".join(line(number) for number in range(1, 11))
    assert contents(tmp_path, 1, 10) == [line(number) for number in range(1, 11)]


def test_old_files_go_but_none_that_is_still_needed(tmp_path: Path) -> None:
    written(tmp_path, range(1, 301), SMALL, floor=20).close()
    first = int(recording_files(tmp_path)[0].stem)
    assert first <= 20 < int(recording_files(tmp_path)[1].stem)
    written(tmp_path, range(301, 401), SMALL, floor=380).close()
    kept = recording_files(tmp_path)
    assert sum(path.stat().st_size for path in kept) <= SMALL.retain_bytes + 2 * SMALL.file_bytes
    with pytest.raises(LogMissing, match=r"line 1 of the recording is not there any more.*recording_retain"):
        contents(tmp_path, 1, 1)
    assert contents(tmp_path, 400, 1) == [line(400)]


def test_there_is_one_writer(tmp_path: Path) -> None:
    writer = written(tmp_path, range(1, 4))
    with pytest.raises(LogLocked, match="another process writes this recording"):
        RecordingWriter(tmp_path, SMALL)
    writer.close()
    written(tmp_path, range(4, 5)).close()


def test_a_recording_that_ends_too_early_is_damaged(tmp_path: Path) -> None:
    written(tmp_path, range(1, 8)).close()
    with pytest.raises(LogDamaged, match="ends at line 7, and 8 was committed"):
        contents(tmp_path, 5, 4)
    with pytest.raises(LogDamaged, match="ends at line 7"):
        contents(tmp_path, 99, 1)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [(errno.ENOSPC, LogFull, "no room for the recording"), (errno.EIO, LogError, "can't be written")],
)
def test_a_disk_that_takes_nothing_is_told_and_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[LogError], text: str
) -> None:
    writer = written(tmp_path, range(1, 8))
    true_write: Callable[[int, bytes], int] = os.write
    left = 20  # two whole lines and a piece of the third

    def write(descriptor: int, content: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(code, os.strerror(code))
        taken = true_write(descriptor, bytes(content[:left]))
        left -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr("nodes.feed.recording.os.write", write)
        for number in (8, 9, 10):
            writer.append(line(number))
        with pytest.raises(kind, match=text):
            writer.commit()
    assert writer.next == 8
    assert recording_files(tmp_path)[-1].read_bytes() == b"".join(line(number) for number in range(1, 8))
    writer.append(line(8))
    writer.commit()
    writer.close()
    assert contents(tmp_path, 1, 8) == [line(number) for number in range(1, 9)]
    assert file_of(tmp_path, 1).exists()


def test_what_a_recorder_writes_is_a_capture(tmp_path: Path) -> None:
    clock, woken = ManualClock(1_700_000_000_000_000_005), []
    writer = RecordingWriter(tmp_path, ENDLESS)
    recorder = Recorder("wss://venue/ws", writer, clock, lambda: woken.append(recorder.committed))
    recorder.connected()
    recorder.sent(b'{"id": 1}')
    clock.advance(7)
    recorder.received(b'{"a":\n "b\\n"}\r\n')
    recorder.received(b"")
    recorder.ended("why?\nbecause")
    assert (recorder.committed, woken) == (1, [])
    recorder.commit()
    recorder.commit()
    assert woken == [6]
    writer.close()
    lines = [parse_line(number, text[:-1], 0) for number, text in enumerate(contents(tmp_path, 1, 5))]
    connected, sent, message, empty, ended = lines
    assert connected is not None
    assert (connected.mark, connected.recv_ns) == (True, 1_700_000_000_000_000_005)
    assert sent is None
    assert message is not None
    assert (message.recv_ns, message.payload.split()) == (1_700_000_000_000_000_012, [b'{"a":', b'"b\\n"}'])
    assert empty is not None
    assert empty.problem
    assert ended is not None
    assert ended.mark
