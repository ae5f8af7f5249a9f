"""The recording of a live session: the lines of a capture, appended to files, in a numbering that never begins anew.

    <data_dir>/<fabric>/recordings/<node>/lock                    flock of the one writer
                                          <first, 20 digits>.log  the lines from number ``first`` on

Lines count from 1, over all files and runs. A line is there when ``commit`` has returned: it was written whole, and no
committed line is ever changed. What a killed writer left behind the last line end was never committed, and is cut off.
Old files are removed when all of them exceed ``retain_bytes``, but none that ``floor`` still needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fabric.errors import LogDamaged, LogError, LogFull, LogLocked, LogMissing

SUFFIX = ".log"
_CHUNK_BYTES = 256 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RecordingLimits(NamedTuple):
    """How large one file gets, and all of them."""

    file_bytes: int = 64 << 20
    retain_bytes: int = 1 << 30


class RecordedLine(NamedTuple):
    """``number``: of the recording; ``file`` and ``line`` (from 1): where a person finds it."""

    number: int
    file: Path
    line: int
    content: bytes


class RecordingWriter:
    """Appends lines. ``append`` keeps them, ``commit`` writes all that were kept in one piece."""

    def __init__(self, directory: Path, limits: RecordingLimits) -> None:
        """Go on behind the last whole line. Raises LogLocked if there is another writer, LogError if the directory or
        a file in it can't be used."""
        self.directory = directory
        self.floor = 0
        """The first line that somebody still needs; only grows, set by another thread."""
        self._limits = limits
        self._staged: list[bytes] = []
        self._file = -1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise LogLocked(
                    "another process writes this recording", path=directory, remedy="stop that one first"
                ) from None
            files = recording_files(directory)
            self._firsts = [_first_of(file) for file in files] or [1]
            self.next, self._bytes = self._firsts[-1], 0
            """``next``: the number of the next line; all below it are committed."""
            if files:
                lines, self._bytes = _count_lines(files[-1])
                self.next += lines
            self._open(self._firsts[-1])
            os.ftruncate(self._file, self._bytes)
            os.lseek(self._file, self._bytes, os.SEEK_SET)
        except OSError as error:
            raise _cannot_write(directory, error) from None

    def append(self, line: bytes) -> None:
        """``line`` with its end."""
        self._staged.append(line)

    def commit(self) -> None:
        """Write what was appended. Raises LogFull or LogError, and then none of it is there."""
        if not self._staged:
            return
        content, lines = b"".join(self._staged), len(self._staged)
        self._staged.clear()
        try:
            if self._bytes >= self._limits.file_bytes:
                self._rotate()
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            os.ftruncate(self._file, self._bytes)
            os.lseek(self._file, self._bytes, os.SEEK_SET)
            raise _cannot_write(self.directory, error) from None
        self._bytes += len(content)
        self.next += lines

    def _open(self, first: int) -> None:
        previous = self._file
        self._file = os.open(file_of(self.directory, first), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if previous >= 0:
            os.close(previous)

    def _rotate(self) -> None:
        self._open(self.next)
        self._firsts.append(self.next)
        self._bytes = 0
        sizes = [file_of(self.directory, first).stat().st_size for first in self._firsts]
        while len(self._firsts) > 1 and sum(sizes) > self._limits.retain_bytes and self._firsts[1] <= self.floor:
            file_of(self.directory, self._firsts.pop(0)).unlink()
            sizes.pop(0)

    def close(self) -> None:
        """Give up the lock. What was appended and not committed is not written."""
        os.close(self._file)
        os.close(self._lock)


class RecordingReader:
    """Reads committed lines by number, while the writer goes on. Reading on where it was costs one system call."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor = -1
        self._first = 0
        """Of the file that is open; ``_next`` is at ``_offset`` in it."""
        self._next = 0
        self._offset = 0

    def read(self, first: int, count: int) -> Iterator[RecordedLine]:
        """Lines ``first`` to ``first + count - 1``. Raises LogMissing if retention has removed them (or somebody else
        has), LogDamaged if they end too early."""
        if first != self._next or self._descriptor < 0:
            self._seek(first)
        chunk_bytes, end = _CHUNK_BYTES, first + count
        while self._next < end:
            chunk = os.pread(self._descriptor, chunk_bytes, self._offset)
            *lines, rest = chunk.split(b"\n")
            file = file_of(self.directory, self._first)
            for line in lines[: end - self._next]:
                self._offset += len(line) + 1
                self._next += 1
                yield RecordedLine(self._next - 1, file, self._next - self._first, line)
            if not lines:
                if len(rest) == chunk_bytes:
                    chunk_bytes *= 2
                elif rest or not file_of(self.directory, self._next).exists() or self._next == self._first:
                    raise LogDamaged(
                        f"the recording ends at line {self._next - 1}, and {end - 1} was committed",
                        path=self.directory,
                        remedy='what is lost is lost; start the fabric anew, or with resume = "fresh"',
                    )
                else:
                    self._open(self._next)

    def _seek(self, line: int) -> None:
        firsts = [_first_of(file) for file in recording_files(self.directory)]
        before = [first for first in firsts if first <= line]
        if not before:
            raise LogMissing(
                f"line {line} of the recording is not there any more",
                path=self.directory,
                remedy="its oldest files were removed, to keep to recording_retain: set a larger one",
            )
        self._open(before[-1])
        while self._next < line:
            chunk = os.pread(self._descriptor, _CHUNK_BYTES, self._offset)
            at = -1
            while self._next < line and (found := chunk.find(b"\n", at + 1)) >= 0:
                at = found
                self._next += 1
            if not chunk:
                raise LogDamaged(
                    f"the recording ends at line {self._next - 1}, before line {line}",
                    path=self.directory,
                    remedy='start the fabric anew, or with resume = "fresh"',
                )
            self._offset += at + 1 if self._next == line else len(chunk)

    def _open(self, first: int) -> None:
        self.close()
        self._descriptor = os.open(file_of(self.directory, first), os.O_RDONLY | os.O_CLOEXEC)
        self._first = self._next = first
        self._offset = 0

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def recording_files(directory: Path) -> list[Path]:
    """The files of a recording, in the order of their lines."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.stem.isdigit() and len(path.stem) == 20)


def file_of(directory: Path, first: int) -> Path:
    """The file that begins with line ``first``."""
    return directory / f"{first:020}{SUFFIX}"


def _first_of(file: Path) -> int:
    return int(file.stem)


def _count_lines(file: Path) -> tuple[int, int]:
    """(whole lines, bytes up to the last line end)."""
    lines = end = position = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            if b"\n" in chunk:
                lines += chunk.count(b"\n")
                end = position + chunk.rindex(b"\n") + 1
            position += len(chunk)
    return lines, end


def _cannot_write(directory: Path, error: OSError) -> LogError:
    if error.errno in _NO_ROOM:
        return LogFull(
            f"no room for the recording: {error.strerror}",
            path=directory,
            remedy="free space on that disk, or lower recording_retain",
        )
    return LogError(f"the recording can't be written: {error.strerror}", path=directory, remedy="check the disk")
