"""Exact limits, edge input and what is said of it; the largest magnitudes. Statuses by cause are in test_black_arrays."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from pricing_exact import chain, exact

from native import black
from native.black import Status

INF, NAN = math.inf, math.nan


@pytest.mark.usefixtures("black_target")
@pytest.mark.parametrize("call", [True, False])
def test_no_time_or_no_volatility(call: bool) -> None:
    """The discounted intrinsic value exactly, delta 0, the discount or half of it, and no other sensitivity."""
    for forward, strike in ((110.0, 100.0), (90.0, 100.0), (100.0, 100.0)):
        for expiry, vol in ((0.0, 0.2), (0.5, 0.0)):
            of = black.greeks2(forward, strike, expiry, vol, call, 1.0)
            gain = forward - strike if call else strike - forward
            side = 1.0 if call else -1.0
            assert of.price == max(gain, 0.0)
            assert of.delta == side * (1.0 if gain > 0 else 0.5 if gain == 0 else 0.0)
            assert of.rho == -expiry * of.price
            assert of.volga == 0.0
            if gain != 0:
                assert of.gamma == of.vega == of.theta == of.vanna == of.charm == of.speed == 0.0
                continue
            root = math.sqrt(expiry / (2 * math.pi))
            assert of.gamma == INF
            assert of.vega == pytest.approx(100.0 * root, rel=1e-15)
            assert of.vanna == pytest.approx(0.5 * root, rel=1e-15)
            assert (of.theta, of.charm) == ((-INF, -INF) if vol > 0 else (0.0, 0.0))
            assert math.isnan(of.speed), "depends on the way to the limit"


@pytest.mark.usefixtures("black_target")
def test_a_discount_at_no_time_has_no_rate() -> None:
    of = black.greeks2(np.array([110.0, 90.0]), 100.0, 0.0, 0.2, True, 0.9)
    assert of.price.tolist() == [9.0, 0.0]
    assert of.delta.tolist() == [0.9, 0.0]
    assert np.isnan(of.theta).all()


@pytest.mark.usefixtures("black_target")
def test_at_the_money_is_the_error_function() -> None:
    """F = K: the value is D F (2 N(s / 2) - 1), down to the smallest volatilities; and back."""
    for s in (1e-280, 1e-100, 1e-16, 1e-8, 1e-3, 0.4999999, 0.5, 0.5000001, 1.0, 3.0, 10.0):
        with mp.workdps(40):
            wanted = float(mp.mpf(90) * mp.erf(mp.mpf(s) / (2 * mp.sqrt(2))))
        for call in (True, False):
            found = black.price(100.0, 100.0, 1.0, s, call, 0.9)
            assert found == pytest.approx(wanted, rel=5e-15, abs=0.0), s
            if s <= 3.0:
                assert black.implied_vol(wanted, 100.0, 100.0, 1.0, call, 0.9) == pytest.approx(
                    s, rel=3e-15, abs=0.0
                ), s


@pytest.mark.usefixtures("black_target")
def test_one_last_bit_from_the_money() -> None:
    for strike in (math.nextafter(100.0, 0.0), math.nextafter(100.0, 200.0)):
        for s in (1e-17, 1e-16, 1e-12, 0.3):
            for call in (True, False):
                of, truth = black.greeks2(100.0, strike, 1.0, s, call), exact(100.0, strike, 1.0, s, call)
                for name in ("price", "delta", "gamma", "vega"):
                    assert getattr(of, name) == pytest.approx(float(truth[name][0]), rel=2e-14, abs=0.0), (
                        strike,
                        s,
                        name,
                    )


@pytest.mark.usefixtures("black_target")
def test_without_end() -> None:
    """Endless time or volatility: the value has a limit, the greeks have none worth the name."""
    for expiry, vol in ((1.0, INF), (INF, 0.2), (INF, INF)):
        assert black.price(100.0, 90.0, expiry, vol, True, 0.9) == 90.0
        assert black.price(100.0, 90.0, expiry, vol, False, 0.9) == 81.0
        assert math.isnan(black.greeks(100.0, 90.0, expiry, vol, True).delta)
    for expiry, vol in ((0.0, INF), (INF, 0.0)):
        assert np.isnan(black.price(np.array([100.0]), 90.0, expiry, vol, True)).all()
        with pytest.raises(ValueError, match="expiry_years and vol have no product"):
            black.price(100.0, 90.0, expiry, vol, True)


@pytest.mark.usefixtures("black_target")
def test_infinite_input_is_named() -> None:
    good = {"forward": 100.0, "strike": 90.0, "discount": 0.9}
    for name in good:
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            black.price(**{**good, name: INF}, expiry_years=1.0, vol=0.2, is_call=True)


@pytest.mark.usefixtures("black_target")
def test_a_price_at_its_bounds() -> None:
    """The last prices that have a volatility, and the first that have none, by one last bit."""
    for forward, strike, call, discount in (
        (110.0, 100.0, True, 1.0),
        (100.0, 110.0, False, 1.0),
        (64.0, 32.0, True, 0.5),
    ):
        least, most = discount * abs(forward - strike), discount * (forward if call else strike)
        prices = [math.nextafter(least, 0), least, math.nextafter(least, most), math.nextafter(most, 0), most, most * 2]
        status = np.empty(6, np.uint8)
        solved = black.implied_vol(np.array(prices), forward, strike, 1.0, call, discount, status=status)
        wanted = [Status.BELOW_INTRINSIC, Status.NO_TIME_VALUE, Status.OK, Status.OK]
        assert status.tolist() == [*wanted, Status.ABOVE_MAXIMUM, Status.ABOVE_MAXIMUM]
        assert np.isfinite(solved).tolist() == [False, False, True, True, False, False]


@pytest.mark.usefixtures("black_target")
def test_statuses_next_to_the_bounds_are_exact() -> None:
    """Prices a few last bits from rounded bounds; where the exact product D (F - K) or D F lies, fractions tell."""
    rng = np.random.default_rng(6)
    forward, strike, expiry, _, call, discount = chain(1500, seed=6)
    mine, other = np.where(call, forward, strike), np.where(call, strike, forward)
    least, most = discount * np.maximum(mine - other, 0.0), discount * mine
    price = np.where((rng.random(1500) < 0.7) & (least > 0.0), least, most)
    price += rng.integers(-2, 3, 1500) * np.spacing(price)
    status, wanted = np.empty(1500, np.uint8), []
    black.implied_vol(price, forward, strike, expiry, call, discount, status=status)
    for p, d, m, o, floor in zip(price, discount, mine, other, least, strict=True):
        exact_p, exact_d, exact_m, exact_o = (Fraction(float(x)) for x in (p, d, m, o))
        if exact_p <= exact_d * max(exact_m - exact_o, 0):
            wanted.append(Status.BELOW_INTRINSIC if p < floor else Status.NO_TIME_VALUE)
        else:
            wanted.append(Status.OK if exact_p < exact_d * exact_m else Status.ABOVE_MAXIMUM)
    assert set(wanted) == {Status.OK, Status.BELOW_INTRINSIC, Status.ABOVE_MAXIMUM, Status.NO_TIME_VALUE}
    assert status.tolist() == wanted


@pytest.mark.usefixtures("black_target")
def test_forty_deviations_out_nothing_is_left() -> None:
    of = black.greeks2(100.0, 100.0 * math.exp(8.0), 1.0, 0.2, True)
    assert all(value == 0.0 for value in of)
    of = black.greeks2(100.0, 100.0 * math.exp(-8.0), 1.0, 0.2, True)
    assert of.price == 100.0 - 100.0 * math.exp(-8.0)
    assert of.delta == 1.0


@pytest.mark.usefixtures("black_target")
def test_the_largest_numbers_have_an_answer() -> None:
    assert black.price(1e77, 1e77, 1e-39, 1.7e308, True) == 1e77


@pytest.mark.usefixtures("black_target")
def test_the_largest_strikes_have_a_volatility() -> None:
    assert black.implied_vol(5e19, 1e20, 1e302, 1.0, True) == pytest.approx(36.06462922, rel=1e-9)


@pytest.mark.usefixtures("black_target")
def test_a_volatility_that_has_not_come_to_rest_goes_on() -> None:
    """Where the first guess is worst among the options near the money, two steps leave up to 8e-13."""
    rng = np.random.default_rng(12)
    s, a = 2.0 * rng.uniform(2.4, 2.7, 50_000), rng.uniform(2.2, 2.5, 50_000)
    strike = 100.0 * np.exp(a * s)
    solved = black.implied_vol(black.price(100.0, strike, 1.0, s, True), 100.0, strike, 1.0, True)
    assert np.abs(solved / s - 1.0).max() < 5e-15
