"""What a running fabric is told of its faults: one mapped page in the run directory, written by ``fabric fault``.

    offset  0         8        16 + 16 n          24 + 16 n
            +---------+--------+------------------+---------------+- - -
            |  magic  |  off   | cut_until_ns     | lives         |        for the n-th node of the config
            |   u64   |  u64   | u64, MONOTONIC   | u64           |
            +---------+--------+------------------+---------------+- - -

A cut is a deadline, not a switch: if whoever wrote it dies, the partition ends all the same. ``lives`` is counted by the
node's own process, which alone writes it. Every word is 8 aligned bytes, loaded and stored in one piece.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fabric.log.paths import write_atomically

FAULT_PAGE = "faults"
_MAGIC = int.from_bytes(b"ZMFFAULT", "little")
_OFF, _NODES, _PER_NODE = 1, 2, 2


class FaultPage:
    """The page of one run; ``nodes``: the names of all nodes, in the order of the config."""

    def __init__(self, run: Path, nodes: Sequence[str]) -> None:
        """Raises FileNotFoundError where the run has none, ValueError where it is not one for these nodes."""
        words = _NODES + _PER_NODE * len(nodes)
        with (run / FAULT_PAGE).open("r+b") as file:
            if os.fstat(file.fileno()).st_size != 8 * words:
                raise ValueError(f"{run / FAULT_PAGE} is of another size")
            self._words = memoryview(mmap.mmap(file.fileno(), 8 * words)).cast("Q")
        if self._words[0] != _MAGIC:
            raise ValueError(f"{run / FAULT_PAGE} is no page of faults")
        self._place = {name: _NODES + _PER_NODE * number for number, name in enumerate(nodes)}

    @staticmethod
    def create(run: Path, nodes: Sequence[str]) -> FaultPage:
        empty = bytes(8 * (_NODES + _PER_NODE * len(nodes) - 1))
        write_atomically(run / FAULT_PAGE, _MAGIC.to_bytes(8, "little") + empty)
        return FaultPage(run, nodes)

    @property
    def off(self) -> bool:
        """No faults any more."""
        return bool(self._words[_OFF])

    def turn_off(self) -> None:
        self._words[_OFF] = 1

    def cut(self, node: str, until_ns: int) -> None:
        """Nothing of this node's live packets, and of replies from its logs, gets through before ``until_ns``."""
        self._words[self._place[node]] = until_ns

    def cut_until_ns(self, node: str) -> int:
        return 0 if self.off else self._words[self._place[node]]

    def begin_life(self, node: str) -> int:
        """How often this node's process was started before; called once by each."""
        place = self._place[node] + 1
        self._words[place] += 1
        return self._words[place] - 1


@dataclass(frozen=True, slots=True)
class NodeGate:
    """The page as one publisher's injector looks at it."""

    page: FaultPage
    node: str

    @property
    def off(self) -> bool:
        return self.page.off

    @property
    def cut_until_ns(self) -> int:
        return self.page.cut_until_ns(self.node)
