"""The cycle journal: every call of a node, committed before it is made, as records in a log of its own.

A cycle is one event: a CYCLE entry, then in order each thing that the node is about to be given, then where each output
stands. All of a cycle becomes visible at once, so a reader never sees a part of one.

    kind       port     session        first            count        flags
    START      -        -              -                -            1: fresh
    CYCLE      -        -              its number       entries      -               ts_event_ns is the cycle's now_ns
    DATA       input    of the run     first sequence   records      2: input stale
    SNAPSHOT   input    of the run     as_of            records      2: input stale
    LOST       input    session        first            records      reason << 8
    SKIPPED    input    session        first            records      -
    SESSION    input    new            old              -            -
    DIVERGED   input    -              first            delivered    -
    ENDED      input    session        last             -            -
    TIMER      -        -              -                -            -
    POLL       -        -              -                -            -
    OUTPUT     output   session        next sequence    -            -
    RECEIVED   -        -              first            count        -               in the source's own numbers
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fabric.channel import channel_id
from fabric.log.reader import LogReader
from fabric.log.writer import LogOptions, LogWriter
from fabric.records import Flags, record
from native.cycles import CycleJournal

JOURNAL = record("journal", kind="u2", port="u2", detail="u4", session="u8", first="u8", count="u8")
OPTIONS = LogOptions(retain_bytes=64 << 20, segment_bytes=4 << 20)


class Kind(enum.IntEnum):
    START = 1
    CYCLE = 2
    DATA = 3
    SNAPSHOT = 4
    LOST = 5
    SKIPPED = 6
    SESSION = 7
    DIVERGED = 8
    ENDED = 9
    TIMER = 10
    POLL = 11
    OUTPUT = 12
    RECEIVED = 13


FRESH = 1
STALE = 2


@dataclass(slots=True)
class Entry:
    """One line of a cycle; ``port`` is the position among the node's inputs (or outputs)."""

    kind: Kind
    port: int = 0
    session: int = 0
    first: int = 0
    count: int = 0
    detail: int = 0


class JournalWriter:
    """Appends cycles. ``writer.next`` is the sequence that the next cycle's first entry will have."""

    def __init__(self, directory: Path, node: str, *, now_ns: int, lock: int | None = None) -> None:
        name = f"@{node}"
        self.writer = LogWriter(directory, name, channel_id(name), JOURNAL, OPTIONS, now_ns=now_ns, lock=lock)
        self.writer.retention_floor = self.writer.control.first_available
        self._stage = JOURNAL.zeros(64)
        self.follow([])

    def follow(self, outputs: Sequence[LogWriter]) -> None:
        """The node's outputs, by position: each cycle tells where they stand."""
        self._outputs = list(outputs)
        controls = [output.control for output in self._outputs]
        self._fast = CycleJournal(self.writer.fast, controls, cycle=int(Kind.CYCLE), output=int(Kind.OUTPUT))

    def cycle(self, now_ns: int, number: int, entries: Sequence[Entry]) -> None:
        """Commit what the node is about to be given, and where its outputs stand."""
        if len(entries) == 1:
            only = entries[0]
            if self._fast.write(
                now_ns, number, only.kind, only.port, only.session, only.first, only.count, only.detail
            ):
                return
        outputs = enumerate(self._outputs)
        stand = [Entry(Kind.OUTPUT, position, output.session, output.next) for position, output in outputs]
        self.write(now_ns, number, [*entries, *stand])

    def start(self, now_ns: int, *, fresh: bool) -> None:
        self.write(now_ns, 0, [Entry(Kind.START, detail=FRESH if fresh else 0)])

    def write(self, now_ns: int, number: int, entries: list[Entry]) -> None:
        """Commit one cycle (or a START) before it is carried out."""
        count = len(entries) + (number > 0)
        if count > len(self._stage):
            self._stage = JOURNAL.zeros(2 * count)
        stage = self._stage[:count]
        at = 0
        if number:
            stage[0] = (now_ns, 0, 0, 0, 0, int(Kind.CYCLE), 0, 0, 0, number, count)
            at = 1
        for entry in entries:
            stage[at] = (
                now_ns, 0, 0, 0, 0, int(entry.kind), entry.port, entry.detail, entry.session, entry.first, entry.count,
            )  # fmt: skip
            at += 1
        stage[-1]["flags"] = Flags.LAST_IN_EVENT
        self.writer.write(stage, now_ns)


@dataclass(slots=True)
class Cycle:
    """One journaled cycle. ``sequence`` is its first entry's."""

    sequence: int
    number: int
    now_ns: int
    entries: list[Entry]


def read_cycles(journal: LogReader, first: int) -> Iterator[Cycle | Entry]:
    """Cycles (and START entries) from sequence ``first`` on. Raises IndexError if retention passed it."""
    cycle: Cycle | None = None
    left = 0
    for sequence, records in journal.read_range(first, journal.next - 1):
        for offset, row in enumerate(records.tolist()):
            now_ns, _, _, _, _, code, port, detail, session, number, count = row
            kind = Kind(code)
            if left == 0:
                if kind == Kind.START:
                    yield Entry(kind, detail=detail)
                    continue
                cycle = Cycle(sequence + offset, number, now_ns, [])
                left = count - 1
            else:
                assert cycle is not None
                cycle.entries.append(Entry(kind, port, session, number, count, detail))
                left -= 1
            if left == 0 and cycle is not None:
                yield cycle
