"""The pricing kernel against 60-digit arithmetic: values, greeks, implied volatilities. Tables: test_black_reference."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pricing_exact import ADVERSARIAL, chain, exact

from native import black

pytestmark = pytest.mark.usefixtures("black_target")


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


def test_put_call_parity_and_homogeneity():
    forward, strike, expiry, vol, call, discount = chain(3000, seed=7)
    puts, calls = (black.price(forward, strike, expiry, vol, flag, discount) for flag in (False, True))
    assert np.abs(calls - puts - discount * (forward - strike)).max() <= 4e-15 * strike.max()
    fourfold = black.price(4 * forward, 4 * strike, expiry, vol, call, discount)
    assert np.array_equal(fourfold, 4 * np.where(call, calls, puts))
