"""The node ``surface``: an SVI slice for each expiry, fitted again as its volatilities move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fabric.errors import ConfigError
from fabric.records import Flags, Records
from fabric.runtime.node import Node
from fabric.runtime.ports import Input, InputPort, Output
from fabric.units import Duration
from native.svi import Status
from nodes.columns import Columns, Held
from nodes.records import InstrumentState, Kind, SurfaceState
from nodes.volsurface import FittedSlice, VolSurface

_STALE, _LAST = int(Flags.STALE), int(Flags.LAST_IN_EVENT)
_FEWEST = 5
_COUNTS = ("rounds", "fits", "fits_for_the_one_before", "too_few", "not_converged", "raised", "arbitrage", "expired")


class Surface(Node):
    """Greeks in; a slice of each expiry whose volatilities or forward moved out, at most one every ``interval``.

    Time is that of the venue: the newest ts_event_ns that came. When it enters the next interval, all expiries that
    moved are fitted, in order of expiry, from what was known before that record; so what is published follows from the
    sequence of the greeks, however they came in batches. What moved since the last round is fitted when the greeks end.

    The out-of-the-money option of each strike is fitted, if its last greeks have a volatility of bid and of ask. A slice
    keeps above that of the expiry before it; where a new one rises above a later one, that is fitted again as well.
    """

    instrument = Input("instrument")
    greeks = Input("greeks")
    surface = Output("surface")

    interval: Duration = Duration("1s")
    min_strikes: int = 8
    arbitrage_free: bool = True

    def on_start(self) -> None:
        if self.interval <= 0:
            raise ConfigError("must be above 0", key=f"nodes.{self.name}.interval")
        if self.min_strikes < _FEWEST:
            raise ConfigError(
                f"must be at least {_FEWEST}: a slice has as many parameters", key=f"nodes.{self.name}.min_strikes"
            )
        self._options = Columns(
            instrument="u4", chain="i8", strike="f8", call="?", open="?", bid_iv="f8", ask_iv="f8", stale="?"
        )
        self._chains = Columns(expiry_ns="i8", forward="f8", event_ns="i8", origin_ns="i8", moved="?")
        self._underlyings: list[str] = []
        """By chain."""
        self._slot_of: dict[int, int] = {}
        self._others: set[int] = set()
        """Instruments that are defined and no options."""
        self._surfaces: dict[str, VolSurface] = {}
        self._held = Held()
        self._now_ns = self._due_ns = 0
        self._counts = dict.fromkeys(_COUNTS, 0)

    # What comes in

    def on_records(self, channel: InputPort, records: Records, now_ns: int) -> None:
        if channel is self.instrument:
            for definition in records:
                self._define(definition)
        else:
            self._take_in_time(records)

    def on_ended(self, channel: InputPort, now_ns: int) -> None:
        if channel is self.greeks:
            self._round()

    def _define(self, definition: Records) -> None:
        instrument, kind = int(definition["instrument"]), int(definition["kind"])
        waiting = self._held.take(instrument)
        if kind not in (Kind.CALL, Kind.PUT):
            self._others.add(instrument)
            return
        underlying = bytes(definition["underlying"]).decode("ascii", "replace")
        values: dict[str, Any] = {
            "chain": self._chain(underlying, int(definition["expiry_ns"])),
            "strike": float(definition["strike"]),
            "call": kind == Kind.CALL,
            "open": int(definition["state"]) == InstrumentState.OPEN,
        }
        slot = self._slot_of.get(instrument)
        if slot is None:
            slot = self._slot_of[instrument] = self._options.add(
                instrument=instrument, bid_iv=np.nan, ask_iv=np.nan, **values
            )
        elif any(self._options[name][slot] != value for name, value in values.items()):
            self._chains["moved"][self._options["chain"][slot]] = True
            for name, value in values.items():
                self._options[name][slot] = value
            self._chains["moved"][values["chain"]] = True
        if waiting is not None:
            self._take(waiting)

    def _chain(self, underlying: str, expiry_ns: int) -> int:
        expiries = self._chains["expiry_ns"].tolist()
        for chain, key in enumerate(zip(self._underlyings, expiries, strict=True)):
            if key == (underlying, expiry_ns):
                return chain
        self._underlyings.append(underlying)
        self._surfaces.setdefault(underlying, VolSurface(arbitrage_free=self.arbitrage_free))
        return self._chains.add(expiry_ns=expiry_ns, forward=np.nan)

    def _take_in_time(self, records: Records) -> None:
        """Up to the record that enters the next interval; a round; and so on."""
        while len(records):
            reached = np.maximum.accumulate(np.maximum(records["ts_event_ns"], self._now_ns))
            if not self._due_ns:
                self._due_ns = self._next(int(reached[0]))
            before = int(np.searchsorted(reached, self._due_ns))
            if before:
                self._now_ns = int(reached[before - 1])
                self._take(records[:before])
            if before < len(records):
                self._round()
                self._due_ns = self._next(int(reached[before]))
            records = records[before:]

    def _next(self, event_ns: int) -> int:
        return (event_ns // self.interval + 1) * self.interval

    def _take(self, records: Records) -> None:
        slots = np.array([self._slot_of.get(i, -1) for i in records["instrument"].tolist()], np.int64)
        for row in np.flatnonzero(slots < 0).tolist():
            if int(records["instrument"][row]) not in self._others:
                self._held.keep(records[row : row + 1])
        records, slots = records[slots >= 0], slots[slots >= 0]
        if not len(slots):
            return
        options, chains = self._options, self._chains
        stale = (records["flags"] & _STALE != 0) | self.greeks.stale
        of = options["chain"][slots]
        moved = chains["forward"][of] != records["forward"]
        for name in ("bid_iv", "ask_iv"):
            old, new = options[name][slots], records[name]
            moved |= (old != new) & ~(np.isnan(old) & np.isnan(new))
            options[name][slots] = new
        options["stale"][slots] = stale
        chains["forward"][of] = records["forward"]  # of several the last one counts: numpy assigns in order
        np.maximum.at(chains["event_ns"], of, records["ts_event_ns"])
        origins = records["ts_origin_ns"]
        for chain, origin in zip(of[moved].tolist(), origins[moved].tolist(), strict=True):
            known = int(chains["origin_ns"][chain])  # the oldest since the last fit
            chains["origin_ns"][chain] = min(known, origin) if known and origin else known or origin
        chains["moved"][of[moved]] = True

    # What goes out

    def _round(self) -> None:
        """Fit what moved, underlying by underlying and by expiry."""
        chains = self._chains
        expiries, moved = chains["expiry_ns"].tolist(), chains["moved"].tolist()
        if not any(moved):
            return
        self._counts["rounds"] += 1
        out: list[tuple[int, FittedSlice, int, int]] = []
        for underlying, surface in self._surfaces.items():
            self._counts["expired"] += surface.drop_expired(self._now_ns)
            of = [chain for chain, name in enumerate(self._underlyings) if name == underlying]
            for chain in sorted(of, key=expiries.__getitem__):
                follows = not moved[chain] and self._is_crossed(surface, expiries[chain])
                if moved[chain] or follows:
                    chains["moved"][chain] = False
                    self._counts["fits_for_the_one_before"] += follows
                    found = self._fit(surface, chain)
                    if found is not None:
                        out.append((chain, *found))
        if out:
            self._publish(out)
        chains["origin_ns"][[chain for chain, was in enumerate(moved) if was]] = 0

    def _is_crossed(self, surface: VolSurface, expiry_ns: int) -> bool:
        if not self.arbitrage_free or expiry_ns not in surface.slices:
            return False
        gap = surface.gap(expiry_ns, self._now_ns)
        return gap is not None and gap.value < 0

    def _fit(self, surface: VolSurface, chain: int) -> tuple[FittedSlice, int, int] | None:
        """The slice, its state and flags; None if there is nothing to publish."""
        options = self._options
        expiry_ns, forward = int(self._chains["expiry_ns"][chain]), float(self._chains["forward"][chain])
        if expiry_ns <= self._now_ns or not forward > 0:
            return None
        members = (options["chain"] == chain) & options["open"] & (options["call"] == (options["strike"] >= forward))
        members &= (options["bid_iv"] > 0) & (options["ask_iv"] >= options["bid_iv"])
        stale = _STALE if options["stale"][members].any() else 0
        if np.count_nonzero(members) >= self.min_strikes:
            points = (options[name][members] for name in ("strike", "bid_iv", "ask_iv"))
            found = surface.fit(expiry_ns, self._now_ns, forward, *points)
            if found.status != Status.TOO_FEW:
                self._counts["fits"] += 1
                return found, int(self._judge(found)), stale
        self._counts["too_few"] += 1
        last = surface.slices.get(expiry_ns)
        return None if last is None else (last, int(SurfaceState.TOO_FEW), _STALE)

    def _judge(self, found: FittedSlice) -> SurfaceState:
        state = SurfaceState(0)
        if found.status == Status.NOT_CONVERGED:
            state |= SurfaceState.NOT_CONVERGED
            self._counts["not_converged"] += 1
        if found.status == Status.RAISED:
            state |= SurfaceState.RAISED
            self._counts["raised"] += 1
        if found.min_g < 0:
            state |= SurfaceState.BUTTERFLY
        if found.min_gap < 0:
            state |= SurfaceState.CALENDAR
        self._counts["arbitrage"] += bool(state & (SurfaceState.BUTTERFLY | SurfaceState.CALENDAR))
        return state

    def _publish(self, out: list[tuple[int, FittedSlice, int, int]]) -> None:
        """One event."""
        view = self.surface.reserve(len(out))
        for row, (chain, found, state, flags) in zip(view, out, strict=True):
            row["ts_event_ns"] = self._chains["event_ns"][chain]
            row["ts_origin_ns"] = self._chains["origin_ns"][chain]
            row["flags"] = flags
            row["underlying"] = self._underlyings[chain].encode()
            for name in ("expiry_ns", "forward", "years", "low", "high", "rmse", "strikes", "inside", "passes",
                         "min_g", "min_g_at", "min_gap", "min_gap_at"):  # fmt: skip
                row[name] = getattr(found, name)
            for name, value in found.params._asdict().items():
                row[name] = value
            row["state"] = state
        view["flags"][-1] |= _LAST

    # What is kept

    def report(self) -> dict[str, Any]:
        """Counts, and the last slice of each expiry: the root mean square error in points."""
        return {
            **self._counts,
            "held": self._held.held,
            "awaiting_definition": len(self._held),
            "slices": {
                underlying: [
                    {
                        "expiry_ns": each.expiry_ns,
                        "strikes": each.strikes,
                        "inside": each.inside,
                        "rmse_points": round(100.0 * each.rmse, 4),
                        "status": each.status.name.lower(),
                        "min_g": each.min_g,
                        "min_gap": None if np.isnan(each.min_gap) else each.min_gap,
                    }
                    for each in surface.slices.values()
                ]
                for underlying, surface in self._surfaces.items()
            },
        }

    def checkpoint(self) -> dict[str, Any]:
        return {
            "options": self._options.checkpoint(),
            "chains": self._chains.checkpoint(),
            "underlyings": list(self._underlyings),
            "others": sorted(self._others),
            "surfaces": {name: surface.checkpoint() for name, surface in self._surfaces.items()},
            "held": self._held.checkpoint(),
            "now_ns": self._now_ns,
            "due_ns": self._due_ns,
            "counts": dict(self._counts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._options.restore(state["options"])
        self._chains.restore(state["chains"])
        self._underlyings = list(state["underlyings"])
        self._others = set(state["others"])
        self._slot_of = {instrument: slot for slot, instrument in enumerate(self._options["instrument"].tolist())}
        self._surfaces = {}
        for name, kept in state["surfaces"].items():
            self._surfaces[name] = VolSurface(arbitrage_free=self.arbitrage_free)
            self._surfaces[name].restore(kept)
        self._held.restore(state["held"], self.greeks.record.dtype)
        self._now_ns, self._due_ns = int(state["now_ns"]), int(state["due_ns"])
        self._counts = dict(state["counts"])
