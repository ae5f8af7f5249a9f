"""The volatility surface of one underlying: a raw SVI slice for each expiry, and what lies between them.

native.svi has the formulas, what is checked and where; docs/surface.md the conventions and measured figures.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from native import svi
from native.svi import Status
from nodes.venue_check import YEAR_NS

Floats = npt.NDArray[np.float64]
_NARROWEST = 0.0025
"""A quarter of a point: a spread of volatilities below it tells nothing more about where between them the market is."""
_WORSE = 0.005
"""Of the mean total variance: a warm fit whose error has doubled, and grown by this, is tried again from nothing."""
_WIDER = 0.25
"""Of the strikes' range in k, on either side: as far beyond the strikes a slice is checked."""


@dataclass(frozen=True, slots=True)
class FittedSlice:
    """One expiry as it was fitted. Between fits it keeps its volatilities, by k = ln(strike / forward)."""

    expiry_ns: int
    as_of_ns: int
    years: float
    """From then to expiry, ACT/365."""
    forward: float
    params: svi.Slice
    """Of total variance, volatility^2 x ``years``."""
    status: Status
    strikes: int
    """How many the fit used: those with a volatility of bid and of ask."""
    inside: int
    """Of these, how many the slice passes between bid and ask."""
    rmse: float
    """Root of the mean squared distance to the mid volatilities, unweighted: 0.01 is one point."""
    rms: float
    """What the fit made small: the weighted one, in total variance."""
    passes: int
    """Over the strikes, of the fit."""
    low: float
    high: float
    """The strikes' range in k and a quarter of it more on either side: calendar arbitrage is looked for where the ranges
    of a slice and of the one before overlap; butterfly arbitrage everywhere."""
    min_g: float
    min_g_at: float
    min_gap: float
    """The smallest total variance above the slice before, at the time of the fit; NaN for the first."""
    min_gap_at: float

    def variance(self, k: npt.ArrayLike, years: float) -> Floats:
        """Total variance at k, ``years`` before expiry."""
        return np.asarray(svi.total_variance(self.params, np.asarray(k, np.float64))) * (years / self.years)

    def scaled(self, years: float) -> svi.Slice:
        """The same, as parameters."""
        by, of = years / self.years, self.params
        return svi.Slice(of.a * by, of.b * by, of.rho, of.m, of.sigma)


