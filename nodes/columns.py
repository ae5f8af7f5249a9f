"""State that nodes keep in preallocated arrays, and records that wait for their instrument's definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.records import Records

_FIRST_ROWS = 256


class Columns:
    """Preallocated arrays of equal length, by name; rows are added at the end and the arrays grow by doubling."""

    def __init__(self, **formats: str) -> None:
        self.count = 0
        self.replaced = 0
        """How often the arrays were replaced by others."""
        self._arrays: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(_FIRST_ROWS, code) for name, code in formats.items()
        }

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """All rows of one column; a view that is valid until the next ``add``."""
        return self._arrays[name][: self.count]

    def whole(self, name: str) -> npt.NDArray[Any]:
        """One column with the room behind its rows; another array after ``replaced`` has changed."""
        return self._arrays[name]

    def add(self, **values: Any) -> int:
        """One more row; columns not named are 0. Returns its index."""
        row = self.count
        if row == len(next(iter(self._arrays.values()))):
            for name, array in self._arrays.items():
                grown = np.zeros(2 * len(array), array.dtype)
                grown[:row] = array
                self._arrays[name] = grown
            self.replaced += 1
        self.count += 1
        for name, value in values.items():
            self._arrays[name][row] = value
        return row

    def checkpoint(self) -> dict[str, npt.NDArray[Any]]:
        return {name: self[name].copy() for name in self._arrays}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = len(next(iter(state.values())))
        self.replaced += 1
        for name, values in state.items():
            room = max(_FIRST_ROWS, self.count)
            self._arrays[name] = np.zeros(room, self._arrays[name].dtype)
            self._arrays[name][: self.count] = values


class Held:
    """The last record of each instrument that is not defined yet, until its definition arrives."""

    def __init__(self) -> None:
        self._rows: dict[int, Records] = {}
        self.held = 0
        """How many were ever held."""
        self.replaced = 0
        """How many of them a later record of the same instrument replaced."""

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, row: Records) -> None:
        """Hold ``row`` (one record, shape (1,))."""
        instrument = int(row["instrument"][0])
        self.held += 1
        self.replaced += self._rows.pop(instrument, None) is not None
        self._rows[instrument] = row.copy()

    def take(self, instrument: int) -> Records | None:
        """The record that waits for this instrument, once."""
        return self._rows.pop(instrument, None)

    def checkpoint(self) -> dict[str, Any]:
        rows = list(self._rows.values())
        raw = np.concatenate(rows).view(np.uint8) if rows else np.zeros(0, np.uint8)
        return {"held": self.held, "replaced": self.replaced, "rows": raw}

    def restore(self, state: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
        self.held, self.replaced = int(state["held"]), int(state["replaced"])
        records = np.asarray(state["rows"], np.uint8).view(dtype)
        self._rows = {int(row["instrument"]): records[i : i + 1].copy() for i, row in enumerate(records)}


class Backlog:
    """Records kept back in order because one of them can't be used yet; bounded by count and by age."""

    MAX_RECORDS = 65_536
    MAX_AGE_NS = 5_000_000_000

    def __init__(self) -> None:
        self._rows: Records | None = None
        self._since_ns = 0
        self.given_up: set[int] = set()
        """Instruments that were waited for in vain: they hold nothing up any more."""

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows)

    def join(self, records: Records | None) -> Records | None:
        """What was kept back, with ``records`` after it; empties the backlog."""
        rows, self._rows = self._rows, None
        if rows is None or records is None:
            return records if rows is None else rows
        return np.concatenate([rows, records])

    def too_old(self, now_ns: int) -> bool:
        return bool(self._since_ns) and now_ns - self._since_ns > self.MAX_AGE_NS

    def keep(self, records: Records, now_ns: int) -> bool:
        """Keep records back; False (and nothing kept) if that would be too many or too long."""
        if not self._since_ns:
            self._since_ns = now_ns
        if len(records) > self.MAX_RECORDS or self.too_old(now_ns):
            self._since_ns = 0
            return False
        self._rows = records.copy()
        return True

    def cleared(self) -> None:
        """Nothing had to be kept back: the age starts anew."""
        self._since_ns = 0

    def checkpoint(self) -> dict[str, Any]:
        raw = np.zeros(0, np.uint8) if self._rows is None else self._rows.view(np.uint8)
        return {"since_ns": self._since_ns, "rows": raw, "given_up": sorted(self.given_up)}

    def restore(self, state: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
        self._since_ns = int(state["since_ns"])
        self.given_up = set(state["given_up"])
        rows = np.asarray(state["rows"], np.uint8).view(dtype)
        self._rows = rows.copy() if len(rows) else None
