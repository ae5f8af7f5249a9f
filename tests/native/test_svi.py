"""Raw SVI slices: exact slices are recovered, known arbitrage is found and repaired, bad data have a status."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from native import black, svi
from native.svi import Slice, Status

VOGT = Slice(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153)
"""Axel Vogt's slice with butterfly arbitrage: Gatheral & Jacquier (2014), example 3.1."""
K = np.linspace(-1.0, 1.0, 50)
SEED = 7


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    """Free of butterfly arbitrage, and curved within the strikes K, so that their points tell all five parameters."""
    b, rho = draw(st.floats(0.03, 0.5)), draw(st.floats(-0.85, 0.85))
    m, sigma = draw(st.floats(-0.3, 0.3)), draw(st.floats(0.08, 0.5))
    lowest = draw(st.floats(0.004, 0.2))
    drawn = Slice(lowest - b * sigma * math.sqrt(1 - rho * rho), b, rho, m, sigma)
    assume(svi.butterfly(drawn).value > 0)
    return drawn


def vols(slice_: Slice, k: np.ndarray = K) -> np.ndarray:
    return np.sqrt(svi.total_variance(slice_, k))


@settings(max_examples=150, deadline=None, print_blob=True)
@given(slices())
def test_an_exact_slice_is_recovered(wanted: Slice) -> None:
    found = svi.fit(K, svi.total_variance(wanted, K))
    assert found.status == Status.CONVERGED
    assert found.points == 50
    assert np.abs(vols(found.slice) - vols(wanted)).max() < 1e-9
    assert np.array(found.slice) == pytest.approx(np.array(wanted), rel=1e-5, abs=1e-6)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(slices(), st.integers(0, 2**32))
