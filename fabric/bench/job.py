"""What one process of a run is told (as JSON), and what takes part in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PACED, FLOOD, VALUES = "paced", "flood", "values"
"""Kinds of sending: by schedule; ready-made messages as fast as they are taken; each record made from Python values."""


@dataclass(slots=True)
class Job:
    """The same for sender and receivers, but for ``reader`` and ``cpus``."""

    contestant: str
    module: str
    """The contestant's: a worker loads no other, so that no library's import is in another's process."""
    kind: str
    count: int
    """Records in all."""
    directory: str
    """For sockets and small files; a short path."""
    memory: str
    """For logs and shared memory: on tmpfs where there is one."""
    transport: str = "ipc"
    loop: str = ""
    """The event loop of a receiver: asyncio or uvloop; empty: none."""
    size_bytes: int = 64
    per_message: int = 1
    """Records a message."""
    rate: float = 0.0
    """Records a second, of a paced sender."""
    warmup: int = 0
    """Records at the beginning that are checked but not counted."""
    channels: int = 1
    readers: int = 1
    reader: int = 0
    idle: str = "block"
    """How the library waits: ``block`` or ``spin``."""
    pace: str = "block"
    """How the bench's own sender waits for its schedule: the same for all contestants."""
    cpus: list[int] = field(default_factory=list)
    """Pinned to these; empty: anywhere."""
    busy: bool = False
    """A thread of the receiver computes in Python all the time."""
    seed: int = 0
    deadline_s: float = 30.0
    server: dict[str, Any] = field(default_factory=dict)
    """Where the contestant's server listens, where it has one."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One library over one transport, used in one way."""

    name: str
    module: str
    """Has ``missing``, ``make_sender`` and ``make_receiver``; where a server is needed, ``server``."""
    transport: str
    kinds: frozenset[str]
    flow: str
    """How a sender is held back, so that nothing is lost."""
    idle: tuple[str, ...] = ("block",)
    ours: bool = False
    optional: bool = False
    """Takes part with ``--peers`` only."""
    loop: str = ""
    """Receives in an event loop: asyncio or uvloop."""
    most_readers: int = 64
    most_channels: int = 1
    in_process: bool = False
    """Sender and receiver are one process (and no channel between processes is measured)."""
    largest_message_bytes: int = 1 << 20
    least_per_message: int = 1
    """Takes part only where messages have at least so many records."""

    def fits(
        self, job_kind: str, loop: str, readers: int, channels: int, message_bytes: int, per_message: int = 1
    ) -> bool:
        return (
            job_kind in self.kinds
            and bool(self.loop) == bool(loop)
            and readers <= self.most_readers
            and channels <= self.most_channels
            and message_bytes <= self.largest_message_bytes
            and per_message >= self.least_per_message
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A process that a contestant needs beside its two. ``ready`` is a TCP port of 127.0.0.1, or a socket's path."""

    command: Sequence[str]
    ready: int | Path
    where: dict[str, Any]
