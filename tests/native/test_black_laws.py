"""What must hold of every option, whatever the numbers: order, convexity, parity, scale, bounds, and that the greeks are
the derivatives of Black's formula, taken numerically at 80 digits from the price alone."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pricing_exact import NAMES, chain, exact_price, hard, vol_errors

from native import black

pytestmark = pytest.mark.usefixtures("black_target")

ROUNDING = 1e-13
"""Twice the bound of a price's relative error; laws that compare two prices hold to it."""

properties = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
forwards = st.floats(1e-6, 1e9)
moneyness = st.floats(-30.0, 30.0) | st.floats(-1.0, 1.0) | st.floats(-1e-7, 1e-7) | st.just(0.0)
deviations = st.floats(1e-8, 14.0) | st.floats(0.49, 0.51) | st.floats(0.01, 1.0)
years = st.floats(1e-7, 30.0)
discounts = st.floats(0.2, 1.1) | st.just(1.0)
steps = st.floats(1e-15, 1.0) | st.floats(1e-3, 0.5)


@st.composite
def options(draw: st.DrawFn) -> tuple[float, float, float, float, bool, float]:
    """Strikes are so many deviations off, or at a log-moneyness, so that all regions come up."""
    forward, s, expiry, off = draw(forwards), draw(deviations), draw(years), draw(moneyness)
    strike = forward * math.exp(off * s if draw(st.booleans()) else max(-20.0, min(20.0, off)))
    if not 1e-60 < strike < 1e60:
        strike = forward
    return forward, strike, expiry, s / math.sqrt(expiry), draw(st.booleans()), draw(discounts)


def rises(values: list[float]) -> bool:
    return all(low <= high * (1 + ROUNDING) for low, high in pairwise(values))


@properties
@given(option=options(), step=steps)
def test_rises_with_volatility(option, step):
    forward, strike, expiry, vol, call, discount = option
    vols = [vol * (1 - step / 2), vol, vol * (1 + step), 1.01 * vol * (1 + step), math.inf]
    assert rises([black.price(forward, strike, expiry, each, call, discount) for each in (0.0, *vols)])


@properties
@given(option=options(), step=steps)
def test_a_call_rises_with_the_forward_and_falls_with_the_strike(option, step):
    forward, strike, expiry, vol, call, discount = option
    ratios = [1.0, 1.0 + step, 1.01 * (1.0 + step)]
    by_forward = [black.price(forward * ratio, strike, expiry, vol, call, discount) for ratio in ratios]
    by_strike = [black.price(forward, strike * ratio, expiry, vol, call, discount) for ratio in ratios]
    assert rises(by_forward if call else by_forward[::-1])
    assert rises(by_strike[::-1] if call else by_strike)


@properties
@given(option=options(), step=steps, share=st.floats(0.01, 0.99))
def test_convex_in_the_strike(option, step, share):
    forward, strike, expiry, vol, call, discount = option
    high = strike * (1.0 + step)
    middle = strike + share * (high - strike)
    at_low, at_middle, at_high = (
        black.price(forward, each, expiry, vol, call, discount) for each in (strike, middle, high)
    )
    weight = (middle - strike) / (high - strike) if high > strike else 0.0
    assert at_middle <= ((1 - weight) * at_low + weight * at_high) * (1 + ROUNDING) + 1e-15 * at_low


@properties
@given(option=options())
def test_bounds(option):
    forward, strike, expiry, _, call, discount = option
    of = black.greeks2(*option)
    last = 1 + 2.0**-51
    most, intrinsic = (forward, forward - strike) if call else (strike, strike - forward)
    assert discount * max(intrinsic, 0.0) <= of.price <= discount * most * last
    assert 0.0 <= (of.delta if call else -of.delta) <= discount * last
    assert of.gamma >= 0.0
    assert of.vega >= 0.0
    assert of.rho == -expiry * of.price
    assert of.vega <= discount * forward * math.sqrt(expiry) / math.sqrt(2 * math.pi) * (1 + 1e-14)
    assert all(math.isfinite(value) for value in of)


@properties
@given(option=options())
@example(option=(100.0, 100.0, 1.0, 0.2, True, 1.0))
def test_put_call_parity(option):
    forward, strike, expiry, vol, _, discount = option
    call, put = (black.greeks2(forward, strike, expiry, vol, flag, discount) for flag in (True, False))
    assert abs((call.price - put.price) - discount * (forward - strike)) <= 1e-14 * (call.price + put.price)
    assert abs((call.delta - put.delta) - discount) <= 1e-14 * discount
    for name in ("gamma", "vega", "vanna", "volga", "speed"):
        assert getattr(call, name) == getattr(put, name), name


@properties
@given(option=options(), power=st.integers(-40, 40), scale=st.floats(1e-3, 1e3))
def test_homogeneous_in_forward_and_strike(option, power, scale):
    forward, strike, expiry, vol, call, discount = option
    price = black.price(*option)
    if price > 1e-250:
        by_power = black.price(math.ldexp(forward, power), math.ldexp(strike, power), expiry, vol, call, discount)
        assert by_power == math.ldexp(price, power)
    ratio = 2.0 ** round(math.log2(scale))  # other factors round forward and strike, which far out is another option
    of, scaled = black.greeks2(*option), black.greeks2(forward * ratio, strike * ratio, expiry, vol, call, discount)
    if min(abs(value) for value in (of.price, of.gamma, of.vega)) > 1e-250:
        assert scaled.delta == of.delta
        assert scaled.gamma == pytest.approx(of.gamma / ratio, rel=1e-13, abs=0.0)
        assert scaled.vega == pytest.approx(of.vega * ratio, rel=1e-13, abs=0.0)


