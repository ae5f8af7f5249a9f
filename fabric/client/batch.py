"""What a subscriber gets: one run of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from fabric.frames import Tabular
from fabric.protocol.types import Origin, Run
from fabric.records import Records, RecordType
from native.batch import BatchFields

if TYPE_CHECKING:
    from fabric.client.connection import Client

_ORIGINS: dict[Origin, Literal["live", "replay", "snapshot"]] = {
    Origin.LIVE: "live",
    Origin.REPLAY: "replay",
    Origin.SNAPSHOT: "snapshot",
}


class Batch(BatchFields, Tabular):
    """Records of one channel and session, in sequence order, read-only; they stay valid for as long as you keep them.

    ``records`` is a numpy structured array. ``first`` and ``last`` are the sequences of the run that they are from; with a
    symbol filter, or conflated, ``records`` may be fewer. For a snapshot ``last`` is ``as_of``, the sequence that the image
    is good at, and ``first`` is the lowest sequence in it. ``channel``, ``session`` and ``record`` (its RecordType) say whose
    they are; ``stale``: no packet or heartbeat had arrived in time when this was read, or the records are older than the
    subscription's ``max_age``. ``to_arrow``, ``to_polars`` and
    ``to_pandas`` convert.
    """

    __slots__ = ()

    @staticmethod
    def of(
        channel: str,
        run: Run,
        record: RecordType,
        *,
        stale: bool,
        chosen: npt.NDArray[np.intp] | None = None,
        client: Client | None = None,
    ) -> Batch:
        """A run, or those of its records whose positions are ``chosen``."""
        records: Records = run.records if chosen is None else run.records[chosen]
        records.flags.writeable = False
        return Batch(
            channel, record, records, run.origin, run.session, run.first, run.last, stale, run.sequences, chosen, client
        )

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<Batch {self.channel} {self.first}..{self.last}, {len(self)} records, {self.origin}>"

    @property
    def first(self) -> int:
        if self._origin != Origin.SNAPSHOT:
            return self._first
        numbers = self._own_numbers()
        return int(numbers[0]) if len(numbers) else self.last

    @property
    def as_of(self) -> int | None:
        """The sequence that a snapshot is good at; None for records of the stream."""
        return self.last if self._origin == Origin.SNAPSHOT else None

    @property
    def origin(self) -> Literal["live", "replay", "snapshot"]:
        return _ORIGINS[self._origin]

    @property
    def contiguous(self) -> bool:
        """Every sequence from ``first`` to ``last`` has its record here."""
        return self._origin != Origin.SNAPSHOT and self._chosen is None and not self.conflated

    @property
    def conflated(self) -> int:
        """Records of ``first`` to ``last`` that a newer one of the same key here has taken the place of."""
        if self._numbers is None or self._origin == Origin.SNAPSHOT:
            return 0
        return self.last - self._first + 1 - len(self._numbers) // 8

    @property
    def sequences(self) -> npt.NDArray[np.uint64]:
        """Each record's sequence, shape (len(self),)."""
        if self._numbers is not None or self._origin == Origin.SNAPSHOT:
            numbers = self._own_numbers()
        else:
            numbers = np.arange(self._first, self.last + 1, dtype=np.uint64)
        return numbers if self._chosen is None else numbers[self._chosen]

    def _own_numbers(self) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._numbers or b"", np.uint64)

    def _rows(self) -> Iterator[Records]:
        yield self.records

    def _symbols(self) -> Mapping[int, str] | None:
        return None if self._client is None else self._client.known_symbols()
