"""When each process of a run was started and how it ended: one JSON line each, in the run directory."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIVES = "lives"
_MOST_LINES = 10_000
"""A run that restarts more often than this has said enough."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a process; times are UTC nanoseconds. ``ended_ns`` is 0 and ``how`` "" while it lasts, or where nobody
    was left to see its end."""

    started_ns: int
    ended_ns: int = 0
    how: str = ""
    """Such as "killed by SIGKILL"."""


class Lives:
    """Written by the supervisor, which never fails because of it: what can't be written is left out."""

    def __init__(self, run: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = run / LIVES
        self._now_ns = now_ns
        self._lines = 0

    def started(self, process: str) -> None:
        self._write(process, "")

    def ended(self, process: str, how: str) -> None:
        self._write(process, how)

    def _write(self, process: str, how: str) -> None:
        self._lines += 1
        if self._lines > _MOST_LINES:
            return
        line = json.dumps({"process": process, "at_ns": self._now_ns(), "ended": how})
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_lives(run: Path) -> dict[str, list[Life]]:
    """By process, oldest first; empty for a run without a supervisor. A line that was cut short is passed over."""
    lives: dict[str, list[Life]] = {}
    try:
        lines = (run / LIVES).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return lives
    for line in lines:
        try:
            entry = json.loads(line)
            process, at_ns, how = str(entry["process"]), int(entry["at_ns"]), str(entry["ended"])
        except (ValueError, KeyError, TypeError):
            continue
        of = lives.setdefault(process, [])
        if not how:
            of.append(Life(at_ns))
        elif of and not of[-1].ended_ns:
            of[-1] = Life(of[-1].started_ns, at_ns, how)
    return lives
