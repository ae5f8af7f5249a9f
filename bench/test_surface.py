"""SVI slices: one of 50 strikes, cold and warm, with and without checks; a surface of 12 expiries. One core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native import svi
from native.svi import Slice, Status
from nodes.volsurface import VolSurface

DAY_NS = 86_400 * 10**9
NOW = 1_700_000_000 * 10**9
EXPIRIES = [NOW + days * DAY_NS for days in (1, 2, 3, 7, 14, 21, 30, 60, 90, 180, 270, 365)]


@pytest.fixture(scope="module")
def points() -> tuple[Any, Any, Slice]:
    """k, w with a noise of half a percent, and the slice of a tick before."""
    chance = np.random.default_rng(1)
    k = np.linspace(-0.6, 0.6, 50)
    of = Slice(0.02, 0.12, -0.3, 0.02, 0.2)
    w = svi.total_variance(of, k)
    before = svi.fit(k, w * (1 + 0.005 * chance.standard_normal(50))).slice
    return k, w * (1 + 0.005 * chance.standard_normal(50)), before


@pytest.mark.parametrize("arbitrage_free", [False, True], ids=["plain", "arbitrage_free"])
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_slice(benchmark: Any, points: tuple[Any, Any, Slice], start: str, arbitrage_free: bool) -> None:
    k, w, before = points
    from_ = before if start == "warm" else None
    found = benchmark(lambda: svi.fit(k, w, start=from_, arbitrage_free=arbitrage_free))
    assert found.status == Status.CONVERGED
    assert found.rms < 1e-3


def test_slice_that_must_be_repaired(benchmark: Any) -> None:
    """Axel Vogt's, cold."""
    k = np.linspace(-1.5, 1.5, 50)
    w = svi.total_variance((-0.0410, 0.1331, 0.3060, 0.3586, 0.4153), k)
    assert benchmark(lambda: svi.fit(k, w, arbitrage_free=True)).min_g >= 0


def test_checks(benchmark: Any, points: tuple[Any, Any, Slice]) -> None:
    assert benchmark(lambda: svi.butterfly(points[2], -0.6, 0.6)).value > 0


def market(chance: np.random.Generator) -> list[tuple[int, float, Any, Any, Any]]:
    """Of each expiry 50 strikes within two and a half deviations, a smile that flattens with time, a spread of a point."""
    quotes = []
    for expiry in EXPIRIES:
        years = (expiry - NOW) / (365 * DAY_NS)
        k = np.linspace(-2.5, 2.5, 50) * 0.6 * np.sqrt(years)
        vol = 0.5 + 0.06 * (np.sqrt((k / np.sqrt(years) + 0.05) ** 2 + 0.15) - 0.15 * k / np.sqrt(years))
        vol = vol + 0.002 * chance.standard_normal(50)
        quotes.append((expiry, 60_000.0, 60_000.0 * np.exp(k), vol - 0.005, vol + 0.005))
    return quotes


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_surface_of_twelve_expiries(benchmark: Any, start: str) -> None:
    chance = np.random.default_rng(2)
    kept, (first, then) = VolSurface(), (market(chance), market(chance))
    for each in first:
        kept.fit(each[0], NOW, *each[1:])
    before = kept.slices if start == "warm" else {}

    def fit() -> VolSurface:
        surface = VolSurface()
        surface.slices = dict(before)
        for each in then:
            surface.fit(each[0], NOW, *each[1:])
        return surface

    found = benchmark(fit)
    assert found.crossed(NOW) == []
    assert max(each.rmse for each in found.slices.values()) < 0.004