def test_a_warm_start_arrives_where_a_cold_one_does_and_sooner(before: Slice, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(50)
    w = svi.total_variance(before, K) * (1 + 0.01 * noise)
    cold = svi.fit(K, w)
    warm = svi.fit(K, w, start=before)
    assert warm.status == Status.CONVERGED
    assert warm.rms == pytest.approx(cold.rms, rel=1e-4)
    assert np.abs(vols(warm.slice) - vols(cold.slice)).max() < 1e-4, "a hundredth of a point"
    assert warm.passes < 0.8 * cold.passes


def test_warm_starts_take_few_passes() -> None:
    chance = np.random.default_rng(SEED)
    passes = []
    now = Slice(0.02, 0.12, -0.3, 0.02, 0.2)
    for _ in range(200):
        w = svi.total_variance(now, K) * (1 + 0.005 * chance.standard_normal(50))
        found = svi.fit(K, w, start=now)
        assert found.status == Status.CONVERGED
        now = found.slice
        passes.append(found.passes)
    assert np.median(passes) <= 6
    assert max(passes) <= 15
    assert svi.fit(K, w).passes > 60


@settings(max_examples=150, deadline=None, print_blob=True)
@given(slices(), st.integers(0, 2**32), st.floats(0.0, 0.3))
def test_whatever_the_points_the_bounds_hold(near: Slice, seed: int, noise: float) -> None:
    chance = np.random.default_rng(seed)
    k = np.sort(chance.uniform(-1, 1, chance.integers(5, 30)))
    w = svi.total_variance(near, k) * np.exp(noise * chance.standard_normal(len(k)))
    for start in (None, near):
        found = svi.fit(k, w, chance.uniform(0.1, 10, len(k)), start=start, arbitrage_free=True, floor=near)
        a, b, rho, _, sigma = found.slice
        assert found.status in (Status.CONVERGED, Status.NOT_CONVERGED, Status.RAISED)
        assert b > 0
        assert abs(rho) < 1
        assert sigma > 0
        assert a + b * sigma * math.sqrt(1 - rho * rho) > 0
        assert b * (1 + abs(rho)) <= 2 + 1e-12
        wide = np.linspace(-30, 30, 20001)
        assert svi.butterfly_g(found.slice, wide).min() > -1e-9
        width = k[-1] - k[0]
        checked = np.linspace(k[0] - 0.5 * width, k[-1] + 0.5 * width, 20001)
        assert (svi.total_variance(found.slice, checked) - svi.total_variance(near, checked)).min() > -1e-12


# Butterfly


def test_g_is_the_density_of_black_prices() -> None:
    """The second derivative of the call to the strike is g phi(d2) / (K sqrt w): Gatheral & Jacquier, section 2.2."""
    mp.mp.dps = 40
    for of in (VOGT, Slice(0.02, 0.12, -0.4, 0.05, 0.15)):
        a, b, rho, m, sigma = map(mp.mpf, of)

        def call(strike, a=a, b=b, rho=rho, m=m, sigma=sigma):
            y = mp.log(strike) - m
            root = mp.sqrt(a + b * (rho * y + mp.sqrt(y * y + sigma * sigma)))
            d1 = -mp.log(strike) / root + root / 2
            return mp.ncdf(d1) - strike * mp.ncdf(d1 - root)

        for k in (-1.2, -0.3, 0.0, 0.4, 0.88, 1.4):
            strike = mp.exp(mp.mpf(k))
            root = mp.sqrt(mp.mpf(svi.total_variance(of, k)))
            density = mp.npdf(-k / root - root / 2) / (strike * root)
            assert svi.butterfly_g(of, k) == pytest.approx(
                float(mp.diff(call, strike, 2) / density), rel=1e-9, abs=1e-12
            )


def test_vogt_s_slice_has_butterfly_arbitrage_and_is_repaired() -> None:
    worst = svi.butterfly(VOGT, -1.5, 1.5)
    grid = np.linspace(-1.5, 1.5, 300_001)
    g = svi.butterfly_g(VOGT, grid)
    assert worst.value == pytest.approx(g.min(), abs=1e-9)
    assert worst.value == pytest.approx(-0.032864, abs=1e-6)
    assert worst.at == pytest.approx(grid[g.argmin()], abs=1e-4)
    k = np.linspace(-1.5, 1.5, 50)
    w = svi.total_variance(VOGT, k)
    assert svi.fit(k, w).min_g == pytest.approx(worst.value, abs=1e-6), "a plain fit takes it over, and says so"
    repaired = svi.fit(k, w, arbitrage_free=True)
    assert repaired.status == Status.CONVERGED
    assert repaired.min_g >= 0
    assert svi.butterfly_g(repaired.slice, np.linspace(-50, 50, 400_001)).min() >= 0
    assert np.abs(vols(repaired.slice, k) - np.sqrt(w)).max() < 0.02, "two points of total volatility"
    assert repaired.rms < 0.0025


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.floats(-3, 2.5), st.floats(0.001, 1.0), st.floats(-0.99, 0.99), st.floats(-1, 1), st.floats(-2.5, 0.3))
def test_the_smallest_g_is_that_of_a_dense_grid(
    lowest: float, slope: float, rho: float, m: float, curve: float
) -> None:
    """Of any slice, with a minimum of 0.001 to 300 and sigma of 0.003 to 2; the grid has 400,000 points in four scales."""
    b, sigma = 2 * slope / (1 + abs(rho)), 10**curve
    of = Slice(10**lowest - b * sigma * math.sqrt(1 - rho * rho), b, rho, m, sigma)
    assume(of.a + b * sigma * math.sqrt(1 - rho * rho) > 1e-4)
    worst = svi.butterfly(of, -2.0, 2.0)
    grid = np.concatenate([reach * np.linspace(-1, 1, 100_001) + m for reach in (sigma, 1.0, 30.0, 1000.0)])
    g = svi.butterfly_g(of, grid).min()
    assert worst.value <= g + 1e-6 * (1 + abs(g))
    if np.isfinite(worst.at):
        assert svi.butterfly_g(of, worst.at) == pytest.approx(worst.value, rel=1e-12)


def test_the_wings_are_judged_by_lee_s_bound() -> None:
    steep = Slice(0.1, 1.1, 0.9, 0.0, 0.3)  # right wing of 2.09
    assert svi.butterfly(steep).value <= (4 - 2.09**2) / 16 + 1e-12
    assert svi.butterfly_g(steep, 1e7) < 0
    flat = Slice(0.04, 0.0, 0.0, 0.0, 0.1)
    assert svi.butterfly(flat) == (0.25, -math.inf) or svi.butterfly(flat).value > 0.24


