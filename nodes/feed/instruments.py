"""Instrument ids: dense u4, a range of its own for every feed, leased from the data directory.

Ranges never overlap, so records of several feeds can meet in one node without a clash of ids. Which feed owns which
range is kept in ``instrument-ranges.json``; the ids inside a range are given in the order of first use, and a restarted
feed takes them over from the definitions it published before (``adopt``).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fabric.errors import FabricError, InputFileError
from fabric.records import Records

RANGE_SIZE = 2**20
RANGES_FILE = "instrument-ranges.json"
LOCK_FILE = "instrument-ranges.lock"
_MAX_RANGES = 2**32 // RANGE_SIZE - 1
SYMBOL_BYTES = 32


class InstrumentIds:
    """Symbol to id, stable; new symbols get the next free id of the range [first, first + 2**20)."""

    def __init__(self, first: int = 1) -> None:
        self.first = first
        self._next = first
        self._ids: dict[str, int] = {}

    @classmethod
    def lease(cls, feed: str, folder: Path | None) -> InstrumentIds:
        """The range that ``feed`` owns in ``folder``, taken now if it has none; without a folder, the first range.

        Raises InputFileError if the file of ranges is damaged.
        """
        if folder is None:
            return cls()
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / LOCK_FILE):
            path = folder / RANGES_FILE
            ranges = _read_ranges(path)
            if feed not in ranges:
                index = max((first // RANGE_SIZE for first in ranges.values()), default=-1) + 1
                if index >= _MAX_RANGES:
                    raise FabricError(
                        f"{path}: all {_MAX_RANGES} ranges of instrument ids are taken",
                        remedy="remove feeds that no longer exist from this file, with everything stopped",
                    )
                ranges[feed] = index * RANGE_SIZE + 1
                _write_ranges(path, ranges)
        return cls(ranges[feed])

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    def id_of(self, symbol: str) -> int:
        """The id of ``symbol``, given now if it is new."""
        known = self._ids.get(symbol)
        if known is not None:
            return known
        if self._next >= self.first + RANGE_SIZE:
            raise FabricError(
                f"all {RANGE_SIZE} instrument ids of this feed are taken",
                remedy="give the feed another name in the config: it gets a new range",
            )
        if not 0 < len(symbol.encode()) <= SYMBOL_BYTES:
            raise ValueError(f"symbol {symbol!r} does not fit in {SYMBOL_BYTES} bytes")
        given = self._next
        self._ids[symbol] = given
        self._next = given + 1
        return given

    def adopt(self, records: Records) -> None:
        """Take over the ids of INSTRUMENT records that this feed published before; later records win.

        Ids outside the range are kept too: an id that consumers know must go on to mean the same symbol.
        """
        owners = {number: symbol for symbol, number in self._ids.items()}
        for raw, number in zip(records["symbol"].tolist(), records["instrument"].tolist(), strict=True):
            symbol = raw.decode()
            other = owners.get(number)
            if other is not None and other != symbol:
                raise ValueError(f"instrument id {number} is both {other!r} and {symbol!r}")
            owners[number] = symbol
            self._ids[symbol] = number
            if self.first <= number < self.first + RANGE_SIZE:
                self._next = max(self._next, number + 1)

    def checkpoint(self) -> dict[str, Any]:
        """Plain data; ``restore`` takes it."""
        return {"first": self.first, "next": self._next, "ids": dict(self._ids)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be what ``checkpoint`` described."""
        self.first = int(state["first"])
        self._next = int(state["next"])
        self._ids = {str(symbol): int(number) for symbol, number in state["ids"].items()}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock; on a file of its own, because the ranges file is replaced by a new inode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_ranges(path: Path) -> dict[str, int]:
    remedy = "restore it, or remove it with everything stopped: feeds then get new ranges"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise InputFileError(f"not readable as a table of id ranges: {error}", file=path, remedy=remedy) from None
    valid = isinstance(content, dict) and all(
        type(first) is int and first % RANGE_SIZE == 1 and 0 < first <= _MAX_RANGES * RANGE_SIZE
        for first in content.values()
    )
    if not valid or len(set(content.values())) != len(content):
        raise InputFileError(
            f"must map each feed's name to a first id of its own (1, {RANGE_SIZE + 1}, ...)", file=path, remedy=remedy
        )
    return dict(content)


def _write_ranges(path: Path, ranges: Mapping[str, int]) -> None:
    """Replace the file in one step: a reader (or a crash) sees the old table or the new one."""
    temporary = path.with_suffix(".json.new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(ranges, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
