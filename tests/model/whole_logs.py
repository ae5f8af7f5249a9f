"""Logs in memory: what a publisher has committed, and what an archive keeps of it. Each remembers also what it has no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fabric.channel import channel_id
from fabric.errors import LogMissing
from fabric.log.follower import Followed
from fabric.log.holes import LogHoles
from fabric.log.image import empty_image
from fabric.records import Flags, Records, RecordType, record
from native.image import KeyedImage
from native.log import LogState

NAME = "numbers"
CHANNEL = channel_id(NAME)
KEYS = 5
SEGMENT_RECORDS = 8
PLAIN = record("model_plain", number="u8")
KEYED = record("model_keyed", image="last", number="u8")
_MIX, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def content(kind: RecordType, session: int, first: int, count: int, publish_ns: int) -> Records:
    """The records of one event: a function of session and sequence, but for the time."""
    records = kind.zeros(count)
    sequences = np.arange(first, first + count, dtype=np.uint64)
    records["number"] = sequences * np.uint64(_MIX) ^ np.uint64(session * 0xD1342543DE82EF95 & _MASK)
    records["instrument"] = key_of(session, sequences)
    records["ts_publish_ns"] = publish_ns
    records["flags"][-1] = Flags.LAST_IN_EVENT
    return records


def key_of(session: int, sequences: Any) -> Any:
    """Which instrument a record is of."""
    mixed = sequences * np.uint64(_MIX) >> np.uint64(40)
    return (mixed ^ np.uint64(session & 7)) % np.uint64(KEYS)


class ModelLog:
    """One session of the publisher, as LogReader and Control show it to a log server."""

    base = 1
    segment_records = SEGMENT_RECORDS
    channel = CHANNEL

    def __init__(self, kind: RecordType, session: int, parent: int, fork: int) -> None:
        self.record = kind
        self.session = session
        self.parent_session = parent
        self.fork_sequence = fork
        self.next = self.first_available = 1
        self.state = LogState.OPEN
        self.ended = False
        self.gone = False
        """Its directory was removed."""
        self.directory = Path(f"/publisher/{session:016x}")
        self.committed = 0
        """The last sequence that ever was: not lowered by a crash of the operating system."""
        self._all = kind.zeros(256)

    @property
    def control(self) -> ModelLog:
        return self

    @property
    def all(self) -> Records:
        """Every record that was ever committed; the first one has sequence 1."""
        return self._all[: self.committed]

    def append(self, count: int, publish_ns: int) -> tuple[int, Records]:
        """One event more; its first sequence and its records."""
        assert self.next == self.committed + 1
        first, self.committed = self.next, self.committed + count
        if self.committed > len(self._all):
            self._all = np.concatenate([self._all, self.record.zeros(len(self._all))])
        records = self._all[first - 1 : self.committed]
        records[:] = content(self.record, self.session, first, count, publish_ns)
        self.next = self.committed + 1
        return first, records

    def end(self) -> None:
        self.state = LogState.ENDED
        self.ended = True

    def retain(self, segments: int) -> None:
        """Remove the oldest whole segments, never the current one."""
        most = (self.next - 1) // SEGMENT_RECORDS * SEGMENT_RECORDS + 1
        begins = (self.first_available - 1) // SEGMENT_RECORDS * SEGMENT_RECORDS + 1
        self.first_available = max(self.first_available, min(most, begins + segments * SEGMENT_RECORDS))

    def cut(self, last: int) -> None:
        """What a crash of the operating system leaves ends here, or at the end of an event before."""
        ends = np.flatnonzero(self.all["flags"][:last] & Flags.LAST_IN_EVENT)
        whole = int(ends[-1]) + 1 if len(ends) else 0
        self.next = max(whole, self.first_available - 1) + 1

    def has(self, sequence: int) -> bool:
        return not self.gone and self.first_available <= sequence < self.next

    def read(self, first: int, max_records: int) -> Records:
        if self.gone:
            raise LogMissing("its directory was removed", path=self.directory)
        if first < self.first_available:
            raise IndexError(f"sequence {first} is below {self.first_available}")
        in_segment = SEGMENT_RECORDS - (first - 1) % SEGMENT_RECORDS
        return self._all[first - 1 : first - 1 + max(0, min(max_records, in_segment, self.next - first))]

    def find_time(self, time_ns: int) -> int:
        stamps = self.all["ts_publish_ns"][self.first_available - 1 : self.next - 1]
        return self.first_available + int(np.searchsorted(stamps, time_ns))

    def image(self, as_of: int) -> KeyedImage:
        made = empty_image(self.record)
        if as_of:
            made.update(self._all[:as_of], 1)
            made.advance(as_of)
        return made

    def newest(self, as_of: int) -> dict[int, int]:
        """Of each key the last sequence up to this one, told without an image."""
        keys = self._all["instrument"][:as_of].tolist()
        return {key: sequence for sequence, key in enumerate(keys, 1)}


class FollowedLog:
    """One session in the archive: what FollowerLog is, without files."""

    base = 1
    segment_records = SEGMENT_RECORDS
    channel = CHANNEL
    damaged = cut_off = 0

    def __init__(self, kind: RecordType, followed: Followed, now: Callable[[], int]) -> None:
        self.record = kind
        self.session = followed.session
        self.parent_session = followed.parent
        self.fork_sequence = followed.fork
        self.next = self.first_available = followed.first
        self.state = LogState.OPEN
        self.holes = LogHoles()
        self.directory = Path(f"/archive/{followed.session:016x}")
        self._now = now
        self.came_ns: dict[int, int] = {}
        """When each record came, the last time."""
        self._all = kind.zeros(256)

    @property
    def control(self) -> FollowedLog:
        return self

    @property
    def now(self) -> LogHoles:
        """As FollowedHoles tells them."""
        return self.holes

    def follow(self, first: int, records: Records) -> None:
        """Append what ends an event."""
        assert first == self.next, f"record {first} does not follow {self.next - 1}"
        if not len(records):
            return
        last = first + len(records) - 1
        while last > len(self._all):
            self._all = np.concatenate([self._all, self.record.zeros(len(self._all))])
        self._all[first - 1 : last] = records
        self.came_ns.update(dict.fromkeys(range(first, last + 1), self._now()))
        self.next = last + 1

    def skip(self, last: int) -> None:
        if last < self.next:
            return
        if self.first_available == self.next:
            self.first_available = last + 1
        else:
            self.holes.add(self.next, last)
        self.next = last + 1

    def end(self) -> None:
        self.state = LogState.ENDED

    def end_unknown(self) -> None:
        self.holes.open_end = True

    def close(self) -> None:
        """It stays what it is."""

    def drop_below(self, sequence: int) -> None:
        """The archive's own retention."""
        self.first_available = max(self.first_available, min(sequence, self.next))

    def cut(self, last: int) -> None:
        """A crash of the operating system took what is above this: it is read again."""
        ends = np.flatnonzero(self._all["flags"][:last] & Flags.LAST_IN_EVENT)
        self.next = max(self.first_available, min(self.next, int(ends[-1]) + 2 if len(ends) else 1))
        self.holes.ranges = [(a, min(b, self.next - 1)) for a, b in self.holes.ranges if a < self.next]

    def has(self, sequence: int) -> bool:
        return self.first_available <= sequence < self.next and self.holes.at(sequence) is None

    def read(self, first: int, max_records: int) -> Records:
        if first < self.first_available or self.holes.at(first) is not None:
            raise IndexError(f"sequence {first} is not here")
        in_segment = SEGMENT_RECORDS - (first - 1) % SEGMENT_RECORDS
        count = max(0, min(max_records, in_segment, self.next - first))
        begins = self.holes.begins_after(first)
        count = count if begins is None else min(count, begins - first)
        return self._all[first - 1 : first - 1 + count]

    def find_time(self, time_ns: int) -> int:
        stamps = self._all["ts_publish_ns"][self.first_available - 1 : self.next - 1]
        return self.first_available + int(np.searchsorted(stamps, time_ns))