def test_a_slice_below_nothing_is_worse_than_any() -> None:
    assert svi.butterfly(Slice(-1.0, 0.1, 0.0, 0.0, 0.1)).value == -math.inf
    assert svi.butterfly_g(Slice(-1.0, 0.1, 0.0, 0.0, 0.1), 0.0) == -math.inf


# Calendar


def test_crossing_slices_are_found() -> None:
    near, far = Slice(0.02, 0.10, -0.5, 0.0, 0.10), Slice(0.025, 0.08, -0.1, 0.1, 0.15)
    found = svi.calendar(near, far, -1.0, 1.0)
    grid = np.linspace(-1, 1, 400_001)
    gaps = svi.total_variance(far, grid) - svi.total_variance(near, grid)
    assert gaps.min() < 0 < gaps.max()
    assert found.value == pytest.approx(gaps.min(), abs=1e-9)
    assert found.at == pytest.approx(grid[gaps.argmin()], abs=1e-5)
    assert found.left == pytest.approx(0.08 * 1.1 - 0.10 * 1.5)
    assert found.right == pytest.approx(0.08 * 0.9 - 0.10 * 0.5)
    assert svi.calendar(near, far, 0.3, 1.0).value > 0, "not there"


@settings(max_examples=200, deadline=None, print_blob=True)
@given(slices(), slices())
def test_the_smallest_distance_is_that_of_a_dense_grid(near: Slice, far: Slice) -> None:
    found = svi.calendar(near, far, -1.5, 1.5)
    grid = np.linspace(-1.5, 1.5, 30_001)
    gaps = svi.total_variance(far, grid) - svi.total_variance(near, grid)
    assert gaps.min() - 1e-6 <= found.value <= gaps.min() + 1e-12


def test_a_fit_stays_above_its_floor() -> None:
    near, far = Slice(0.02, 0.10, -0.5, 0.0, 0.10), Slice(0.025, 0.08, -0.1, 0.1, 0.15)
    w = svi.total_variance(far, K)
    free = svi.fit(K, w, floor=near)
    assert free.min_gap < -1e-3, "told, and left"
    found = svi.fit(K, w, floor=near, arbitrage_free=True)
    assert found.status == Status.CONVERGED
    assert found.min_gap >= 0
    assert found.min_g >= 0
    grid = np.linspace(-2.0, 2.0, 100_001)
    assert (svi.total_variance(found.slice, grid) - svi.total_variance(near, grid)).min() > -1e-12
    above = svi.total_variance(far, K) > svi.total_variance(near, K) + 0.01
    assert np.abs(vols(found.slice)[above] - np.sqrt(w)[above]).max() < 0.03
    assert svi.fit(K, w, floor=near, arbitrage_free=True, low=0.4, high=1.0).rms < 1e-6, "nothing to do there"


def test_where_no_slice_of_the_quotes_is_above_the_floor_it_is_raised_there() -> None:
    high = Slice(0.5, 0.3, 0.0, 0.0, 0.3)
    found = svi.fit(K, svi.total_variance(Slice(0.02, 0.12, -0.4, 0.05, 0.15), K), floor=high, arbitrage_free=True)
    assert found.status in (Status.CONVERGED, Status.NOT_CONVERGED, Status.RAISED)
    assert found.min_gap >= 0
    assert found.min_g >= 0


# What comes in


def test_the_same_inputs_give_the_same_bits_in_any_memory() -> None:
    chance = np.random.default_rng(SEED)
    w = svi.total_variance(VOGT, K) * (1 + 0.02 * chance.standard_normal(50))
    once = svi.fit(K, w, arbitrage_free=True)
    strided = np.zeros((50, 3))
    strided[:, 1] = w
    for other in (w.copy(), w.tolist(), strided[:, 1]):
        assert svi.fit(K, other, arbitrage_free=True)[:7] == once[:7]
    hurt = np.concatenate([[np.nan, 0.1, 0.2, 0.3], w])
    k = np.concatenate([[0.0, np.inf, 0.1, 0.2], K])
    weight = np.concatenate([[1.0, 1.0, 0.0, np.nan], np.ones(50)])
    assert svi.fit(k, hurt, weight, arbitrage_free=True)[:7] == once[:7], (
        "what can't be used is as if it were not there"
    )


