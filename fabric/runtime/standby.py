"""A standby of a node: a second process of the same run, warmed up, that waits for the lock of the node's cycle journal.

Whoever holds that lock is the node. The kernel releases it when the last thread of its holder has ended, so whoever gets it
knows that nothing of the holder's will be written any more; from a process that lives, hung or stopped, it is never taken.
The standby then does what a restarted node does (fabric.runtime.resume), in the same session.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fabric.log.paths import LOCK, write_atomically
from fabric.rundir import RunDirectory

STANDBY = "standby"
"""Beside a node's page: which process stands by, as JSON. Its own file, since the page is the node's."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a standby was waiting for: the node's lock, and when it was got."""

    lock: int
    """The descriptor that holds it."""
    since_ns: int
    """CLOCK_MONOTONIC."""
    inherited: bool
    """Another process was the node before."""


class Standby:
    """Waits for a node's place in a run. ``stop()`` may be called from a signal handler."""

    def __init__(self, run: RunDirectory, node: str) -> None:
        self._journal = run.journal(node)
        self._sign = run.node(node) / STANDBY
        self._changed = threading.Event()
        self._stopping = False
        self._lock: int | None = None
        self._since_ns = 0

    def stop(self) -> None:
        """Give up waiting."""
        self._stopping = True
        self._changed.set()

    def wait(self) -> Place | None:
        """Until the node's process ends, or there is none; None if stopped meanwhile. Raises OSError."""
        self._journal.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._journal / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Waited for in a thread: the main one has to hear signals, and flock goes on waiting after one.
        threading.Thread(target=self._take, args=(descriptor,), name="fabric-standby", daemon=True).start()
        self._say_ready()
        self._changed.wait()
        with contextlib.suppress(OSError):
            self._sign.unlink()
        if self._stopping or self._lock is None:
            return None  # the process ends, and with it the thread and what it holds
        return Place(self._lock, self._since_ns, inherited=(self._journal / "current").exists())

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._since_ns = time.monotonic_ns()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            self._lock = descriptor
        finally:
            self._changed.set()

    def _say_ready(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: it is only not seen
            write_atomically(self._sign, json.dumps({"pid": os.getpid(), "since_ns": time.time_ns()}).encode())


def standby_pid(node_directory: Path) -> int:
    """The process that said it stands by; 0 if there is none. It may have ended since."""
    try:
        return int(json.loads((node_directory / STANDBY).read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
