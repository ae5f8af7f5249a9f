"""The last quote of each instrument of a feed, so that all of them can be said to be stale."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.records import Flags
from nodes.feed.definitions import Row
from nodes.records import QUOTE

_FIRST_ROWS = 256
_STALE = np.uint32(Flags.STALE)


class LastQuotes:
    """One QUOTE record an instrument, in the order in which they were first quoted."""

    def __init__(self) -> None:
        self._rows = QUOTE.zeros(_FIRST_ROWS)
        self._row_of: dict[int, int] = {}
        """By instrument id."""

    def __len__(self) -> int:
        return len(self._row_of)

    def keep(self, row: Row) -> None:
        """The quote that was published last (a QUOTE record as a tuple)."""
        position = self._row_of.setdefault(row[3], len(self._row_of))
        if position == len(self._rows):
            self._rows = np.concatenate([self._rows, QUOTE.zeros(position)])
        self._rows[position] = row

    def drop(self, instrument: int) -> None:
        """It is closed. The last row takes its place."""
        position = self._row_of.pop(instrument, None)
        if position is None:
            return
        moved = self._rows[len(self._row_of)]
        if position < len(self._row_of):
            self._rows[position] = moved
            self._row_of[int(moved["instrument"])] = position

    def all_stale(self, ts_origin_ns: int) -> list[Row]:
        """Make every quote STALE that is not: these, to be published again. They keep their event times: the venue said
        nothing new. What caused them is of ``ts_origin_ns``."""
        rows = self._rows[: len(self._row_of)]
        fresh = np.flatnonzero(rows["flags"] & _STALE == 0)
        rows["flags"][fresh] |= _STALE
        rows["ts_origin_ns"][fresh] = ts_origin_ns
        found: list[Row] = rows[fresh].tolist()
        return found

    def checkpoint(self) -> npt.NDArray[np.uint8]:
        """The rows' bytes: thousands of quotes are not to cost each checkpoint a walk in Python."""
        return self._rows[: len(self._row_of)].view(np.uint8).copy()

    def restore(self, state: Any) -> None:
        """The inverse of ``checkpoint``."""
        rows = np.ascontiguousarray(state, np.uint8).view(QUOTE.dtype)
        self._rows = QUOTE.zeros(max(_FIRST_ROWS, len(rows)))
        self._rows[: len(rows)] = rows
        self._row_of = {instrument: position for position, instrument in enumerate(rows["instrument"].tolist())}
