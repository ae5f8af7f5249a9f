"""The lines of one of our channels: the same packets of one publisher on several endpoints. Who is first delivers.

    SILENT ── heard ──▶ LIVE ── others heard for ``stale_ns``, this one not ──▶ LOST ── heard ──▶ LIVE

A hole is a gap once every line that is not LOST has passed it, or once it is ``reorder_ns`` old. A line is LOST only beside
one that is heard: where none is, it is the channel that is stale.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.protocol.lines import LineState
from native.lines import MOST, LineAccounts

MOST_LINES = MOST
REORDER_NS = 10_000_000
"""How long a hole waits for the other lines, where nobody says otherwise."""


def line_name(number: int) -> str:
    """A, B, C, D."""
    return "ABCD"[number]


@dataclass(frozen=True, slots=True)
class LineCounts:
    """One line of a channel, at one moment. Counts are records: received = first + duplicates + late."""

    name: str
    state: LineState
    received: int
    first: int
    """Came here before it did on another line."""
    duplicates: int
    """Was there already."""
    late: int
    """Of a gap that was told before, and had come otherwise since; or of a session that was left."""
    losses: int
    """How often the line was lost."""


class ChannelLines:
    """States and accounts of ``count`` lines. Times are of one clock."""

    def __init__(self, count: int, stale_ns: int) -> None:
        self.accounts = LineAccounts(count)
        self.losses = [0] * count
        self._numbers = range(count)
        self._stale_ns = stale_ns
        self._began_ns: int | None = None
        self._lost: set[int] = set()
        self._told: list[tuple[int, LineState]] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def state(self, line: int) -> LineState:
        if line in self._lost:
            return LineState.LOST
        return LineState.LIVE if self.accounts.heard_ns(line) else LineState.SILENT

    def counts(self) -> list[LineCounts]:
        """Of each line, in their order."""
        of = self.accounts
        return [
            LineCounts(
                line_name(line), self.state(line), of.received(line), of.first(line), of.duplicates(line), of.late(line),
                self.losses[line],
            )
            for line in self._numbers
        ]  # fmt: skip

    def begin(self) -> None:
        """They are asked for now, or again: none of them has been silent yet."""
        self._began_ns = None

    def check(self, now_ns: int) -> None:
        """Which of them are lost, or back."""
        if self._began_ns is None:
            self._began_ns = now_ns
        heard = [self.accounts.heard_ns(line) for line in self._numbers]
        newest = max(heard)
        for line in self._numbers:
            lost = newest - max(heard[line], self._began_ns) > self._stale_ns
            if lost and line not in self._lost:
                self._lost.add(line)
                self.losses[line] += 1
                self._told.append((line, LineState.LOST))
            elif not lost and line in self._lost and heard[line] > self._began_ns:
                self._lost.discard(line)
                self._told.append((line, LineState.LIVE))

    def passed(self, last: int) -> bool:
        """Every line that is not lost has passed this sequence."""
        return all(line in self._lost or self.accounts.last(line) >= last for line in self._numbers)

    def take_told(self) -> list[tuple[int, LineState]]:
        """Lines that were lost, or came back, since this was asked last."""
        told, self._told = self._told, []
        return told
