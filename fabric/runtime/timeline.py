"""What a node's inputs missed and got back, and when: a file of fixed size with one row of bins for each input.

    0      began_ns i64, width_ns i64, then [[port, channel], ...] as msgpack, length first (u32)
    4096   inputs x BINS bins

A bin begins 100 ms wide. When the run gets longer than all bins, two and two become one and the width doubles: the file
never grows and always holds the whole run. It is mapped, so a kill loses nothing that was noted; one writer, the
node's process; anybody may read.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from fabric.log.paths import write_atomically

TIMELINE = "timeline"
BINS = 2048
FIRST_WIDTH_NS = 100_000_000
COUNTS = ("gaps", "missed", "recovered", "skipped", "lost")
BIN = np.dtype([*((name, "<u8") for name in COUNTS), ("states", "<u8")])
"""``states``: bit n is set if state n (fabric.runtime.gauges.STATES) was seen in the bin, STALE_BIT if it was stale; 0:
nobody looked, because the process was not running or had not subscribed."""
STALE_BIT = 1 << 5
_HEAD_BYTES = 4096
_HEAD = struct.Struct("<qq")

Bins = npt.NDArray[np.void]


class Timeline:
    """Open or create the file. One with the same inputs goes on: it is an earlier life's. Raises OSError."""

    def __init__(self, path: Path, inputs: Sequence[tuple[str, str]]) -> None:
        self._path = path
        self._names: bytes = msgpack.packb([list(pair) for pair in inputs])
        if _HEAD.size + 4 + len(self._names) > _HEAD_BYTES:
            raise ValueError("too many inputs for one timeline")
        self._before: list[tuple[int, ...]] | None = None
        self._position = -1
        """The bin of this life's last look."""
        size = _HEAD_BYTES + len(inputs) * BINS * BIN.itemsize
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            head = os.pread(descriptor, _HEAD_BYTES, 0)
            if os.fstat(descriptor).st_size != size or _names_of(head) != self._names:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, size)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, size)  # a full disk is an error here, not SIGBUS later
                os.pwrite(descriptor, self._head(0, FIRST_WIDTH_NS), 0)
            self._map(descriptor)
        finally:
            os.close(descriptor)

    def _head(self, began_ns: int, width_ns: int) -> bytes:
        return _HEAD.pack(began_ns, width_ns) + len(self._names).to_bytes(4, "little") + self._names

    def _map(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self.began_ns: int
        self.width_ns: int
        self.began_ns, self.width_ns = _HEAD.unpack_from(self._memory)
        self._bins = np.frombuffer(self._memory, BIN, offset=_HEAD_BYTES).reshape(-1, BINS)

    def start_from(self, totals: list[tuple[int, ...]]) -> None:
        """The counts of each input as this life finds them; what ``note`` is given later is counted from here."""
        self._before = totals

    def note(self, now_ns: int, totals: list[tuple[int, ...]], states: list[int]) -> None:
        """The counts of each input as they are now, in the order of COUNTS, and the bits of their states."""
        if not self.began_ns:
            self.began_ns = now_ns - now_ns % FIRST_WIDTH_NS
            _HEAD.pack_into(self._memory, 0, self.began_ns, self.width_ns)
        while (position := (now_ns - self.began_ns) // self.width_ns) >= BINS and self._fold():
            pass
        position = max(min(position, BINS - 1), self._position, 0)
        before = self._before or totals
        for row, (old, new) in enumerate(zip(before, totals, strict=True)):
            # The bins between two looks of one life: nothing else was to be seen in them.
            first = min(self._position + 1, position) if self._position >= 0 else position
            self._bins["states"][row, first : position + 1] |= np.uint64(states[row])
            if old != new:
                for name, earlier, count in zip(COUNTS, old, new, strict=True):
                    if count > earlier:
                        self._bins[name][row, position] += np.uint64(count - earlier)
        self._before, self._position = totals, position

    def _fold(self) -> bool:
        """Two bins become one. In a new file that replaces this one: a kill leaves the old or the new, never a half.
        False, and nothing is changed, if there is no room for it: what comes then is all in the last bin."""
        folded = np.zeros_like(self._bins)
        for name in COUNTS:
            folded[name][:, : BINS // 2] = self._bins[name][:, 0::2] + self._bins[name][:, 1::2]
        folded["states"][:, : BINS // 2] = self._bins["states"][:, 0::2] | self._bins["states"][:, 1::2]
        head = self._head(self.began_ns, 2 * self.width_ns).ljust(_HEAD_BYTES, b"\0")
        try:
            write_atomically(self._path, head + folded.tobytes())
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            self._map(descriptor)
        finally:
            os.close(descriptor)
        self._position = self._position // 2 if self._position >= 0 else -1
        return True


@dataclass(frozen=True, slots=True)
class TimelineView:
    """A timeline as read; times in nanoseconds."""

    began_ns: int
    width_ns: int
    inputs: list[tuple[str, str]]
    """(port, channel), in the order of the rows."""
    bins: Bins
    """Shape (inputs, bins up to the last one that anybody looked at)."""

    @property
    def ended_ns(self) -> int:
        return self.began_ns + int(self.bins.shape[1]) * self.width_ns


def read_timeline(path: Path) -> TimelineView | None:
    """A copy, also while it is written; None if there is none, or nothing in it."""
    try:
        content = path.read_bytes()
        began_ns, width_ns = _HEAD.unpack_from(content)
        names: Any = msgpack.unpackb(_names_of(content))
        inputs = [(str(port), str(channel)) for port, channel in names]
        bins = np.frombuffer(content, BIN, offset=_HEAD_BYTES).reshape(len(inputs), BINS)
    except (OSError, ValueError, struct.error, msgpack.UnpackException):
        return None
    looked = np.flatnonzero(bins["states"].any(axis=0))
    if not began_ns or width_ns <= 0 or not len(looked):
        return None
    return TimelineView(began_ns, width_ns, inputs, bins[:, : int(looked[-1]) + 1])


def _names_of(head: bytes) -> bytes:
    start = _HEAD.size + 4
    return head[start : start + int.from_bytes(head[_HEAD.size : start], "little")]
