"""Sessions of a log on disk: the writer's lock, the control and wait pages, making a new session, sweeping old ones."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import time
from pathlib import Path

from fabric.errors import LogDamaged, LogLocked
from fabric.log.paths import CONTROL, DESCRIPTION, LOCK, WAIT, boot_id, hold_lock, session_name, write_atomically
from fabric.log.segments import Segment, create_segment
from fabric.records import RecordType
from native.log import PAGE_BYTES, Control

_NAME = "[0-9a-f]" * 16
_LOCK_PAUSE_S = 0.001


def take_lock(directory: Path, within_s: float = 0.0) -> int:
    """The descriptor that holds the log's lock. Raises LogLocked, naming the holder.

    ``within_s``: try so long, where the holder is known to be ending.
    """
    directory.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + within_s
    while True:
        descriptor, holder = hold_lock(directory / LOCK)
        if descriptor is not None:
            return descriptor
        if time.monotonic() < deadline_s:
            time.sleep(_LOCK_PAUSE_S)
            continue
        raise LogLocked(
            f"another process writes this log{f' (pid {holder})' if holder else ''}",
            path=directory,
            remedy="a channel has one writer: stop the other one first",
        )


def map_control(session_directory: Path) -> tuple[Control, mmap.mmap]:
    """The control page, mapped for writing, and its mapping. Raises LogDamaged, OSError."""
    pages = []
    for name in (CONTROL, WAIT):
        with (session_directory / name).open("r+b") as file:
            if os.fstat(file.fileno()).st_size < PAGE_BYTES:
                raise LogDamaged("is truncated", path=session_directory / name)
            pages.append(mmap.mmap(file.fileno(), PAGE_BYTES))
    return Control(pages[0], pages[1], writable=True), pages[0]


def build_session(
    building: Path,
    channel: str,
    channel_id: int,
    record: RecordType,
    segment_records: int,
    session: int,
    parent: int,
    fork: int,
    now_ns: int,
) -> Segment:
    """Write everything of a new session into the directory ``building``; returns its first segment."""
    building.mkdir()
    description = {
        "channel": channel,
        "session": session,
        "parent_session": parent,
        "fork_sequence": fork,
        "record": record.describe(),
    }
    write_atomically(building / DESCRIPTION, json.dumps(description).encode())
    for name in (CONTROL, WAIT):
        write_atomically(building / name, bytes(PAGE_BYTES))
    (building / WAIT).chmod(0o666)
    control, _ = map_control(building)
    control.initialise(
        channel=channel_id,
        session=session,
        parent_session=parent,
        fork_sequence=fork,
        base=1,
        segment_records=segment_records,
        record_bytes=record.size,
        schema=record.schema,
        created_ns=now_ns,
        boot_id=boot_id(),
    )
    return create_segment(building, 1, segment_records, record.size)


def sessions(directory: Path) -> list[int]:
    """The sessions that have a directory here, whole or not, lowest epoch first."""
    return sorted(int(path.name, 16) for path in directory.glob(_NAME))


def sweep(directory: Path, keep: int) -> None:
    """Before a new session: remove half-made ones, and all but the newest, ``keep``, whose tail is still asked for."""
    for left in directory.glob(f".{_NAME}"):
        shutil.rmtree(left, ignore_errors=True)
    for session in sessions(directory):
        if session != keep and keep:
            shutil.rmtree(directory / session_name(session), ignore_errors=True)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
