"""A node's shared page: counters and latency histograms in a mapped file, so that a kill does not reset them.

    0      names, as msgpack: {"counters": [...], "histograms": [...]}, length first (u32)
    65536  counters, u64 each, in the order of their names
    then   histograms, native.histogram.BYTES each

One writer, the node's process; anybody may read.
"""

from __future__ import annotations

import enum
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from fabric.protocol.channellines import line_name
from native.histogram import BYTES as HISTOGRAM_BYTES
from native.histogram import Histogram

_NAMES_BYTES = 65_536


class NodeState(enum.IntEnum):
    """Where a node's process is in its life."""

    NEW = 0
    STARTING = 1
    RESUMING = 2
    RUNNING = 3
    DONE = 4
    """All inputs ended, all outputs sealed; it stays to answer until it is stopped."""
    STOPPED = 5
    FAILED = 6


NODE_COUNTERS = (
    "state",
    "pid",
    "cycles",
    "errors",
    "checkpoints",
    "cpu_ns",
    "peak_rss_bytes",
    "rerun_cycles",
    "takeovers",
    "takeover_ns",
    "passes",
    "gc_pauses",
    "gc_ns",
    "gc_longest_ns",
    "staged_most",
)
INPUT_COUNTERS = (
    "received",
    "gaps",
    "missed",
    "recovered",
    "skipped",
    "lost",
    "duplicates",
    "replayed",
    "snapshot_records",
    "state",
    "active",
    "stale",
    "session",
    "delivered",
    "path",
    "refused",
    "overflow",
)
INPUT_BUFFERS = ("lane", "queued", "held", "newer", "holes")
"""What an input buffers: a gauge of each (records; holes are ranges), and another of the most that was seen."""
LINE_COUNTERS = ("state", "received", "first", "duplicates", "late", "losses")
"""Of each line, of an input whose channel has several."""
RUNG_COUNTERS = ("state", "opened", "requests", "records")
"""Of each rung, of an input for which several may be asked."""
PATHS = ("", "local", "ipc", "tcp")
"""How an input's records come, by the number that stands on the page; "" before anybody looked."""


class NodePage:
    """Open or create the page. An existing one with the same names keeps its counts."""

    def __init__(self, path: Path, counters: list[str], histograms: list[str]) -> None:
        names = msgpack.packb({"counters": counters, "histograms": histograms})
        head = len(names).to_bytes(4, "little") + names
        if len(head) > _NAMES_BYTES:
            raise ValueError("too many counters for one page")
        size = _NAMES_BYTES + 8 * len(counters) + HISTOGRAM_BYTES * len(histograms)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            same = os.fstat(descriptor).st_size == size and os.pread(descriptor, len(head), 0) == head
            if not same:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, size)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, size)  # a full disk is an error here, not SIGBUS later
                os.pwrite(descriptor, head, 0)
            memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._map(memory, counters, histograms)

    @staticmethod
    def open(path: Path) -> NodePage:
        """For reading. Raises OSError or ValueError if there is no page yet."""
        page = NodePage.__new__(NodePage)
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        names: dict[str, Any] = msgpack.unpackb(memory[4 : 4 + int.from_bytes(memory[:4], "little")])
        page._map(memory, names["counters"], names["histograms"])
        return page

    def _map(self, memory: mmap.mmap, counters: list[str], histograms: list[str]) -> None:
        self.index = {name: position for position, name in enumerate(counters)}
        whole = memoryview(memory)
        end = _NAMES_BYTES + 8 * len(counters)
        self.values = whole[_NAMES_BYTES:end].cast("Q")
        self._regions = {
            name: whole[end + n * HISTOGRAM_BYTES : end + (n + 1) * HISTOGRAM_BYTES]
            for n, name in enumerate(histograms)
        }
        self.histograms = {name: Histogram(region) for name, region in self._regions.items()}

    def histogram_words(self, name: str) -> npt.NDArray[np.uint64]:
        """A copy of a histogram as it stands now (layout: native.histogram), for what happened between two moments."""
        return np.frombuffer(bytes(self._regions[name]), np.uint64)

    def get(self, name: str) -> int:
        """A counter; 0 for one that the page does not have."""
        position = self.index.get(name)
        return 0 if position is None else self.values[position]

    def set(self, name: str, value: int) -> None:
        self.values[self.index[name]] = value

    def add(self, name: str, by: int = 1) -> None:
        self.values[self.index[name]] += by


def page_names(
    inputs: list[str],
    hops: list[str],
    lines: Mapping[str, int] | None = None,
    rungs: Mapping[str, list[str]] | None = None,
) -> tuple[list[str], list[str]]:
    """Counter and histogram names of a node with these input ports and latency hops; ``lines``: how many each port has,
    and ``rungs``: their names, where they are several."""
    counters = list(NODE_COUNTERS) + [f"in.{port}.{name}" for port in inputs for name in INPUT_COUNTERS]
    counters += [f"in.{port}.{name}{which}" for port in inputs for name in INPUT_BUFFERS for which in ("", "_most")]
    for port, count in (lines or {}).items():
        counters += [f"in.{port}.{line_name(line)}.{name}" for line in range(count) for name in LINE_COUNTERS]
    for port, names in (rungs or {}).items():
        counters += [f"in.{port}.{rung}.{name}" for rung in names for name in RUNG_COUNTERS]
    return counters, [*hops, "call"]
