"""Spot, inverse, digital and normal forms against mpmath, finite differences and printed values."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from native import black, forms
from native.black import Status

SEED = 20


@pytest.fixture(autouse=True)
def precise() -> None:
    mp.mp.dps = 50


def spot_reference(s, k, t, v, call, r, q):
    s, k, t, v, r, q = map(mp.mpf, (s, k, t, v, r, q))
    f, d = s * mp.exp((r - q) * t), mp.exp(-r * t)
    sd = v * mp.sqrt(t)
    d1 = mp.log(f / k) / sd + sd / 2
    sign = 1 if call else -1
    return d * sign * (f * mp.ncdf(sign * d1) - k * mp.ncdf(sign * (d1 - sd)))


def normal_reference(f, k, t, v, call, d=1):
    f, k, t, v, d = map(mp.mpf, (f, k, t, v, d))
    sd = v * mp.sqrt(t)
    x = (f - k) / sd if call else (k - f) / sd
    return d * sd * (x * mp.ncdf(x) + mp.npdf(x))


def test_spot_greeks_are_the_derivatives() -> None:
    chance = np.random.default_rng(SEED)
    for _ in range(25):
        s, k, t, v = chance.uniform(80, 120), chance.uniform(80, 120), chance.uniform(0.1, 2), chance.uniform(0.1, 0.9)
        r, q, call = chance.uniform(-0.02, 0.1), chance.uniform(-0.02, 0.1), bool(chance.integers(2))
        found = forms.spot_greeks(s, k, t, v, call, r, q)

        def value(s=s, t=t, v=v, r=r, k=k, q=q, call=call):
            return spot_reference(s, k, t, v, call, r, q)

        expected = {
            "price": value(),
            "delta": mp.diff(lambda x: value(s=x), s),
            "gamma": mp.diff(lambda x: value(s=x), s, 2),
            "vega": mp.diff(lambda x: value(v=x), v),
            "theta": -mp.diff(lambda x: value(t=x), t),
            "rho": mp.diff(lambda x: value(r=x), r),
            "vanna": mp.diff(lambda x, y: value(s=x, v=y), (s, v), (1, 1)),
            "volga": mp.diff(lambda x: value(v=x), v, 2),
            "charm": -mp.diff(lambda x, y: value(s=x, t=y), (s, t), (1, 1)),
            "speed": mp.diff(lambda x: value(s=x), s, 3),
        }
        for name, wanted in expected.items():
            assert float(getattr(found, name)) == pytest.approx(float(wanted), rel=1e-9, abs=1e-11), name
        assert forms.spot_price(s, k, t, v, call, r, q) == pytest.approx(float(value()), rel=1e-13)
        price = forms.spot_price(s, k, t, v, call, r, q)
        assert forms.spot_implied_vol(price, s, k, t, call, r, q) == pytest.approx(v, rel=1e-8)


def test_printed_values_of_haug() -> None:
    """The Complete Guide to Option Pricing Formulas, 2nd ed., sections 1.1 to 1.2 and 4.19."""
    assert forms.spot_price(60, 65, 0.25, 0.30, True, 0.08) == pytest.approx(2.1334, abs=5e-5)
    assert forms.spot_price(100, 95, 0.5, 0.20, False, 0.10, 0.05) == pytest.approx(2.4648, abs=5e-5)
    put = forms.digital_price(100, 80, 0.75, 0.35, False, math.exp(-0.06 * 0.75))
    assert 10 * put == pytest.approx(2.6710, abs=5e-5)


def test_inverse_is_the_value_over_the_forward_and_its_derivatives() -> None:
    chance = np.random.default_rng(SEED + 1)
    for _ in range(25):
        f, k, t, v = chance.uniform(80, 120), chance.uniform(80, 120), chance.uniform(0.1, 2), chance.uniform(0.1, 0.9)
        call, d = bool(chance.integers(2)), chance.uniform(0.9, 1.0)

        def value(f=f, v=v, k=k, t=t, call=call, d=d):
            return spot_reference(f, k, t, v, call, 0, 0) * d / f

        found = forms.inverse_greeks(f, k, t, v, call, d)
        assert float(found.price) == pytest.approx(float(value()), rel=1e-13)
        assert float(found.delta) == pytest.approx(float(mp.diff(lambda x: value(f=x), f)), rel=1e-9, abs=1e-13)
        assert float(found.gamma) == pytest.approx(float(mp.diff(lambda x: value(f=x), f, 2)), rel=1e-8, abs=1e-13)
        assert float(found.vega) == pytest.approx(float(mp.diff(lambda x: value(v=x), v)), rel=1e-9)
        assert forms.inverse_price(f, k, t, v, call, d) == found.price
        assert forms.inverse_implied_vol(found.price, f, k, t, call, d) == pytest.approx(v, rel=1e-9)


def test_digitals() -> None:
    chance = np.random.default_rng(SEED + 2)
    f, k = chance.uniform(50, 150, 200), chance.uniform(50, 150, 200)
    t, v = chance.uniform(0.01, 2, 200), chance.uniform(0.05, 1, 200)
    cash_call, cash_put = (forms.digital_price(f, k, t, v, call, 0.9) for call in (True, False))
    asset_call = forms.digital_price(f, k, t, v, True, 0.9, asset=True)
    assert np.allclose(cash_call + cash_put, 0.9, rtol=1e-15)
    # A call is an asset-or-nothing call less strike cash-or-nothing calls.
    assert np.allclose(asset_call - k * cash_call, black.price(f, k, t, v, True, 0.9), rtol=1e-9, atol=1e-11)
    assert forms.digital_price(100, 90, 0, 0.2, True) == 1.0
    assert forms.digital_price(100, 110, 0, 0.2, True, asset=True) == 0.0
    assert forms.digital_price(100, 100, 0, 0.2, True) == 0.5
    assert math.isnan(forms.digital_price(-1, 100, 1, 0.2, True))


def test_the_normal_model_to_twelve_deviations_out() -> None:
    chance = np.random.default_rng(SEED + 3)
    for _ in range(1500):
        f, x = chance.normal(0, 100), chance.uniform(-12, 12)
        t, v = chance.uniform(0.01, 3), 10 ** chance.uniform(-2, 2)
        k = f + x * v * math.sqrt(t)
        call = k > f  # out of the money
        wanted = normal_reference(f, k, t, v, call, 0.9)
        found = forms.normal_price(f, k, t, v, call, 0.9)
        carried = (1 + abs(f) / abs(f - k)) * (1 + x * x) * 2.3e-16  # what the inputs' last bits are worth
        assert abs(float(found / wanted) - 1) < 4e-15 + 2 * carried
        # The volatility of a price is known as well as the price, over its own sensitivity.
        again = forms.normal_implied_vol(float(wanted), f, k, t, call, 0.9)
        assert abs(again / v - 1) < 4e-15 + 2 * carried


def test_normal_parity_monotony_and_limits() -> None:
    k = np.linspace(-50, 50, 101)
    calls, puts = (forms.normal_price(3.0, k, 0.7, 11.0, call, 0.95) for call in (True, False))
    assert np.allclose(calls - puts, 0.95 * (3.0 - k), rtol=1e-13, atol=1e-13)
    assert np.all(np.diff(calls) < 0)
    assert forms.normal_price(3.0, 1.0, 0.0, 11.0, True) == 2.0
    assert forms.normal_price(3.0, 1.0, 1.0, 0.0, False) == 0.0
    assert forms.normal_price(0.0, 0.0, 1.0, 2.0, True) == pytest.approx(2.0 / math.sqrt(2 * math.pi), rel=1e-15)
    assert forms.normal_implied_vol(0.7978845608028654, 0.0, 0.0, 1.0, True) == pytest.approx(2.0, rel=1e-14)


def test_what_has_no_normal_volatility_is_told() -> None:
    prices = np.array([1.0, 3.0, 2.0, np.nan, 5.0])
    years = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    status = np.zeros(5, np.uint8)
    found = forms.normal_implied_vol(prices, 5.0, 3.0, years, True, status=status)
    assert [Status(each).name for each in status] == [
        "BELOW_INTRINSIC", "EXPIRED", "NO_TIME_VALUE", "NON_POSITIVE", "OK"
    ]  # fmt: skip
    assert np.isnan(found).tolist() == [True, True, True, True, False]
    with pytest.raises(ValueError, match="below intrinsic"):
        forms.normal_implied_vol(1.0, 5.0, 3.0, 1.0, True)


def test_units_and_shapes() -> None:
    assert forms.per_percent(2.0) == 0.02
    assert forms.per_day(np.array([365.0])).tolist() == [1.0]
    assert isinstance(forms.normal_price(1, 1, 1, 1, True), float)
    assert forms.normal_price(np.ones((2, 1)), np.ones(3), 1, 1, True).shape == (2, 3)
    assert forms.digital_price(np.ones(4)[::2], 1.0, 1.0, 0.2, True).shape == (2,)
