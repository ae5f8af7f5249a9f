"""How far our greeks are from those that a venue publishes itself, computed from its own forward and volatility."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.records import Records
from native import black

MEASURES = ("delta", "vega", "theta", "mark_price")
YEAR_NS = 365 * 86_400 * 10**9
_DAY_NS = 86_400 * 10**9
_LEAST_EXPIRY_NS = 2 * _DAY_NS
_KEPT = 20_000


class VenueCheck:
    """Relative differences of the last 20,000 comparisons of each measure; counts are of all.

    The venue's units are Deribit's: vega per 1 %, theta a day, mark_price in coin for inverse options. Its theta is
    ruled otherwise in the last two days before expiry (scaled by the days left, bounded by the option's value), so
    options with less are left out of all four measures. So are values of zero, which say nothing relative; the rest is
    limited by the venue's rounding.
    """

    def __init__(self) -> None:
        self._counts = dict.fromkeys(MEASURES, 0)
        self._last: dict[str, npt.NDArray[np.float64]] = {name: np.zeros(_KEPT) for name in MEASURES}

    def compare(
        self,
        marks: Records,
        strike: npt.NDArray[np.float64],
        expiry_ns: npt.NDArray[np.int64],
        is_call: npt.NDArray[np.bool_],
        inverse: npt.NDArray[np.bool_],
    ) -> None:
        """Take marks of options together with what their definitions say."""
        left_ns = expiry_ns - marks["ts_event_ns"]
        usable = (left_ns >= _LEAST_EXPIRY_NS) & (marks["forward"] > 0) & (marks["mark_iv"] > 0)
        if not usable.any():
            return
        marks, inverse = marks[usable], inverse[usable]
        forward = np.ascontiguousarray(marks["forward"])
        ours = black.greeks(forward, strike[usable], left_ns[usable] / YEAR_NS, marks["mark_iv"], is_call[usable])
        self._add("delta", ours.delta, marks["delta"])
        self._add("vega", ours.vega / 100.0, marks["vega"])
        self._add("theta", ours.theta / 365.0, marks["theta"])
        self._add("mark_price", np.where(inverse, ours.price / forward, ours.price), marks["mark_price"])

    def _add(self, name: str, ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> None:
        told = np.isfinite(theirs) & (theirs != 0.0)
        differences = np.abs(ours[told] / theirs[told] - 1.0)
        first = self._counts[name]
        self._counts[name] += len(differences)
        places = np.arange(first, first + len(differences))[-_KEPT:]
        self._last[name][places % _KEPT] = differences[-_KEPT:]

    def report(self) -> dict[str, dict[str, float | int | None]]:
        """``{"delta": {"count": n, "median_relative": x}, ...}``; None where nothing was compared."""
        return {
            name: {"count": count, "median_relative": float(np.median(self._last[name][:count])) if count else None}
            for name, count in self._counts.items()
        }

    def checkpoint(self) -> dict[str, Any]:
        return {
            "counts": dict(self._counts),
            "last": {name: self._last[name][:count].copy() for name, count in self._counts.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for name in MEASURES:
            self._counts[name] = int(state["counts"][name])
            last = np.asarray(state["last"][name], np.float64)
            self._last[name][: len(last)] = last
