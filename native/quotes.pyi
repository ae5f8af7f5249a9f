"""Quotes of single options, one after the other: volatilities and greeks as finished records."""

import enum
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

QUOTE_FIELDS: tuple[str, ...]
"""The fields of a quote, in order, without gaps: nodes.records.QUOTE. Those of the records: native.chain.RECORD_FIELDS."""

class Stop(enum.IntFlag):
    """Why ``QuotePricer.take`` came to an end before the last quote; codes above 0 are those of native.black.Status."""

    ALL_TAKEN = -1
    NOT_AN_OPEN_OPTION = -2
    EMPTY = -3
    NO_FORWARD = -4

@disjoint_base
class QuotePricer:
    """Prices quotes of options from and into the columns of ``slots`` and ``forwards`` (dicts of arrays, by the names in
    ``columns`` and ``forward_columns``), which are used where they lie: whoever replaces one makes a new QuotePricer.
    ``slot_of`` is instrument to slot. ``stale_flag`` marks records of stale quotes or forwards, ``last`` all.
    """

    columns: tuple[str, ...]
    forward_columns: tuple[str, ...]
    row: int
    """The first quote that ``take`` has not dealt with."""
    written: int
    """How many records it wrote."""
    slot: int
    """Of the quote that it stopped at; -1 if it is not defined."""

    def __init__(
        self,
        slot_of: dict[int, int],
        slots: dict[str, npt.NDArray[Any]],
        forwards: dict[str, npt.NDArray[Any]],
        *,
        call: int,
        put: int,
        stale_flag: int,
        last: int,
    ) -> None: ...
    def defined(self, quotes: npt.NDArray[np.void]) -> bool:
        """Are the instruments of all these quotes defined?"""

    def take(
        self, quotes: npt.NDArray[np.void], begin: int, end: int, stale: bool, records: npt.NDArray[np.void]
    ) -> int:
        """Price the quotes from row ``begin`` up to ``end`` into ``records`` (room for as many; from its beginning), up to
        the first one that is not of an open option or has no volatility. All but the first kind are dealt with then:
        ``row`` is behind it. Returns a ``Stop``, or why there is no volatility (native.black.Status, of the ask if there is
        one). TypeError, IndexError if something does not fit.
        """