def test_weights_count() -> None:
    w = svi.total_variance(VOGT, K).copy()
    w[:10] += 0.05
    light = np.where(np.arange(50) < 10, 1e-6, 1.0)
    assert svi.fit(K, w, light).slice == pytest.approx(VOGT, abs=1e-3)
    assert svi.fit(K, w).rms > 1e-3


@pytest.mark.parametrize(
    ("k", "w", "weight"),
    [
        ([], [], None),
        ([0, 0.1, 0.2, 0.3], [0.1] * 4, None),
        ([0, 0.1, 0.2, 0.3, 0.3], [0.1] * 5, None),
        ([0, 0.1, 0.2, 0.3, 0.4], [0.1, 0.1, math.nan, 0.1, 0.1], None),
        ([0, 0.1, 0.2, 0.3, 0.4], [0.1, 0.1, -0.1, 0.1, 0.1], None),
        ([0, 0.1, 0.2, 0.3, 0.4], [0.1] * 5, [1, 1, 0, 1, 1]),
        ([0, 0.1, 0.2, 0.3, 0.4], [0.1] * 5, [1e308] * 5),
    ],
)
def test_too_few_points_are_told(k: list[float], w: list[float], weight: list[float] | None) -> None:
    found = svi.fit(k, w, weight)
    assert found.status == Status.TOO_FEW
    assert all(math.isnan(each) for each in (*found.slice, found.rms, found.min_g, found.min_gap))


def test_five_points_are_enough_and_flat_ones_are_flat() -> None:
    k = [-0.2, -0.1, 0.0, 0.1, 0.2]
    w = svi.total_variance(Slice(0.02, 0.12, -0.4, 0.05, 0.15), k)
    assert np.abs(svi.total_variance(svi.fit(k, w).slice, k) - w).max() < 1e-6
    flat = svi.fit(k, [0.04] * 5, arbitrage_free=True)
    assert flat.status == Status.CONVERGED
    assert svi.total_variance(flat.slice, [-1.0, 0.0, 1.0]) == pytest.approx(0.04, abs=1e-4)


def test_steps_may_run_out() -> None:
    w = svi.total_variance(VOGT, K) * (1 + 0.1 * np.random.default_rng(SEED).standard_normal(50))
    assert svi.fit(K, w, max_steps=1, start=Slice(1.0, 1.0, 0.9, 0.9, 0.01)).status == Status.NOT_CONVERGED


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"k": [[0.1]], "w": [0.1]}, "one-dimensional"),
        ({"k": ["x"], "w": [0.1]}, "one-dimensional"),
        ({"k": [0.1, 0.2], "w": [0.1]}, "equally long"),
        ({"k": [0.1], "w": [0.1], "weight": []}, "equally long"),
        ({"k": K, "w": K + 2, "start": (0.1, -0.1, 0.0, 0.0, 0.1)}, "start must have"),
        ({"k": K, "w": K + 2, "start": (0.1, 0.1, 1.0, 0.0, 0.1)}, "start must have"),
        ({"k": K, "w": K + 2, "floor": (0.1, 0.1, 0.0, math.nan, 0.1)}, "floor must have"),
        ({"k": K, "w": K + 2, "floor": (0.1, 0.1)}, "floor must be five numbers"),
        ({"k": K, "w": K + 2, "low": 1.0, "high": 1.0}, "low and high"),
        ({"k": K, "w": K + 2, "low": 1.0}, "low and high"),
        ({"k": K, "w": K + 2, "max_steps": 0}, "max_steps"),
    ],
)
def test_what_makes_no_sense_is_refused(given_: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        svi.fit(**given_)


def test_shapes() -> None:
    assert isinstance(svi.total_variance(VOGT, 0.1), float)
    assert svi.total_variance(VOGT, np.zeros((2, 3))).shape == (2, 3)
    vol = vols(VOGT, np.array([0.2]))
    assert black.price(1.0, math.exp(0.2), 1.0, vol, True).shape == (1,)
