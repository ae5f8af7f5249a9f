"""The pricing kernel against 50-digit arithmetic, published values, and its own laws."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import black

pytestmark = pytest.mark.usefixtures("black_target")
REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "reference").is_dir(), reason="reference tables (../shared/data) are not on this machine"
)


def exact(forward, strike, expiry, vol, is_call, discount=1.0):
    """All values and the natural size of each (the sum of the magnitudes of its terms), from exact inputs."""
    with mp.workdps(60):
        f, k, t, v, d = (mp.mpf(float(x)) for x in (forward, strike, expiry, vol, discount))
        sign = 1 if is_call else -1
        rate, root = -mp.log(d) / t, mp.sqrt(t)
        s = v * root
        d1 = mp.log(f / k) / s + s / 2
        d2 = d1 - s
        # with enough digits for the far wings: N(x) = erfc(-x / sqrt 2) / 2
        n1, n2 = (mp.erfc(-sign * x / mp.sqrt(2)) / 2 for x in (d1, d2))
        density = mp.npdf(d1)
        price = d * sign * (f * n1 - k * n2)
        delta, gamma, vega = d * sign * n1, d * density / (f * s), d * f * density * root
        decay = vega * v / (2 * t)
        values = {
            "price": (price, price),
            "delta": (delta, delta),
            "gamma": (gamma, gamma),
            "vega": (vega, vega),
            "theta": (rate * price - decay, abs(rate * price) + decay),
            "rho": (-t * price, t * price),
            "vanna": (-d * density * d2 / v, d * density * (abs(mp.log(f / k) / s) + s / 2) / v),
            "volga": (vega * d1 * d2 / v, vega * ((mp.log(f / k) / s) ** 2 + s * s / 4) / v),
            "charm": (
                rate * delta + d * density * d2 / (2 * t),
                abs(rate * delta) + d * density * (abs(mp.log(f / k) / s) + s / 2) / (2 * t),
            ),
            "speed": (
                -gamma / f * (1 + d1 / s),
                gamma / f * (1 + (abs(mp.log(f / k) / s) + s / 2) / s),
            ),
        }
        return {name: (value, abs(size)) for name, (value, size) in values.items()}


def chain(count: int, seed: int, *, width: float = 3.0):
    """Options as a venue lists them: within ``width`` standard deviations."""
    rng = np.random.default_rng(seed)
    forward = rng.uniform(20e3, 120e3, count)
    expiry = np.exp(rng.uniform(np.log(1 / 8760), np.log(2.0), count))
    vol = rng.uniform(0.05, 2.5, count)
    strike = forward * np.exp(rng.uniform(-width, width, count) * vol * np.sqrt(expiry))
    return forward, strike, expiry, vol, rng.random(count) < 0.5, np.exp(-rng.uniform(-0.01, 0.1, count) * expiry)


ADVERSARIAL = [
    (100.0, 100.0, 1.0, 0.2, True, 1.0),  # at the money
    (100.0, 100.0, 1.0, 1e-9, False, 1.0),  # at the money, next to no volatility
    (100.0, np.nextafter(100.0, 200.0), 1e-6, 1e-4, True, 1.0),  # one last bit from the money
    (1e-3, 1e3, 1.0, 0.5, True, 0.9),  # 27 deviations out
    (1e3, 1e-3, 1.0, 0.5, False, 0.9),
    (1e3, 1e-3, 1.0, 0.5, True, 0.9),
    (100.0, 102.0, 3.17e-8, 40.0, True, 1.0),  # one second
    (100.0, 90.0, 30.0, 2.0, False, 0.3),  # total volatility 11
    (100.0, 90.0, 1.0, 0.4999999999, True, 1.0),  # on both sides of the border of the series
    (100.0, 90.0, 1.0, 0.5000000001, True, 1.0),
    (100.0, 100.0 * np.exp(-0.125), 1.0, 0.5, True, 1.0),  # a = t
    (1e-30, 2e-30, 1.0, 0.5, True, 1.0),
    (1e30, 2e30, 1.0, 0.5, False, 1.0),
]


def check_against_exact(options, price_limit: float, other_limit: float) -> None:
    columns = [np.array(column) for column in zip(*options, strict=True)]
    ours = black.greeks2(*columns)
    plain = black.greeks(*columns)
    assert np.array_equal(black.price(*columns), ours.price)
    for i, option in enumerate(options):
        for name, (value, size) in exact(*option).items():
            error = abs(mp.mpf(float(getattr(ours, name)[i])) - value) / size
            assert error <= (price_limit if name == "price" else other_limit), (option, name, float(error))
    for name in plain._fields:
        assert np.array_equal(getattr(plain, name), getattr(ours, name))


def test_chain_values_are_exact_to_1e_14():
    check_against_exact(list(zip(*chain(400, seed=1), strict=True)), 1e-14, 1e-14)


def test_wide_wings_keep_relative_accuracy():
    check_against_exact(list(zip(*chain(200, seed=2, width=12.0), strict=True)), 5e-14, 5e-14)


def test_adversarial_values():
    check_against_exact(ADVERSARIAL, 2e-13, 2e-13)


def test_price_of_the_smallest_size():
    assert black.price(100.0, 100.0 * np.exp(7.3), 1.0, 0.2, True) == pytest.approx(
        float(exact(100.0, 100.0 * np.exp(7.3), 1.0, 0.2, True)["price"][0]), rel=1e-12, abs=0.0
    )


@pytest.mark.parametrize("seed", [3, 4])
def test_implied_vol_returns_the_volatility(seed):
    """Out of the money the price carries it; the exact solution for the rounded price is compared with."""
    forward, strike, expiry, vol, _, discount = chain(2000, seed, width=8.0)
    call = forward < strike
    solved = black.implied_vol(
        black.price(forward, strike, expiry, vol, call, discount), forward, strike, expiry, call, discount
    )
    assert np.abs(solved / vol - 1.0).max() < 2e-14
    undiscounted = black.price(forward, strike, expiry, vol, call)
    assert np.abs(black.implied_vol(undiscounted, forward, strike, expiry, call) / vol - 1.0).max() < 1e-14


def test_implied_vol_in_the_money_is_as_good_as_the_price():
    forward, strike, expiry, vol, _, discount = chain(2000, seed=5)
    call = forward > strike
    values = black.greeks(forward, strike, expiry, vol, call, discount)
    solved = black.implied_vol(values.price, forward, strike, expiry, call, discount)
    last_bit = values.price * 2.0**-52 / values.vega
    assert (np.abs(solved - vol) <= 50 * last_bit + 1e-14 * vol).all()


@settings(max_examples=300, deadline=None)
@given(
    moneyness=st.floats(-20, 20), s=st.floats(1e-7, 14.0), expiry=st.floats(1e-6, 30.0), forward=st.floats(1e-6, 1e9)
)
def test_implied_vol_of_extreme_options(moneyness, s, expiry, forward):
    strike, vol = forward * np.exp(moneyness), s / np.sqrt(expiry)
    call = forward < strike
    values = black.greeks(forward, strike, expiry, vol, call)
    upper = forward if call else strike
    if not 1e-290 * forward < values.price < upper * (1 - 1e-15):
        return
    solved = black.implied_vol(values.price, forward, strike, expiry, call)
    assert abs(solved - vol) <= 4 * values.price * 2.0**-52 / values.vega + 1e-13 * vol


@needs_reference
def test_reference_table():
    table = np.load(REFERENCE / "pricing_reference" / "reference.npz")
    forward, strike, expiry, vol, call = table["F"], table["K"], table["T"], table["sigma"], table["flag"] > 0
    discount = np.exp(-table["r"] * expiry)
    values = black.greeks2(forward, strike, expiry, vol, call, discount)
    limit = np.where(table["group"] < 0, 1e-14, 5e-14)
    for name in ("price", "delta", "gamma", "vega", "vanna", "volga"):
        error = np.abs(getattr(values, name) - table[f"b76_{name}"]) / table[f"b76_{name}_scale"]
        assert (error <= limit).all(), name
    # theta needs the rate, of which a discount factor near 1 keeps few digits
    error = np.abs(values.theta - table["b76_theta"]) - 2.0**-52 * values.price / expiry
    assert (error <= limit * table["b76_theta_scale"]).all()
    status = np.empty(len(forward), np.uint8)
    for name, factor in (("b76", discount), ("undisc", 1.0)):
        solved = black.implied_vol(table[f"{name}_price"], forward, strike, expiry, call, factor, status=status)
        assert not status.any()
        attainable = np.maximum(table[f"{name}_iv_attainable"], 2.0**-53)
        assert (np.abs(solved / table[f"{name}_iv"] - 1.0) <= 50 * attainable).all()
    out_of_the_money = call == (forward < strike)
    error = np.abs(solved / table["undisc_iv"] - 1.0)
    assert error[out_of_the_money].max() <= 1e-14


@needs_reference
def test_haug_values_and_greeks():
    with (REFERENCE / "reference" / "haug_european_values.csv").open() as file:
        for row in csv.DictReader(file):
            x = {key: float(row[key]) for key in ("strike", "spot", "q", "r", "t", "vol", "value")}
            forward = x["spot"] * np.exp((x["r"] - x["q"]) * x["t"])
            value = black.price(forward, x["strike"], x["t"], x["vol"], row["type"] == "call", np.exp(-x["r"] * x["t"]))
            assert value == pytest.approx(x["value"], abs=6e-5), row
    with (REFERENCE / "reference" / "haug_european_greeks.csv").open() as file:
        checked = 0
        for row in csv.DictReader(file):
            x = {key: float(row[key]) for key in ("strike", "spot", "q", "r", "t", "vol", "value")}
            carry = np.exp((x["r"] - x["q"]) * x["t"])  # d(forward) / d(spot)
            values = black.greeks2(
                x["spot"] * carry, x["strike"], x["t"], x["vol"], row["type"] == "call", np.exp(-x["r"] * x["t"])
            )
            to_spot = {"delta": values.delta * carry, "gamma": values.gamma * carry**2, "vega": values.vega}
            if row["greek"] in to_spot:
                checked += 1
                assert to_spot[row["greek"]] == pytest.approx(x["value"], abs=6e-5 * max(1.0, abs(x["value"]))), row
        assert checked


@needs_reference
def test_lets_be_rational_cases():
    with gzip.open(REFERENCE / "reference" / "lets_be_rational_values_0001-0700.json.gz", "rt") as file:
        table = json.load(file)
    inputs, outputs = table["input"], table["output"]
    forward, strike, expiry, vol = (np.array([float(case[key]) for case in inputs]) for key in ("F", "K", "T", "sigma"))
    call = np.array([case["q"] > 0 for case in inputs])
    theirs = np.array([case["black"] for case in outputs])
    ours = black.price(forward, strike, expiry, vol, call)
    assert np.abs(ours - theirs).max() <= 1e-13 * np.maximum(forward, strike).max()
    status = np.empty(len(ours), np.uint8)
    solved = black.implied_vol(ours, forward, strike, expiry, call, status=status)
    theirs_iv = np.array([case["implied_volatility_from_a_transformed_rational_guess"] for case in outputs])
    both = (status == black.Status.OK) & (np.abs(theirs_iv - vol) < 1e-9 * vol)
    assert both.sum() > 650
    last_bit = ours * 2.0**-52 / black.greeks(forward, strike, expiry, vol, call).vega.clip(1e-300)
    assert (np.abs(solved - vol)[both] <= (50 * last_bit + 1e-13 * vol)[both]).all()


@needs_reference
def test_vollib_ladder():
    table = json.loads((REFERENCE / "reference" / "vollib_bs_values.json").read_text())
    rows = {
        name: np.array(column, float)
        for name, column in zip(table["columns"], zip(*table["data"], strict=True), strict=True)
    }
    grow = np.exp(rows["R"] * rows["t"])
    for flag, letter, name in ((True, "C", "bs_call"), (False, "P", "bs_put")):
        values = black.greeks(rows["S"] * grow, rows["K"], rows["t"], rows["v"], flag, 1 / grow)
        np.testing.assert_allclose(values.price, rows[name], atol=1e-8)
        np.testing.assert_allclose(values.delta * grow, rows[f"{letter}D"], atol=1e-8)
        np.testing.assert_allclose(values.gamma * grow**2, rows[f"{letter}G"], atol=1e-8)


def test_put_call_parity_and_homogeneity():
    forward, strike, expiry, vol, call, discount = chain(3000, seed=7)
    puts, calls = (black.price(forward, strike, expiry, vol, flag, discount) for flag in (False, True))
    assert np.abs(calls - puts - discount * (forward - strike)).max() <= 4e-15 * strike.max()
    fourfold = black.price(4 * forward, 4 * strike, expiry, vol, call, discount)
    assert np.array_equal(fourfold, 4 * np.where(call, calls, puts))
