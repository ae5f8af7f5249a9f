"""Reads recordings of a websocket (or of REST answers), line by line: the transport of a recorded feed.

    1617644856.902155: {"jsonrpc":...}                      received; epoch seconds = our clock then
    https://host/path?query -> 1626993723.1311848: {...}    the answer to a request
    wss://host/path <-> 1617644856.505972                   connected
    wss://host/path <x> 1617644999.505972: the reason       the connection ended
    wss://host/path <- 1617644856.8063161: {...}            sent                           } skipped, as are blank lines
    configuration: {...}                                    settings of the recorder       }

Plain or gzip. What can't be read of it is told line by line, and the rest is still read. A directory is the recording of
a live session (``nodes.feed.recording``): its files, one after the other.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fabric.errors import ConfigError, InputFileError
from fabric.location import Location
from nodes.feed.recording import recording_files

_CAPTURE = "capture:"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31
_CHUNK_BYTES = 64 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024
_LINE = re.compile(rb"(?:https?://\S+ -> )?(\d{1,10})(?:\.(\d{1,18}))?: (.+)", re.DOTALL)
_MARK = re.compile(rb"wss?://\S+ <([-x])> (\d{1,10})(?:\.(\d{1,18}))?(?:: .*)?", re.DOTALL)
_SKIPPED = re.compile(rb"wss?://\S+ <- |configuration:|\s*\Z")
_FORMAT = "lines 'epoch seconds: JSON'"


class CaptureLine(NamedTuple):
    """A received message; or (``mark``) that the connection began or ended there; or (``problem``) a line that can't be
    read, whose ``recv_ns`` is the last known."""

    number: int
    recv_ns: int
    payload: bytes
    problem: str = ""
    mark: bool = False


def parse_line(number: int, line: bytes, recv_ns: int) -> CaptureLine | None:
    """What one line (without its end) says; None if it is one that is skipped. ``recv_ns``: of the line before."""
    match = _LINE.fullmatch(line)
    if match is not None:
        return CaptureLine(number, epoch_ns(match[1], match[2] or b""), match[3])
    match = _MARK.fullmatch(line)
    if match is not None:
        return CaptureLine(number, epoch_ns(match[2], match[3] or b""), b"", mark=True)
    if _SKIPPED.match(line):
        return None
    return CaptureLine(number, recv_ns, b"", f"not one of {_FORMAT}")


class CaptureReader:
    """The received lines of one capture, in order. ``after_line`` resumes behind that line by reading up to it."""

    def __init__(self, path: Path, *, after_line: int = 0, recv_ns: int = 0) -> None:
        self.path = path
        self._recv_ns = recv_ns
        self._lines = _received(path, after_line)
        self._ahead: CaptureLine | None = None

    def peek(self) -> CaptureLine | None:
        """The next line, not yet taken; None at the end."""
        if self._ahead is None:
            for number, line, problem in self._lines:
                found = self._read(number, line, problem)
                if found is not None:
                    self._ahead = found
                    break
        return self._ahead

    def take(self) -> CaptureLine | None:
        """The next line; None at the end."""
        taken, self._ahead = self.peek(), None
        return taken

    def _read(self, number: int, line: bytes, problem: str) -> CaptureLine | None:
        if problem:
            return CaptureLine(number, self._recv_ns, b"", problem)
        found = parse_line(number, line, self._recv_ns)
        if found is not None:
            self._recv_ns = found.recv_ns
        return found

    def close(self) -> None:
        """Close the file; the reader is then at its end."""
        self._ahead = None
        self._lines.close()


def epoch_ns(seconds: bytes, fraction: bytes) -> int:
    """Decimal epoch seconds to ns by their digits (a float has not enough of them); below 1 ns is cut off."""
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0"))


def capture_files(location: Location | str, key: str) -> list[Path]:
    """The files that a location names: one, or those of a live session's recording. Raises ConfigError."""
    named = Location(location)
    path = named.path
    if not named.startswith(_CAPTURE) or len(named) == len(_CAPTURE) or path is None:
        raise ConfigError(
            f"{str(named)!r} is not a capture", key=key, remedy='write "capture:PATH", or for a source "wss://…"'
        )
    return (recording_files(path) if path.is_dir() else []) or [path]


def check_capture(path: Path) -> None:
    """Raises InputFileError unless the file can be read and has at least one line of the format."""
    reader = CaptureReader(path)
    problem = ""
    line = reader.take()
    while line is not None and (line.problem or line.mark):
        if line.problem:
            problem = problem or f"line {line.number}: {line.problem}"
        line = reader.take()
    reader.close()
    if line is None:
        raise InputFileError(
            f"no line of a capture in it{': ' + problem if problem else ''}",
            file=path,
            remedy=f"a capture has {_FORMAT}, one received message each",
        )


def _received(path: Path, after_line: int) -> Generator[tuple[int, bytes, str], None, None]:
    """(line number, line without its end, problem) of each line behind ``after_line``."""
    number = 0
    rest = b""
    end = too_long = ""
    for chunk, problem in _chunks(path):
        end = problem
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if number > after_line:
                yield number, line.removesuffix(b"\r"), too_long
            too_long = ""
        if len(rest) > _MAX_LINE_BYTES:
            rest, too_long = b"", f"a line of more than {_MAX_LINE_BYTES} bytes"
    number += 1
    if number > after_line and (rest or end or too_long):
        yield number, rest, end or too_long


def _chunks(path: Path) -> Iterator[tuple[bytes, str]]:
    """(bytes, "") of the content; the last one says what is wrong if the content ends too early."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
                    raise InputFileError(
                        "not a gzip file", file=path, remedy="fetch it again, or take .gz off its name"
                    )
                file.seek(0)
                yield from _inflated(file)
            else:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk, ""
    except FileNotFoundError:
        raise InputFileError(
            "no such file", file=path, remedy="a path in a config file is relative to that file; check it"
        ) from None
    except IsADirectoryError:
        raise InputFileError("is a directory", file=path, remedy="name one capture file, or a recording") from None
    except OSError as error:
        raise InputFileError(
            f"can't be read: {error.strerror or error}", file=path, remedy="check its permissions and its disk"
        ) from None


def _inflated(file: BinaryIO) -> Iterator[tuple[bytes, str]]:
    """As ``_chunks``. By hand, since gzip.open gives up what it holds when the stream ends too early."""
    stream = zlib.decompressobj(_GZIP_WINDOW_BITS)
    pending = b""
    started = False
    while chunk := pending or file.read(_CHUNK_BYTES):
        started = True
        before = stream.copy()
        try:
            yield stream.decompress(chunk), ""
        except zlib.error as error:
            yield _up_to_damage(before, chunk), f"damaged gzip ({error})"
            return
        pending = b""
        if stream.eof:
            pending = stream.unused_data.lstrip(b"\0")
            stream = zlib.decompressobj(_GZIP_WINDOW_BITS)
            started = False
    if started:
        yield b"", "the gzip file is truncated here"


def _up_to_damage(stream: zlib._Decompress, chunk: bytes) -> bytes:
    """What comes out before the damaged byte; one call for the whole chunk would give nothing."""
    good = bytearray()
    try:
        for position in range(len(chunk)):
            good += stream.decompress(chunk[position : position + 1])
    except zlib.error:
        pass
    return bytes(good)
