"""Choosing records by their instrument's symbol, after gap detection: a filtered wire would see gaps by definition."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from fabric.records import Records


class SymbolFilter:
    """Which instrument ids match the patterns; learns from definition records."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = patterns
        self._matches: dict[int, bool] = {}

    def learn(self, definitions: Records) -> None:
        ids, symbols = definitions["instrument"].tolist(), definitions["symbol"].tolist()
        for instrument, symbol in zip(ids, symbols, strict=True):
            name = symbol.decode("ascii", "replace")
            self._matches[instrument] = any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def unknown(self, records: Records) -> bool:
        """Is there a record of an instrument that is not defined yet? (0 is no instrument.)"""
        return any(each and each not in self._matches for each in np.unique(records["instrument"]).tolist())

    def choose(self, records: Records) -> npt.NDArray[np.intp]:
        """Positions of the records that match, ascending."""
        ids = records["instrument"]
        wanted = [each for each in np.unique(ids).tolist() if self._matches.get(each, False)]
        return np.flatnonzero(np.isin(ids, wanted))
