"""A range of a log, for research: ``log[1000:2000]``, ``log[-500:]``, ``log[nine_o_clock:]``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np
import numpy.typing as npt

from fabric.errors import LogError, UserMistake
from fabric.frames import Tabular
from fabric.log.image import newest_image
from fabric.log.paths import CURRENT, DESCRIPTION
from fabric.records import Records, RecordType
from fabric.times import to_ns

if TYPE_CHECKING:
    from fabric.log.reader import LogReader

Bound = SupportsIndex | datetime | np.datetime64
"""Of a range of a log: a sequence (negative: from the end), or a time of publication."""

_REMEDY = "sequences are whole numbers; times are aware datetimes or numpy.datetime64"


class LogSlice(Tabular):
    """Committed records ``first`` to ``stop - 1`` of a log. Nothing is read before it is asked for; ``to_arrow``,
    ``to_polars`` and ``to_pandas`` convert."""

    def __init__(self, log: LogReader, first: int, stop: int) -> None:
        self.log = log
        self.first = first
        self.stop = stop

    @property
    def last(self) -> int:
        return self.stop - 1

    @property
    def record(self) -> RecordType:
        """The log's record type."""
        return self.log.record

    def __len__(self) -> int:
        return max(0, self.stop - self.first)

    @property
    def records(self) -> Records:
        """All of it as one array, shape (len(self),): a view where it lies in one segment, else a copy. Raises IndexError
        where retention has removed some in the meantime."""
        parts = list(self._rows())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def sequences(self) -> npt.NDArray[np.uint64]:
        """Each record's sequence, shape (len(self),)."""
        return np.arange(self.first, max(self.first, self.stop), dtype=np.uint64)

    def views(self) -> Iterator[tuple[int, Records]]:
        """(first sequence, view of the mapped files) pairs, in order; no copy."""
        return self.log.read_range(self.first, self.last)

    def __repr__(self) -> str:
        return f"<LogSlice {self.log.channel} {self.first}..{self.last}>"

    def _rows(self) -> Iterator[Records]:
        found = False
        for _, view in self.views():
            found = True
            yield view
        if not found:
            yield self.record.zeros(0)

    def _symbols(self) -> Mapping[int, str] | None:
        return symbols_beside(self.log.directory)


def slice_of(log: LogReader, bounds: slice) -> LogSlice:
    """``log[bounds]``. Sequences, negative ones from the end, or times (by ``ts_publish_ns``). Raises IndexError for a sequence
    that retention has removed: it is never passed over in silence; UserMistake for a bound that is neither."""
    if bounds.step is not None:
        raise IndexError("a range of a log has no step")
    first = log.first_available if bounds.start is None else _sequence(log, bounds.start)
    stop = log.next if bounds.stop is None else _sequence(log, bounds.stop)
    if first < log.first_available and first < stop:
        raise IndexError(f"sequence {first} is below the first available one, {log.first_available}")
    return LogSlice(log, first, max(first, min(stop, log.next)))


def record_at(log: LogReader, place: SupportsIndex) -> np.void:
    """``log[place]``: one record, by its sequence; a negative place counts from the end. Raises IndexError where there is
    none, UserMistake for what is no whole number."""
    if not _is_whole(place):
        raise UserMistake(
            f"a record of a log is asked for by its sequence, not by {place!r}",
            remedy="log[3], log[-1]; log[a:b] takes times too",
        )
    number = index(place)
    sequence = log.next + number if number < 0 else number
    if not log.first_available <= sequence < log.next:
        there = f"{log.first_available} to {log.next - 1} are there" if len(log) else "the log is empty"
        raise IndexError(f"there is no record {number}: {there}")
    row: np.void = log.read(sequence, 1)[0]
    return row


def _sequence(log: LogReader, bound: Bound) -> int:
    if isinstance(bound, datetime | np.datetime64):
        return log.find_time(to_ns(bound))
    if not _is_whole(bound):
        raise UserMistake(f"{bound!r} can't bound a range of a log", remedy=_REMEDY)
    number = index(bound)
    return max(log.first_available, log.next + number) if number < 0 else number


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool | np.bool_)


def symbols_beside(session_directory: Path) -> dict[int, str] | None:
    """id ▸ symbol, of all definition logs that lie beside this log; None where there is none."""
    from fabric.log.reader import LogReader

    symbols: dict[int, str] = {}
    found = False
    for channel in sorted(session_directory.parent.parent.glob("*")):
        try:
            description = json.loads((channel / CURRENT / DESCRIPTION).read_bytes())
            if not any(field[0] == "symbol" for field in description["record"]["fields"]):
                continue
            log = LogReader(channel)
            rows = np.frombuffer(newest_image(log).export()[0], log.record.dtype)
        except (OSError, ValueError, KeyError, TypeError, AssertionError, LogError):
            continue  # not a log, or one that can't be read: ids stay numbers
        found = True
        names = (symbol.decode("ascii", "replace") for symbol in rows["symbol"].tolist())
        symbols.update(zip(rows["instrument"].tolist(), names, strict=True))
    return symbols if found else None
