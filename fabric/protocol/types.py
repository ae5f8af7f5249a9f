"""The words of a subscription: where it starts, what it is, what it hands out, what it counts, what bounds it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

PathWanted = Literal["auto", "local", "ipc", "tcp"]
"""How records are to come: from the mapped log where that can be (auto), from it alone, or by that socket."""


class State(enum.StrEnum):
    JOINING = "JOINING"
    LIVE = "LIVE"
    RECOVERING = "RECOVERING"
    ENDED = "ENDED"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    """Only of what a client holds: it was closed, and is not kept current any more."""


class Origin(enum.IntEnum):
    """How a run of records came."""

    LIVE = 1
    REPLAY = 2
    SNAPSHOT = 3


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: ``Start.live()``, ``Start.snapshot()``, ``Start.first()``, ``Start.time(ns)`` or
    ``Start.at(sequence, session)``."""

    mode: str
    sequence: int = 0
    session: int = 0
    time_ns: int = 0

    @staticmethod
    def live() -> Start:
        """The next record."""
        return Start("live")

    @staticmethod
    def snapshot() -> Start:
        """An image, then every record after it; the next record where the channel has no image."""
        return Start("snapshot")

    @staticmethod
    def resync(sequence: int, session: int) -> Start:
        """A snapshot, for a reader that had everything below this sequence and lost its state: what the snapshot passes
        over is Skipped. Like ``at`` where there is no image, or where the session is not the current one any more."""
        return Start("resync", sequence, session)

    @staticmethod
    def first() -> Start:
        """The first record of the current session."""
        return Start("first")

    @staticmethod
    def time(time_ns: int) -> Start:
        """The first record of the current session that was published at this time (UTC ns) or later; the next record where
        there is none yet."""
        return Start("time", time_ns=time_ns)

    @staticmethod
    def at(sequence: int, session: int = 0) -> Start:
        """This sequence of this session (0: of the current one)."""
        return Start("at", sequence, session)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in nanoseconds, sizes in records. Nothing in a subscription grows past these."""

    reorder_ns: int = 0
    """Wait this long before a hole counts as a gap; 0 where the one line keeps order, as ZeroMQ's do. With several lines
    the others may bring it meanwhile; where all of them have passed it, there is nothing to wait for."""
    stale_ns: int = 1_000_000_000
    request_timeout_ns: int = 300_000_000
    backoff_min_ns: int = 20_000_000
    backoff_max_ns: int = 2_000_000_000
    recovery_deadline_ns: int = 30_000_000_000
    """A hole that nobody answered for this long is Lost."""
    snapshots: bool = True
    """A snapshot may stand in for a hole that nobody can replay; else that is Lost. (A reader that joins is not meant.)"""
    session_deadline_ns: int = 5_000_000_000
    """How long a newer session waits for the rest of the old one."""
    max_held_records: int = 262_144
    """Above a hole; one request's answer may come on top."""
    max_queued_records: int = 262_144
    max_request_records: int = 65_536


@dataclass(slots=True)
class Run:
    """Records of one session in sequence order, or one snapshot; ``records`` is whatever was fed in, sliced."""

    origin: Origin
    session: int
    first: int
    last: int
    records: Any
    sequences: Any = None
    """Snapshot only: each record's own sequence. ``first`` is 0 and ``last`` its as_of."""


@dataclass(slots=True)
class Counters:
    """Records, unless the name says otherwise; each only ever grows."""

    received: int = 0
    """Delivered from the stream, live or replayed (not those of snapshots). With ``policy="latest"``: handed to the reader."""
    replayed: int = 0
    """Of those, the ones that came by replay."""
    gaps: int = 0
    """Holes seen in the live stream (holes, not records)."""
    missed: int = 0
    """Records in those holes."""
    recovered: int = 0
    """Of the missed ones, delivered after all."""
    skipped: int = 0
    lost: int = 0
    duplicates: int = 0
    """Came again: by a replay, or on another line."""
    fenced: int = 0
    """Packets of a lower epoch, dropped."""
    conflicts: int = 0
    """Packets of another session with the same epoch, dropped: two writers."""
    refused: int = 0
    """Records not taken because the reader is slow (they became part of a hole)."""
    snapshots: int = 0
    snapshot_records: int = 0
    sessions: int = 0
    requests: int = 0
    timeouts: int = 0
    conflated: int = 0
    """With ``policy="latest"``: passed over, because a newer record of the same key was there too."""
