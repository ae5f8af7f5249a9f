"""Which process makes no progress: decided from looks at it, without a clock of its own.

Time counts only while somebody looks: between two looks at most ``MOST_NS``. So a machine that was suspended, a supervisor
that was stopped, or one so busy that the supervisor itself hardly ran, is nobody's hang.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from pathlib import Path

from fabric.runtime.page import NodeState

LOOK_NS = 250_000_000
"""How often to look."""
MOST_NS = 2 * LOOK_NS
RESUMING_FACTOR = 6
"""Exact resume may wait for another fabric's log server."""


class Watchdog:
    """Watches one process. ``patience_ns``: without progress for so long it hangs; 0: never."""

    def __init__(self, patience_ns: int) -> None:
        self.patience_ns = patience_ns
        self._progress: Hashable = None
        self._looked_ns: int | None = None
        self._still_ns = 0

    def look(self, progress: Hashable, now_ns: int, *, factor: int = 1) -> bool:
        """True if it hangs. ``progress``: whatever changes while it gets on; None: it is not expected to. ``factor``: of the
        patience, for what may take longer."""
        elapsed_ns = 0 if self._looked_ns is None else min(max(0, now_ns - self._looked_ns), MOST_NS)
        self._looked_ns = now_ns
        if progress is None or progress != self._progress:
            self._progress, self._still_ns = progress, 0
            return False
        self._still_ns += elapsed_ns
        return 0 < self.patience_ns * factor <= self._still_ns

    def excuse(self) -> None:
        """What was seen so far was no hang."""
        self._still_ns = 0


def progress_of(pid: int, state: int, passes: int) -> tuple[Hashable, int]:
    """(progress, factor) of a node's process by its page. One that is starting is not watched: that may take long."""
    if state == NodeState.RESUMING:
        return (pid, state, passes), RESUMING_FACTOR
    if state in (NodeState.RUNNING, NodeState.DONE):
        return (pid, state, passes), 1
    return None, 1


def stopped(pid: int) -> bool:
    """By SIGSTOP or the like, not by a debugger. False where there is no /proc."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    return False


def traced(pid: int) -> bool:
    """By a debugger, whose user is looking at it just now. False where there is no /proc."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("TracerPid:")[2].split()[0]) != 0
    return False
