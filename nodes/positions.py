"""Positions of a book: read from a file, joined to instruments by symbol, valued by the last greeks of each."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import InputFileError
from fabric.records import Flags, Records
from native import black
from native.exposure import Exposures
from nodes.columns import Columns
from nodes.records import InstrumentState, Kind

YEAR_NS = 365 * 86_400 * 10**9
SUMS = ("value", "delta", "gamma", "vega", "theta", "rho")
_GREEKS = ("forward", "iv", "price", "delta", "gamma", "vega", "theta", "rho")
_HEADER = ["symbol", "quantity"]
_FORMAT = "two columns: symbol,quantity"


def read_positions(path: Path) -> dict[str, float]:
    """Symbol to quantity, in the order of the file (CSV with the header ``symbol,quantity``)."""
    positions: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip().lower() for name in next(rows, [])]
            if header != _HEADER:
                raise InputFileError(
                    f"the header is {','.join(header)!r}", file=path, line=1, remedy=f"write {_FORMAT}"
                )
            for row in rows:
                if any(cell.strip() for cell in row):
                    symbol, quantity = _position(row, path, rows.line_num)
                    if symbol in positions:
                        remedy = "add the quantities up in one line"
                        raise InputFileError(f"{symbol!r} is there twice", file=path, line=rows.line_num, remedy=remedy)
                    positions[symbol] = quantity
    except FileNotFoundError:
        raise InputFileError("no such file", file=path, remedy=f"a CSV file with {_FORMAT}") from None
    except OSError as error:
        raise InputFileError(f"can't be read: {error.strerror}", file=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(f"is not CSV text: {error}", file=path, remedy=f"a CSV file with {_FORMAT}") from None
    return positions


def _position(row: list[str], path: Path, line: int) -> tuple[str, float]:
    if len(row) != 2:
        raise InputFileError(f"has {len(row)} columns, not 2", file=path, line=line, remedy=f"write {_FORMAT}")
    symbol, text = row[0].strip(), row[1].strip()
    if not symbol or len(symbol.encode()) > 32:
        raise InputFileError(f"{symbol!r} can't be a symbol", file=path, line=line, remedy="1 to 32 bytes")
    try:
        quantity = float(text)
    except ValueError:
        quantity = math.nan
    if not math.isfinite(quantity):
        raise InputFileError(f"{text!r} is not a number", file=path, line=line, remedy="a quantity such as -12.5")
    return symbol, quantity


class Positions:
    """One row a position; underlyings by index, in the order in which definitions named them."""

    def __init__(self, quantities: Mapping[str, float]) -> None:
        self.rows = Columns(
            **dict.fromkeys(("quantity", "multiplier", "strike", *_GREEKS), "f8"),
            **dict.fromkeys(("underlying", "expiry_ns", "ts_event_ns", "ts_origin_ns"), "i8"),
            **dict.fromkeys(("option", "call", "priced", "stale", "carried"), "?"),
        )
        self.symbols = list(quantities)
        for quantity in quantities.values():
            self.rows.add(quantity=quantity, underlying=-1)
        self._row_of_symbol = {symbol: row for row, symbol in enumerate(self.symbols)}
        self.underlyings: list[str] = []
        self.forwards = Columns(forward="f8")
        """The last forward seen of each underlying: what futures are revalued at."""
        self._instruments: dict[int, tuple[int, int]] = {}
        """Instrument id to (row of the position or -1, underlying), for every definition seen."""
        self._exposures: Exposures | None = None
        self._exposures_seen = (-1, -1)

    def define(self, definition: Records) -> None:
        """Join one definition (0-dimensional record)."""
        symbol = bytes(definition["symbol"]).decode("utf-8", "replace")
        name = bytes(definition["underlying"]).decode("ascii", "replace")
        if name not in self.underlyings:
            self.underlyings.append(name)
            self.forwards.add(forward=np.nan)
        underlying = self.underlyings.index(name)
        row = self._row_of_symbol.get(symbol, -1)
        self._instruments[int(definition["instrument"])] = (row, underlying)
        if row < 0:
            return
        kind, rows = int(definition["kind"]), self.rows
        option = kind in (Kind.CALL, Kind.PUT)
        opened = int(definition["state"]) == InstrumentState.OPEN
        rows["option"][row], rows["call"][row] = option, kind == Kind.CALL
        rows["underlying"][row] = underlying
        for field in ("multiplier", "strike", "expiry_ns"):
            rows[field][row] = definition[field]
        if not option:  # its delta is its quantity, whatever the market does; it has no value of its own
            rows["delta"][row] = 1.0
        rows["priced"][row] = opened and (rows["priced"][row] or not option)

    def known(self, instrument: int) -> bool:
        return instrument in self._instruments

    def exposures(self) -> Exposures:
        """Takes greeks and sums up as ``update`` and ``exposure`` do, with the same bits, natively."""
        seen = (self.rows.replaced, self.forwards.replaced)
        if self._exposures is None or self._exposures_seen != seen:
            self._exposures = Exposures(
                self._instruments,
                {name: self.rows.whole(name) for name in Exposures.columns},
                self.rows.count,
                self.forwards.whole("forward"),
                stale_flag=int(Flags.STALE),
                carried_flag=int(Flags.VOL_CARRIED),
            )
            self._exposures_seen = seen
        return self._exposures

    def update(self, greeks: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Take greeks of known instruments, in order. Returns which of them are of positions, and the positions."""
        joined = np.array([self._instruments[i] for i in greeks["instrument"].tolist()], np.int64).reshape(-1, 2)
        # an index that occurs twice keeps the last value: numpy assigns in order
        self.forwards["forward"][joined[:, 1]] = greeks["forward"]
        ours = np.flatnonzero(joined[:, 0] >= 0)
        places = joined[ours, 0]
        ours, places = ours[self.rows["option"][places]], places[self.rows["option"][places]]
        taken, rows = greeks[ours], self.rows
        for field in (*_GREEKS, "ts_event_ns", "ts_origin_ns"):
            rows[field][places] = taken[field]
        rows["priced"][places] = np.isfinite(taken["price"])
        rows["stale"][places] = taken["flags"] & Flags.STALE != 0
        rows["carried"][places] = taken["flags"] & Flags.VOL_CARRIED != 0
        return ours, places

    def exposure(self, underlying: int | None) -> dict[str, float | int]:
        """Sums over the priced positions of one underlying (None: of all), by the names of RISK's fields."""
        rows = self.rows
        mine = np.ones(rows.count, bool) if underlying is None else rows["underlying"] == underlying
        chosen = mine & rows["priced"]
        scale = rows["quantity"][chosen] * rows["multiplier"][chosen]
        stale = rows["stale"][chosen]
        sums: dict[str, float | int] = {
            name: float((scale * rows["price" if name == "value" else name][chosen]).sum()) for name in SUMS
        }
        sums["stale_delta"] = float(np.abs(scale * rows["delta"][chosen])[stale].sum())
        sums["stale_vega"] = float(np.abs(scale * rows["vega"][chosen])[stale].sum())
        sums["positions"] = int(mine.sum())
        sums["priced"] = int(chosen.sum())
        sums["stale"] = int(stale.sum())
        sums["carried"] = int(rows["carried"][chosen].sum())
        return sums

    def revalue(
        self, underlying: int, spot_moves: npt.NDArray[np.float64], vol_moves: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Value and profit, shape (spot moves, vol moves), if forwards move by fractions and volatilities by amounts.

        Each option is at the time and forward of its own last greeks, so that no move is exactly no profit.
        """
        rows = self.rows
        shape = (len(spot_moves), len(vol_moves), 1)
        spot, vol = spot_moves[:, None, None], vol_moves[None, :, None]
        mine = (rows["underlying"] == underlying) & rows["priced"]
        options, futures = mine & rows["option"], mine & ~rows["option"]
        scale = rows["quantity"][options] * rows["multiplier"][options]
        expiry = (rows["expiry_ns"][options] - rows["ts_event_ns"][options]) / YEAR_NS
        moved = black.price(
            np.maximum(rows["forward"][options] * (1.0 + spot), 0.0),
            rows["strike"][options],
            expiry,
            np.maximum(rows["iv"][options] + vol, 0.0),
            rows["call"][options],
        )
        value = (scale * np.broadcast_to(moved, (*shape[:2], int(options.sum())))).sum(axis=2)
        profit = (scale * (moved - rows["price"][options])).sum(axis=2)
        if futures.any():
            forward = self.forwards["forward"][underlying]
            held = float((rows["quantity"][futures] * rows["multiplier"][futures]).sum())
            profit = profit + held * forward * spot[:, :, 0]
        return value, profit

    def checkpoint(self) -> dict[str, Any]:
        return {
            "symbols": list(self.symbols),
            "rows": self.rows.checkpoint(),
            "underlyings": list(self.underlyings),
            "forwards": self.forwards.checkpoint(),
            "instruments": np.array([(i, *j) for i, j in self._instruments.items()], np.int64).reshape(-1, 3),
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """False, and nothing is taken over, if the state is of other positions."""
        same = list(state["symbols"]) == self.symbols
        if not same or not np.array_equal(state["rows"]["quantity"], self.rows["quantity"]):
            return False
        self.rows.restore(state["rows"])
        self.underlyings = list(state["underlyings"])
        self.forwards.restore(state["forwards"])
        self._instruments = {
            int(instrument): (int(row), int(underlying)) for instrument, row, underlying in state["instruments"]
        }
        return True
