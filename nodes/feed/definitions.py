"""What a feed has said about its instruments: ids and definitions, each published before its first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fabric.records import Records, RecordType
from nodes.feed.instruments import InstrumentIds
from nodes.records import INSTRUMENT, InstrumentState

Row = tuple[Any, ...]
"""One record as a tuple, head first, in the order of the dtype's fields."""


class Definition(NamedTuple):
    """The body of an INSTRUMENT record, in the order of its fields."""

    symbol: str
    underlying: str
    currency: str
    """What prices are quoted in."""
    strike: float
    expiry_ns: int
    tick: float
    lot: float
    multiplier: float
    kind: int
    style: int
    state: int


class Definitions:
    """Definitions published so far, by symbol."""

    def __init__(self, ids: InstrumentIds) -> None:
        self._ids = ids
        self._published: dict[str, Definition] = {}
        self._packed: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._published

    def __len__(self) -> int:
        return len(self._published)

    def of(self, symbol: str) -> Definition | None:
        """What was published last for ``symbol``."""
        return self._published.get(symbol)

    def expired(self, at_ns: int) -> list[Definition]:
        """Those that are open although they expired before ``at_ns``."""
        return [
            item
            for item in self._published.values()
            if 0 < item.expiry_ns <= at_ns and item.state == InstrumentState.OPEN
        ]

    def id_of(self, symbol: str) -> int:
        """The id of ``symbol``; given now if it is new."""
        return self._ids.id_of(symbol)

    def publish(self, definition: Definition, ts_event_ns: int, ts_origin_ns: int) -> Row | None:
        """The INSTRUMENT row to append, or None if exactly this was published before."""
        if self._published.get(definition.symbol) == definition:
            return None
        self._published[definition.symbol] = definition
        self._packed = None
        return (ts_event_ns, ts_origin_ns, 0, self._ids.id_of(definition.symbol), 0, *definition)

    def adopt(self, records: Records) -> None:
        """Go on from INSTRUMENT records published before (later ones win)."""
        self._ids.adopt(records)
        self._packed = None
        for row in records.tolist():
            texts = [text.decode() for text in row[5:8]]
            definition = Definition(*texts, *row[8:])
            self._published[definition.symbol] = definition

    def checkpoint(self) -> Any:
        """All definitions as the bytes of INSTRUMENT records: cheap to keep, since they hardly ever change."""
        if self._packed is None:
            rows = [(0, 0, 0, self._ids.id_of(item.symbol), 0, *item) for item in self._published.values()]
            self._packed = records_of(INSTRUMENT, rows).view(np.uint8)
        return self._packed.copy()

    def restore(self, packed: Any) -> None:
        """The inverse of ``checkpoint``."""
        self._published.clear()
        self.adopt(np.ascontiguousarray(packed, np.uint8).view(INSTRUMENT.dtype))


def records_of(record: RecordType, rows: list[Row]) -> Records:
    """Rows as records. They are set one by one on zeros: padding bytes must not depend on what memory held before."""
    records = record.zeros(len(rows))
    for position, row in enumerate(rows):
        records[position] = row
    return records


def counters_from(state: Mapping[str, Any]) -> dict[str, int]:
    """Counters out of a checkpoint."""
    return {str(name): int(count) for name, count in state.items()}
