"""The redundant lines of a source: which of them are alive, by the time since each was last heard."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class LineState(enum.StrEnum):
    SILENT = "SILENT"
    """Not heard yet. Waited for like a live one."""
    LIVE = "LIVE"
    LOST = "LOST"
    """Nothing for ``stale_ns``: not waited for."""


@dataclass(frozen=True, slots=True)
class LineLost:
    """Nothing came on this line since ``since_ns`` (0: it was never heard). The data of the others go on."""

    line: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class LineBack:
    """A lost line is heard again; ``since_ns`` is when it was heard before (0: never)."""

    line: str
    since_ns: int


class Lines:
    """States of lines. Several numberings that come on the same lines share one of these."""

    def __init__(self, names: tuple[str, ...], stale_ns: int) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"lines need names that differ: {names}")
        self.names = names
        self._stale_ns = stale_ns
        self._began_ns: int | None = None
        self._heard_ns: dict[str, int] = {}
        self._lost: set[str] = set()
        self.losses = dict.fromkeys(names, 0)

    def state(self, line: str) -> LineState:
        if line in self._lost:
            return LineState.LOST
        return LineState.LIVE if line in self._heard_ns else LineState.SILENT

    def alive(self) -> list[str]:
        """Those that a hole waits for: live, or not heard yet."""
        return [line for line in self.names if line not in self._lost]

    def heard(self, line: str, now_ns: int) -> LineBack | None:
        if line not in self.names:
            raise ValueError(f"no such line: {line!r}, there are {', '.join(self.names)}")
        before = self._heard_ns.get(line, 0)
        self._heard_ns[line] = max(now_ns, before)
        if line not in self._lost:
            return None
        self._lost.discard(line)
        return LineBack(line, before)

    def check(self, now_ns: int) -> list[LineLost]:
        """Which lines are lost since the last check. A line that was never heard has ``stale_ns`` from the first one."""
        if self._began_ns is None:
            self._began_ns = now_ns
        lost = []
        for line in self.names:
            heard = self._heard_ns.get(line)
            since = self._began_ns if heard is None else heard
            if line not in self._lost and now_ns - since >= self._stale_ns:
                self._lost.add(line)
                self.losses[line] += 1
                lost.append(LineLost(line, heard or 0))
        return lost
