"""The capture transport: what is a message, what is skipped, what is told with its line number."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.errors import InputFileError
from nodes.feed.capture import CaptureLine, CaptureReader, check_capture, epoch_ns

HEADER = (
    b'configuration: {"a": 1}\nwss://venue/ws <-> 1617644856.505972\nwss://venue/ws <- 1617644856.8063161: {"id": 0}\n'
)
GOOD = HEADER + b'1617644856.899453: {"n": 1}\n\n1617644856.902155: {"n": 2}\n'


def lines_of(path: Path, after_line: int = 0, *, marks: bool = False) -> list[CaptureLine]:
    reader = CaptureReader(path, after_line=after_line)
    lines = []
    while (line := reader.take()) is not None:
        lines.append(line)
    return lines if marks else [line for line in lines if not line.mark]


def written(folder: Path, content: bytes, name: str = "x.log") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_received_lines_are_messages_and_the_others_are_skipped(tmp_path: Path) -> None:
    assert lines_of(written(tmp_path, GOOD)) == [
        CaptureLine(4, 1617644856_899453000, b'{"n": 1}'),
        CaptureLine(6, 1617644856_902155000, b'{"n": 2}'),
    ]


def test_where_the_connection_began_and_ended_is_marked(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + b"wss://venue/ws <x> 1617644857.5: closed by the venue\nws://[::1]:80/ <-> 7\n")
    assert [line for line in lines_of(path, marks=True) if line.mark] == [
        CaptureLine(2, 1617644856_505972000, b"", mark=True),
        CaptureLine(7, 1617644857_500000000, b"", mark=True),
        CaptureLine(8, 7_000000000, b"", mark=True),
    ]


def test_answers_to_requests_are_messages(tmp_path: Path) -> None:
    path = written(tmp_path, b'https://venue/api?x=1&y=false -> 1626993723.1311848: {"n": 1}\n')
    assert lines_of(path) == [CaptureLine(1, 1626993723_131184800, b'{"n": 1}')]


def test_windows_line_ends_and_a_missing_last_line_end(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace(b"\n", b"\r\n").rstrip())
    assert [line.payload for line in lines_of(path)] == [b'{"n": 1}', b'{"n": 2}']


@given(st.integers(0, 9_999_999_999), st.integers(0, 999_999_999))
def test_times_are_exact_to_the_nanosecond(seconds: int, nanoseconds: int) -> None:
    assert epoch_ns(b"%d" % seconds, b"%09d" % nanoseconds) == seconds * 10**9 + nanoseconds


def test_times_with_few_or_many_digits() -> None:
    assert epoch_ns(b"5", b"") == 5_000_000_000
    assert epoch_ns(b"5", b"1") == 5_100_000_000
    assert epoch_ns(b"5", b"1234567899") == 5_123_456_789


def test_gzip_gives_the_same(tmp_path: Path) -> None:
    plain = lines_of(written(tmp_path, GOOD))
    assert lines_of(written(tmp_path, gzip.compress(GOOD), "x.log.gz")) == plain
    two_members = gzip.compress(GOOD[:100]) + gzip.compress(GOOD[100:])
    assert lines_of(written(tmp_path, two_members, "y.log.gz")) == plain


def test_a_corrupt_line_is_told_with_its_number_and_the_rest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace(b"\n\n", b"\n\x00\xffgarbage: x\n"))
    first, corrupt, last = lines_of(path)
    assert (corrupt.number, corrupt.payload, corrupt.recv_ns) == (5, b"", first.recv_ns)
    assert "not one of" in corrupt.problem
    assert last.payload == b'{"n": 2}'


def test_resuming_after_any_line_gives_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    everything = lines_of(path)
    for cursor in range(8):
        assert lines_of(path, cursor) == [line for line in everything if line.number > cursor]


def test_a_truncated_gzip_keeps_what_was_read_at_every_length(tmp_path: Path) -> None:
    whole = b"".join(b"1617644856.%06d: %s\n" % (n, os.urandom(8).hex().encode()) for n in range(50))
    packed = gzip.compress(whole)
    expected = [line.payload for line in lines_of(written(tmp_path, whole))]
    for length in range(2, len(packed) - 1, 7):
        path = written(tmp_path, packed[:length], "cut.log.gz")
        lines = lines_of(path)
        kept = [line.payload for line in lines if not line.problem]
        assert kept == expected[: len(kept)]
        assert [line.number for line in lines if line.problem] == [len(kept) + 1]
        assert "truncated" in lines[-1].problem


def test_a_gzip_with_a_wrong_checksum_keeps_all_lines_and_says_so(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(GOOD))
    packed[-8] ^= 1
    *good, told = lines_of(written(tmp_path, bytes(packed), "x.log.gz"))
    assert [line.payload for line in good] == [b'{"n": 1}', b'{"n": 2}']
    assert "damaged gzip" in told.problem
    assert told.number == 7


def test_files_that_are_no_captures_are_refused_with_name_and_remedy(tmp_path: Path) -> None:
    cases = {
        tmp_path / "missing.log": "no such file",
        tmp_path: "is a directory",
        written(tmp_path, b"", "empty.log"): "no line of a capture",
        written(tmp_path, b"\n\n", "blank.log"): "no line of a capture",
        written(tmp_path, HEADER, "header.log"): "no line of a capture",
        written(tmp_path, os.urandom(5000), "noise.bin"): "no line of a capture",
        written(tmp_path, GOOD, "plain.log.gz"): "not a gzip file",
        written(tmp_path, gzip.compress(GOOD)[:12], "cut.log.gz"): "truncated",
    }
    for path, reason in cases.items():
        with pytest.raises(InputFileError, match=reason) as caught:
            check_capture(path)
        assert caught.value.file == str(path)
        assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.chmod(0)
    with pytest.raises(InputFileError, match="can't be read"):
        check_capture(path)


def test_a_capture_with_garbage_before_its_first_line_is_accepted(tmp_path: Path) -> None:
    check_capture(written(tmp_path, b"garbage\n" + GOOD))


def test_a_line_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.feed.capture._MAX_LINE_BYTES", 100_000)
    path = written(tmp_path, b"1.0: " + b"x" * 400_000 + b"\n" + GOOD)
    told, *good = lines_of(path)
    assert (told.number, "more than" in told.problem) == (1, True)
    assert [line.number for line in good] == [5, 7]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_the_end(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.log"
    path.write_bytes(content)
    numbers = [line.number for line in lines_of(path)]
    assert numbers == sorted(set(numbers))
    assert all(0 < number <= content.count(b"\n") + 1 for number in numbers)
