"""The holes of a follower's log: ranges of sequences that it never had, or has no more. A publisher's log has none.

    <channel>/<session>/holes    JSON: {"ranges": [[first, last], ...], "open_end": false}; ascending, inclusive

The file is there in every session that a follower wrote. ``open_end``: whether the publisher's session went further is not
known.
"""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from fabric.errors import LogDamaged
from fabric.log.paths import HOLES, write_atomically


@dataclass(slots=True)
class LogHoles:
    """Disjoint ranges in ascending order."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    open_end: bool = False

    def add(self, first: int, last: int) -> None:
        """Join what touches it."""
        kept = []
        for a, b in self.ranges:
            if b + 1 < first or last + 1 < a:
                kept.append((a, b))
            else:
                first, last = min(first, a), max(last, b)
        self.ranges = sorted([*kept, (first, last)])

    def at(self, sequence: int) -> tuple[int, int] | None:
        """The hole that a sequence lies in."""
        place = bisect_left(self.ranges, (sequence + 1, 0)) - 1
        return self.ranges[place] if place >= 0 and self.ranges[place][1] >= sequence else None

    def begins_after(self, sequence: int) -> int | None:
        """Where the first hole above a sequence begins."""
        place = bisect_left(self.ranges, (sequence + 1, 0))
        return self.ranges[place][0] if place < len(self.ranges) else None

    def save(self, session_directory: Path) -> None:
        content = {"ranges": [list(each) for each in self.ranges], "open_end": self.open_end}
        write_atomically(session_directory / HOLES, json.dumps(content).encode())


class FollowedHoles:
    """The holes of a log that its follower may still be writing. Raises LogDamaged."""

    def __init__(self, session_directory: Path) -> None:
        self._directory = session_directory
        self._stamp_ns = -1
        self._holes = LogHoles()

    @staticmethod
    def of(session_directory: Path) -> FollowedHoles | None:
        """None for a log that no follower wrote."""
        return FollowedHoles(session_directory) if (session_directory / HOLES).exists() else None

    @property
    def now(self) -> LogHoles:
        """As they are; as they were last where the log was removed."""
        with contextlib.suppress(FileNotFoundError):
            stamp_ns = (self._directory / HOLES).stat().st_mtime_ns
            if stamp_ns != self._stamp_ns:
                self._holes = load_holes(self._directory) or self._holes
                self._stamp_ns = stamp_ns
        return self._holes

    def until(self, first: int, count: int) -> int:
        """How many of ``count`` records from ``first`` on come before a hole. Raises IndexError where that is in one."""
        holes = self.now
        if (hole := holes.at(first)) is not None:
            raise IndexError(
                f"records {hole[0]} to {hole[1]} are a hole of this log: it was never given them, or damaged"
            )
        begins = holes.begins_after(first)
        return count if begins is None else min(count, begins - first)


def load_holes(session_directory: Path) -> LogHoles | None:
    """None for a log that no follower wrote. Raises LogDamaged."""
    path = session_directory / HOLES
    try:
        content = json.loads(path.read_bytes())
        ranges = sorted((int(first), int(last)) for first, last in content["ranges"])
        return LogHoles(ranges, bool(content["open_end"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise LogDamaged(f"unreadable: {error}", path=path) from None
