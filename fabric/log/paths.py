"""Names in a log's directory, and the small files beside the segments."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric.errors import LogDamaged, LogMissing

CURRENT = "current"
LOCK = "lock"
CONTROL = "control"
WAIT = "wait"
DESCRIPTION = "log.json"
IMAGE = "image"
HOLES = "holes"
SEGMENT = ".seg"
SIDECAR = ".sum"


def segment_name(first: int) -> str:
    """File name of the segment whose first record has this sequence."""
    return f"{first:020d}{SEGMENT}"


def session_name(session: int) -> str:
    return f"{session:016x}"


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def point_current(directory: Path, session: int) -> None:
    """Make ``current`` name this session, in one step."""
    temporary = directory / f".{CURRENT}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary.symlink_to(session_name(session))
    temporary.replace(directory / CURRENT)


def read_description(session_directory: Path) -> dict[str, Any]:
    """The content of log.json. Raises LogMissing or LogDamaged."""
    path = session_directory / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LogMissing(
            "no log here", path=session_directory, remedy="give a channel's or a session's directory"
        ) from None
    except (ValueError, OSError) as error:
        raise LogDamaged(f"unreadable: {error}", path=path) from None
    if (
        not isinstance(description, dict)
        or not isinstance(description.get("channel"), str)
        or "record" not in description
    ):
        raise LogDamaged("is not a log description", path=path)
    return description


def boot_id() -> bytes:
    """16 bytes that change with every boot of the machine; zeros where the system does not tell."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def hold_lock(path: Path) -> tuple[int | None, str]:
    """Try to take the lock that a file stands for, and write our pid into it: (descriptor that holds it, ""), or (None,
    the holder's pid as text)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        return None, holder
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor, ""


@contextlib.contextmanager
def locked_file(path: Path) -> Iterator[int]:
    """An exclusive flock on a small file, created if need be; yields its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def next_epoch(epoch_file: Path | None, previous: int, now_ns: int) -> int:
    """A u32 above every epoch used before: the clock's seconds, or one more than the last where the clock stepped back.

    ``epoch_file`` keeps the highest one across runs whose logs are gone.
    """
    epoch = max(previous + 1, now_ns // 1_000_000_000)
    if epoch_file is not None:
        epoch_file.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(epoch_file) as descriptor:
            text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            if text.isdecimal():
                epoch = max(epoch, int(text) + 1)
            os.pwrite(descriptor, f"{epoch:<20d}\n".encode(), 0)
    return epoch & 0xFFFFFFFF


def new_session_id(epoch: int, random_bits: int | None = None) -> int:
    """epoch u32 << 32 | random u32 (never 0)."""
    low = secrets.randbits(32) if random_bits is None else random_bits
    return (epoch << 32) | (low or 1)