class VolSurface:
    """Slices by expiry, each fitted from the last one of its expiry, above that of the expiry before.

    With ``arbitrage_free``, a fit is free of butterfly arbitrage and not below the earlier slice where both are checked,
    or its status says what it is. A later slice that a new fit rises above is named by ``crossed``: fit it again.
    """

    def __init__(self, *, arbitrage_free: bool = True) -> None:
        self.arbitrage_free = arbitrage_free
        self.slices: dict[int, FittedSlice] = {}
        """By expiry_ns, ascending."""

    def fit(
        self,
        expiry_ns: int,
        now_ns: int,
        forward: float,
        strikes: npt.ArrayLike,
        bid_iv: npt.ArrayLike,
        ask_iv: npt.ArrayLike,
    ) -> FittedSlice:
        """Fit an expiry to its out-of-the-money options, one for each strike; NaN where a side has no volatility: only
        strikes with both count. Each strike's weight is (vega / spread of prices)^2, which is 1 / (spread of volatilities)^2.
        The slice is kept, unless there are too few strikes: then that of before stays."""
        years = (expiry_ns - now_ns) / YEAR_NS
        if not (years > 0 and forward > 0 and math.isfinite(forward)):
            raise ValueError(
                f"the time to expiry and the forward must be above 0: they are {years} years and {forward}"
            )
        strike, bid, ask = (np.asarray(each, np.float64) for each in (strikes, bid_iv, ask_iv))
        if not (strike.ndim == 1 and strike.shape == bid.shape == ask.shape):
            raise ValueError("strikes, bid_iv and ask_iv must be one-dimensional and equally long")
        usable = (strike > 0) & (bid > 0) & (ask >= bid) & np.isfinite(ask) & np.isfinite(strike)
        k, bid, ask = np.log(strike[usable] / forward), bid[usable], ask[usable]
        fitted = self._fit(expiry_ns, now_ns, years, float(forward), k, bid, ask)
        if fitted.status != Status.TOO_FEW:
            self.slices[expiry_ns] = fitted
            self.slices = dict(sorted(self.slices.items()))
        return fitted

    def _fit(
        self, expiry_ns: int, now_ns: int, years: float, forward: float, k: Floats, bid: Floats, ask: Floats
    ) -> FittedSlice:
        mid = 0.5 * (bid + ask)
        variance = mid * mid * years
        # d(variance) = 2 vol years d(vol): to first order, this fits volatilities
        weight = (np.maximum(ask - bid, _NARROWEST) * mid * years) ** -2.0
        before, floor = self.slices.get(expiry_ns), self._before(expiry_ns, now_ns)
        low, high = _checked(k)
        known: dict[str, Any] = {"arbitrage_free": self.arbitrage_free, "low": low, "high": high}
        if floor is not None and (shared := _shared(low, high, floor)) is not None:
            known["low"], known["high"] = shared
            known["floor"] = floor.scaled((floor.expiry_ns - now_ns) / YEAR_NS)
        start = None if before is None else before.scaled(years)
        found = svi.fit(k, variance, weight, start=start, **known)
        passes = found.passes
        if before is not None and _is_poor(found, before.rms, variance):
            cold = svi.fit(k, variance, weight, **known)
            passes += cold.passes
            if (cold.status, cold.rms) < (found.status, found.rms):
                found = cold
        vol = np.full(len(k), np.nan)
        if found.status != Status.TOO_FEW:
            vol = np.sqrt(svi.total_variance(found.slice, k) / years)
        return FittedSlice(
            expiry_ns, now_ns, years, forward, found.slice, found.status, found.points,
            int(np.count_nonzero((vol >= bid) & (vol <= ask))), _root_mean_square(vol - mid), found.rms, passes,
            low, high, found.min_g, found.min_g_at, found.min_gap, found.min_gap_at,
        )  # fmt: skip

    def _before(self, expiry_ns: int, now_ns: int) -> FittedSlice | None:
        """The slice of the last expiry before this one that has not expired."""
        earlier = [other for other in self.slices if now_ns < other < expiry_ns]
        return self.slices[earlier[-1]] if earlier else None

    def gap(self, expiry_ns: int, now_ns: int) -> svi.Calendar | None:
        """How far this slice is above the one before now, where both are checked; None for the first."""
        floor = self._before(expiry_ns, now_ns)
        if floor is None:
            return None
        of = self.slices[expiry_ns]
        shared = _shared(of.low, of.high, floor)
        if shared is None:
            return None
        one, other = (each.scaled((each.expiry_ns - now_ns) / YEAR_NS) for each in (floor, of))
        return svi.calendar(one, other, *shared)

    def crossed(self, now_ns: int) -> list[int]:
        """Expiries whose slice is somewhere below the one before it."""
        gaps = {expiry: self.gap(expiry, now_ns) for expiry in self.slices if expiry > now_ns}
        return [expiry for expiry, gap in gaps.items() if gap is not None and gap.value < 0]

    def vol(self, strike: npt.ArrayLike, expiry_ns: int, now_ns: int, forward: float | None = None) -> Any:
        """Volatility of a strike (or an array) at any expiry after now; NaN while there is no slice.

        Between two expiries total variance is linear in time at the same k = ln(strike / forward), so that it never falls
        with time where the slices do not cross; before the first and after the last, volatility at the same k is constant.
        ``forward``: that of the expiry; if it is not given, the slice's, or between two log-linear in time.
        """
        years = (expiry_ns - now_ns) / YEAR_NS
        expiries = [each for each in self.slices if each > now_ns]
        if not expiries or not years > 0:
            return np.full(np.shape(strike), np.nan)[()]
        position = bisect_left(expiries, expiry_ns)
        near, far = (self.slices[expiries[min(max(i, 0), len(expiries) - 1)]] for i in (position - 1, position))
        if near.expiry_ns == far.expiry_ns or far.expiry_ns == expiry_ns or expiry_ns < near.expiry_ns:
            near = far
        share = 0.0 if near is far else (expiry_ns - near.expiry_ns) / (far.expiry_ns - near.expiry_ns)
        if forward is None:
            forward = near.forward * (far.forward / near.forward) ** share
        k = np.log(np.asarray(strike, np.float64) / forward)
        if near is far:
            return np.sqrt(near.variance(k, near.years) / near.years)[()]
        one, other = (each.variance(k, (each.expiry_ns - now_ns) / YEAR_NS) for each in (near, far))
        return np.sqrt(((1.0 - share) * one + share * other) / years)[()]

    def drop_expired(self, now_ns: int) -> int:
        """Forget the slices of expiries up to now; returns how many."""
        count = bisect_right(list(self.slices), now_ns)
        self.slices = dict(list(self.slices.items())[count:])
        return count

    def checkpoint(self) -> dict[str, Any]:
        """Plain data; ``restore`` gives the same to the bit."""
        rows = [asdict(each) for each in self.slices.values()]
        return {"slices": [row | {"params": list(row["params"]), "status": int(row["status"])} for row in rows]}

    def restore(self, state: Mapping[str, Any]) -> None:
        rows = [
            FittedSlice(**{**row, "params": svi.Slice(*row["params"]), "status": Status(row["status"])})
            for row in state["slices"]
        ]
        self.slices = {row.expiry_ns: row for row in rows}


def _checked(k: Floats) -> tuple[float, float]:
    """Where a fit to these strikes is checked."""
    if not len(k):
        return -1.0, 1.0
    low, high = float(k.min()), float(k.max())
    wider = max(_WIDER * (high - low), 1e-6)
    return low - wider, high + wider


def _is_poor(warm: svi.Fit, before: float, variance: Floats) -> bool:
    """The market may have jumped away from the last slice, or the descent is stuck."""
    return warm.status != Status.CONVERGED or warm.rms > 2.0 * before + _WORSE * float(variance.mean())


def _shared(low: float, high: float, floor: FittedSlice) -> tuple[float, float] | None:
    """Where both are checked: beyond a slice's own strikes its wing is a guess, and no floor for one that has quotes."""
    low, high = max(low, floor.low), min(high, floor.high)
    return (low, high) if low < high else None


def _root_mean_square(values: Floats) -> float:
    return math.sqrt(float(np.mean(values * values))) if len(values) else math.nan
