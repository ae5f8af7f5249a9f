"""Exposure of a book of positions, by underlying and in total; limits; profit over a grid of market moves."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.errors import ConfigError, InputFileError
from fabric.records import Flags, Records
from fabric.runtime.node import Node
from fabric.runtime.ports import Input, InputPort, Output
from fabric.units import parse_duration_ns
from nodes.columns import Held
from nodes.positions import SUMS, Positions, read_positions

MEASURES = (*SUMS, "stale_delta", "stale_vega", "worst_pnl")
TOTAL = "total"
_LAST = int(Flags.LAST_IN_EVENT)
Exposure = dict[str, float | int]
Key = int | None
"""An underlying's index in Positions, or None: the total of all."""


class Risk(Node):
    """Greeks in; sums over the positions out, after each batch of greeks that matters to one.

    Positions come from a CSV file (``symbol,quantity``) and are joined to instruments by symbol. An option counts
    from its first greeks on, a future, perpetual or spot from its definition on (value 0, delta 1 a unit). All sums are
    quantity x multiplier x what the greeks say, in their units.

    ``limits``: underlying (or "total") to measure (a field of RISK) to the largest absolute value; a breach is
    published when a limit is crossed and when it is kept again. The grid revalues all positions of an underlying every
    ``grid_interval``: spot moves are fractions of the forward, vol moves amounts of volatility (0.1: 10 points); the
    total's cells take the same move in all underlyings. Its worst profit goes into the risk records.
    """

    instrument = Input("instrument")
    greeks = Input("greeks")
    risk = Output("risk")
    breach = Output("breach")
    grid = Output("grid", optional=True)

    positions: Path
    limits: dict[str, dict[str, float]] = {}  # noqa: RUF012 (never changed)
    grid_spot_moves: list[float] = [-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2]  # noqa: RUF012
    grid_vol_moves: list[float] = [-0.1, 0.0, 0.1]  # noqa: RUF012
    grid_interval: str = "1s"

    def on_start(self) -> None:
        self._check_limits()
        try:
            self.timer_ns = parse_duration_ns(self.grid_interval)
        except ValueError as error:
            raise ConfigError(str(error), key=f"nodes.{self.name}.grid_interval") from None
        self._spot_moves = np.array(self.grid_spot_moves, np.float64)
        self._vol_moves = np.array(self.grid_vol_moves, np.float64)
        self._book = Positions(read_positions(self.positions))
        self._held = Held()
        self._active: set[str] = set()
        """Limits that are crossed now, as "underlying/measure"."""
        self._breaches = 0
        self._worst: dict[str, tuple[float, float]] = {}
        """Of each underlying's last grid: the worst profit and the spot move it comes from."""
        self._changed = False
        """Something was priced since the last grid."""

    def _check_limits(self) -> None:
        for underlying, measures in self.limits.items():
            for measure, limit in measures.items():
                key = f"nodes.{self.name}.limits.{underlying}.{measure}"
                if measure not in MEASURES:
                    close = difflib.get_close_matches(measure, MEASURES, n=1)
                    remedy = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(MEASURES)}"
                    raise ConfigError(f"{measure!r} is not a measure of risk", key=key, remedy=remedy)
                if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
                    raise ConfigError(f"{limit!r} is not a limit", key=key, remedy="a number that is not negative")

    def on_records(self, channel: InputPort, records: Records, now_ns: int) -> None:
        if channel is self.instrument:
            for definition in records:
                self._book.define(definition)
                self._changed = True
                waiting = self._held.take(int(definition["instrument"]))
                if waiting is not None:
                    self._take_greeks(waiting)
        elif not self._take_known(records):
            known = np.array([self._book.known(i) for i in records["instrument"].tolist()])
            for row in np.flatnonzero(~known):
                self._held.keep(records[row : row + 1])
            self._take_greeks(records[known])

    def _take_known(self, records: Records) -> bool:
        """The usual case: greeks of known instruments, natively. False where it takes more than that."""
        exposures = self._book.exposures()
        count = exposures.take(records)
        if count <= 0:
            return count == 0
        self._changed = True
        view = self.risk.reserve(count + 1, blank=False)
        keys: list[Key] = [*exposures.touched, None]
        for position, key in enumerate(keys):
            label = self._label(key)
            worst = self._worst.get(label, (0.0, 0.0))
            exposures.fill(view, position, -1 if key is None else position, self._name(key), *worst)
            if label in self.limits:
                self._compare(key, view[position : position + 1])
        view[-1:]["flags"] |= _LAST
        return True

    def _take_greeks(self, records: Records) -> None:
        rows, places = self._book.update(records)
        if not len(rows):
            return
        self._changed = True
        causes = records[rows]
        of = self._book.rows["underlying"][places]
        keys: list[Key] = [int(i) for i in np.unique(of)]
        self._publish({key: causes[of == key] for key in keys} | {None: causes})

    def on_timer(self, now_ns: int) -> None:
        """The grid, and the risk records with its worst outcome; nothing if nothing was priced since the last one."""
        book = self._book
        if not self._changed or not book.rows["priced"].any():
            return
        self._changed = False
        keys: list[Key] = [int(i) for i in np.unique(book.rows["underlying"][book.rows["priced"]])]
        grids = {key: book.revalue(key, self._spot_moves, self._vol_moves) for key in keys if key is not None}
        total = (sum(value for value, _ in grids.values()), sum(profit for _, profit in grids.values()))
        if len(self._spot_moves) and len(self._vol_moves):
            for key, (value, profit) in [*grids.items(), (None, total)]:
                cells = self._publish_grid(key, np.asarray(value), np.asarray(profit))
            cells["flags"][-1] |= Flags.LAST_IN_EVENT
        nothing = self.greeks.record.zeros(0)
        self._publish(dict.fromkeys([*keys, None], nothing))

    def _publish_grid(self, key: Key, value: npt.NDArray[np.float64], profit: npt.NDArray[np.float64]) -> Records:
        if not np.isnan(profit).all():
            worst = int(np.nanargmin(profit))
            self._worst[self._label(key)] = (
                float(profit.flat[worst]),
                float(self._spot_moves[worst // len(self._vol_moves)]),
            )
        view = self.grid.reserve(profit.size)
        row, column = np.indices(profit.shape)
        view["underlying"] = self._name(key)
        view["row"], view["column"] = row.ravel(), column.ravel()
        view["spot_move"], view["vol_move"] = self._spot_moves[row.ravel()], self._vol_moves[column.ravel()]
        view["value"], view["pnl"] = value.ravel(), profit.ravel()
        self._stamp(view, key, self.greeks.record.zeros(0))
        return view

    def _publish(self, causes: Mapping[Key, Records]) -> None:
        """One event: a risk record for each key, then the breaches that follow from them."""
        view = self.risk.reserve(len(causes))
        for i, (key, cause) in enumerate(causes.items()):
            sums = self._exposure(key)
            row = view[i : i + 1]
            row["underlying"] = self._name(key)
            for name, value in sums.items():
                row[name] = value
            self._stamp(row, key, cause)
            self._compare(key, row)
        view["flags"][-1] |= Flags.LAST_IN_EVENT

    def _stamp(self, view: Records, key: Key, cause: Records) -> None:
        """Head: newest event and oldest origin of the cause (without one, newest event of all); stale if a part is."""
        rows = self._book.rows
        chosen = rows["priced"] if key is None else rows["priced"] & (rows["underlying"] == key)
        events = cause["ts_event_ns"] if len(cause) else rows["ts_event_ns"][chosen]
        origins = cause["ts_origin_ns"][cause["ts_origin_ns"] > 0]
        view["ts_event_ns"] = events.max() if len(events) else 0
        view["ts_origin_ns"] = origins.min() if len(origins) else 0
        if rows["stale"][chosen].any():
            view["flags"] |= np.uint32(Flags.STALE)

    def _compare(self, key: Key, cause: Records) -> None:
        label = self._label(key)
        for measure, limit in self.limits.get(label, {}).items():
            value, mark = cause[measure].item(), f"{label}/{measure}"
            crossed = abs(value) > limit
            if crossed == (mark in self._active):
                continue
            self._breaches += crossed
            (self._active.add if crossed else self._active.discard)(mark)
            fields: dict[str, Any] = {"underlying": self._name(key), "measure": measure.encode()}
            self.breach.append(cause=cause, value=value, limit=limit, active=int(crossed), **fields)

    def _exposure(self, key: Key) -> Exposure:
        sums = self._book.exposure(key)
        sums["worst_pnl"], sums["worst_spot_move"] = self._worst.get(self._label(key), (0.0, 0.0))
        return sums

    def _label(self, key: Key) -> str:
        return TOTAL if key is None else self._book.underlyings[key]

    def _name(self, key: Key) -> bytes:
        return b"" if key is None else self._book.underlyings[key].encode()

    def report(self) -> dict[str, Any]:
        """The latest sums by underlying, and how positions and limits stand."""
        book = self._book
        used = np.unique(book.rows["underlying"])
        return {
            "by_underlying": {book.underlyings[i]: self._exposure(int(i)) for i in used[used >= 0]},
            "total": self._exposure(None),
            "breaches": self._breaches,
            "breached_now": sorted(self._active),
            "undefined_symbols": [
                symbol for symbol, i in zip(book.symbols, book.rows["underlying"], strict=True) if i < 0
            ],
            "held": self._held.held,
            "awaiting_definition": len(self._held),
        }

    def checkpoint(self) -> dict[str, Any]:
        return {
            "book": self._book.checkpoint(),
            "held": self._held.checkpoint(),
            "active": sorted(self._active),
            "breaches": self._breaches,
            "worst": {name: list(worst) for name, worst in self._worst.items()},
            "changed": self._changed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        if not self._book.restore(state["book"]):
            raise InputFileError(
                "the positions are not those of the run that is resumed", file=self.positions,
                remedy='restore the file, or start with resume = "fresh"',
            )  # fmt: skip
        self._held.restore(state["held"], self.greeks.record.dtype)
        self._active, self._breaches = set(state["active"]), int(state["breaches"])
        self._worst = {name: (float(pnl), float(move)) for name, (pnl, move) in state["worst"].items()}
        self._changed = bool(state["changed"])