@properties
@given(option=options())
def test_a_call_is_a_put_with_forward_and_strike_exchanged(option):
    forward, strike, expiry, vol, call, discount = option
    price, mirrored = black.price(*option), black.price(strike, forward, expiry, vol, not call, discount)
    assert mirrored == pytest.approx(price, rel=ROUNDING, abs=1e-300)


@properties
@given(option=options())
@example(option=(100.0, 100.0, 1.0, 1e-8, True, 1.0))
@example(option=(100.0, 100.0 * math.exp(-18.5), 1.0, 0.5, False, 1.0))
def test_implied_vol_returns_the_volatility_that_the_price_carries(option):
    """To 1e-14 of it, four last bits of the price and the error of the time value, over vega."""
    forward, strike, expiry, vol, call, discount = option
    of = black.greeks(*option)
    time_value = of.price - discount * max(forward - strike if call else strike - forward, 0.0)
    most = discount * (forward if call else strike)
    if time_value < 1e-290 * most or of.price >= most or of.vega == 0.0:
        return
    carried = (4 * 2.0**-52 * of.price + ROUNDING * time_value) / of.vega
    if carried < 1e-3 * vol:
        assert abs(black.implied_vol(of.price, forward, strike, expiry, call, discount) - vol) <= 1e-14 * vol + carried


@properties
@given(scale=st.floats(1.0, 1e6), s=st.floats(1e-3, 5.0), off=st.floats(0.0, 36.5), call=st.booleans())
def test_prices_of_the_smallest_size_have_a_volatility(scale, s, off, call):
    """Down to 1e-300 of the root of forward times strike; against the exact volatility of just that price."""
    forward, strike = (scale * math.exp(side * off * s / 2) for side in ((-1, 1) if call else (1, -1)))
    prices = np.array([1e-300, 1e-299, 1e-200, 1e-100]) * scale
    status = np.empty(4, np.uint8)
    solved = black.implied_vol(prices, forward, strike, 1.0, call, status=status)
    assert not status.any()
    columns = tuple(np.broadcast_arrays(forward, strike, 1.0, 0.0, call, 1.0, prices)[:6])
    error, _ = vol_errors(solved, prices, columns)
    assert error.max() <= 1e-14


# The greeks as derivatives


@functools.cache
def differentiated() -> tuple[tuple[np.ndarray, ...], dict[str, list[tuple[mp.mpf, mp.mpf]]]]:
    """Options, and of each the derivatives of exact_price by finite differences, with the size to judge errors by: the value,
    or for what crosses zero, what it is a deviation off."""
    columns = tuple(np.concatenate([a, b]) for a, b in zip(chain(20, seed=9), hard(3, seed=9), strict=True))
    found: dict[str, list[tuple[mp.mpf, mp.mpf]]] = {name: [] for name in NAMES}
    with mp.workdps(80):
        for f, k, t, v, call, d in zip(*columns, strict=True):
            forward, strike, expiry, vol, discount = (mp.mpf(float(x)) for x in (f, k, t, v, d))
            rate = -mp.log(discount) / expiry

            def value(f=forward, t=expiry, v=vol, r=rate, k=strike, call=call):
                return exact_price(f, k, t, v, call, mp.exp(-r * t))

            delta = mp.diff(lambda x, value=value: value(f=x), forward)
            gamma = mp.diff(lambda x, value=value: value(f=x), forward, 2)
            vega = mp.diff(lambda x, value=value: value(v=x), vol)
            theta = -mp.diff(lambda x, value=value: value(t=x), expiry)
            wanted = {
                "price": value(),
                "delta": delta,
                "gamma": gamma,
                "vega": vega,
                "theta": theta,
                "rho": mp.diff(lambda x, value=value: value(r=x), rate),
                "vanna": mp.diff(lambda x, y, value=value: value(f=x, v=y), (forward, vol), (1, 1)),
                "volga": mp.diff(lambda x, value=value: value(v=x), vol, 2),
                "charm": -mp.diff(lambda x, y, value=value: value(f=x, t=y), (forward, expiry), (1, 1)),
                "speed": mp.diff(lambda x, value=value: value(f=x), forward, 3),
            }
            s = vol * mp.sqrt(expiry)
            off = abs(mp.log(forward / strike) / s) + s / 2
            sizes = {
                "theta": abs(rate * value()) + vega * vol / (2 * expiry),
                "vanna": vega * off / (forward * s),
                "volga": vega * off**2 / vol,
                "charm": abs(rate * delta) + vega * vol * off / (2 * expiry * forward * s),
                "speed": gamma / forward * (1 + off / s),
            }
            for name, truth in wanted.items():
                found[name].append((truth, sizes.get(name, abs(truth))))
    return columns, found


@pytest.mark.parametrize("name", NAMES)
def test_greeks_are_derivatives_of_the_price(name):
    columns, found = differentiated()
    ours = getattr(black.greeks2(*columns), name)
    for i, (truth, size) in enumerate(found[name]):
        error = abs(mp.mpf(float(ours[i])) - truth) / size
        assert error <= 5e-14, ([column[i] for column in columns], float(error))
