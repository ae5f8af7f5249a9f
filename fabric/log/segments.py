"""Segments on disk: preallocated whole, mapped, and from then on only ever unlinked."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
from pathlib import Path

from fabric.errors import LogDamaged, LogFull
from fabric.log.paths import SEGMENT, SIDECAR, segment_name, write_atomically
from fabric.units import format_bytes
from native.packet import crc32c

CRC_BLOCK_BYTES = 65_536
_PUBLISH_OFFSET = 16


class Segment:
    """One mapped segment of the writer's."""

    __slots__ = ("first", "memory", "path", "records")

    def __init__(self, path: Path, first: int, records: int, memory: mmap.mmap) -> None:
        self.path = path
        self.first = first
        self.records = records
        self.memory = memory

    @property
    def last(self) -> int:
        return self.first + self.records - 1


def create_segment(directory: Path, first: int, records: int, record_bytes: int) -> Segment:
    """Allocate and map a new segment, or take one over that an earlier writer had only prepared.

    Raises LogFull if the file system has no room: here, and never as a signal in the middle of a write.
    """
    path = directory / segment_name(first)
    size = records * record_bytes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            _allocate(descriptor, size)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise LogFull(
                    f"no space left for a segment of {format_bytes(size)}",
                    path=path,
                    remedy="free space there, lower retain, or set log_dir to a larger file system",
                ) from None
            raise
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        memory = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    return Segment(path, first, records, memory)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    have = os.fstat(descriptor).st_size  # macOS: no fallocate; zeros are written instead of a sparse file
    block = bytes(1 << 20)
    while have < size:
        have += os.pwrite(descriptor, block[: size - have], have)


def open_segment(directory: Path, first: int, records: int, record_bytes: int) -> Segment:
    """Map an existing segment for writing (a writer that goes on). Raises LogDamaged."""
    path = directory / segment_name(first)
    size = records * record_bytes
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LogDamaged("the segment is missing", path=path, remedy="remove the session's directory") from None
    try:
        if os.fstat(descriptor).st_size != size:
            raise LogDamaged(
                f"has {os.fstat(descriptor).st_size} bytes, not {size}",
                path=path,
                remedy="fabric log verify tells what is left; remove the session's directory to begin anew",
            )
        memory = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(descriptor)
    return Segment(path, first, records, memory)


def segment_files(directory: Path) -> list[tuple[int, Path]]:
    """(first sequence, path) of every segment in a session's directory, in order."""
    return sorted((int(path.stem), path) for path in directory.glob(f"*{SEGMENT}") if path.stem.isdecimal())


def last_publish_ns(path: Path, records: int, record_bytes: int) -> int:
    """``ts_publish_ns`` of a full segment's last record."""
    with path.open("rb") as file:
        stamp = os.pread(file.fileno(), 8, (records - 1) * record_bytes + _PUBLISH_OFFSET)
    return int.from_bytes(stamp, "little", signed=True)


def write_sidecar(segment: Segment, count: int, *, session: int, schema: int, record_bytes: int) -> None:
    """Checksums of a sealed segment's ``count`` records, one for each 64 KiB."""
    with memoryview(segment.memory) as whole, whole[: count * record_bytes] as used:
        checksums = [crc32c(used[start : start + CRC_BLOCK_BYTES]) for start in range(0, len(used), CRC_BLOCK_BYTES)]
    content = {
        "session": session,
        "base": segment.first,
        "count": count,
        "schema": schema,
        "record_bytes": record_bytes,
        "crc32c_block_bytes": CRC_BLOCK_BYTES,
        "crc32c": checksums,
    }
    write_atomically(segment.path.with_suffix(SIDECAR), json.dumps(content).encode())
