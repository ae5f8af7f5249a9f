"""American options: a published value, a binomial tree, the perpetual put, and what must hold of every one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native.american import american_price
from native.forms import spot_price

rates = st.floats(0.0, 0.2)


def tree(s, k, t, v, call, r, q, steps):
    """Cox, Ross and Rubinstein, 1979."""
    step = t / steps
    up = math.exp(v * math.sqrt(step))
    chance = (math.exp((r - q) * step) - 1 / up) / (up - 1 / up)
    sign, keep = (1 if call else -1), math.exp(-r * step)
    value = np.maximum(sign * (s * up ** (steps - 2.0 * np.arange(steps + 1)) - k), 0)
    for level in range(steps - 1, -1, -1):
        spot = s * up ** (level - 2.0 * np.arange(level + 1))
        value = np.maximum(keep * (chance * value[:-1] + (1 - chance) * value[1:]), sign * (spot - k))
    return float(value[0])


def test_the_published_premium() -> None:
    """Andersen, Lake and Offengenden (2016), table 2: K = S = 100, r = q = 5 %, vol 25 %, one year."""
    case = (100.0, 100.0, 1.0, 0.25, False, 0.05, 0.05)
    assert american_price(*case) - spot_price(*case) == pytest.approx(0.106952702747, abs=5e-8)


@pytest.mark.parametrize(
    "case",
    [
        (100, 100, 0.5, 0.3, False, 0.08, 0.0),
        (100, 110, 2, 0.2, False, 0.06, 0.03),
        (90, 100, 1, 0.4, True, 0.03, 0.07),
        (80, 100, 3, 0.2, False, 0.04, 0.08),
        (100, 100, 1, 0.3, False, 0.05, -0.02),
        (100, 120, 10, 0.3, True, 0.02, 0.05),
    ],
    ids=str,
)
def test_a_tree_agrees_as_far_as_it_goes(case: tuple[float, ...]) -> None:
    fine = (tree(*case, 2000) + tree(*case, 2001)) / 2
    assert american_price(*case) == pytest.approx(fine, rel=1e-4)


def test_the_perpetual_put() -> None:
    """R. C. Merton, 1973: exercised at K h / (h + 1), h = 2 r / vol^2 without a dividend."""
    s, k, v, r = 100.0, 95.0, 0.3, 0.06
    h = 2 * r / v**2
    at = k * h / (h + 1)
    assert american_price(s, k, 200.0, v, False, r) == pytest.approx((k - at) * (s / at) ** -h, rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.floats(20, 500), st.floats(20, 500), st.floats(0.001, 5), st.floats(0.02, 1.5), st.booleans(), rates, rates)
def test_never_below_exercise_or_the_european_and_the_same_by_symmetry(
    s: float, k: float, t: float, v: float, call: bool, r: float, q: float
) -> None:
    found = american_price(s, k, t, v, call, r, q)
    european = spot_price(s, k, t, v, call, r, q)
    sign = 1 if call else -1
    slack = 1e-6 * max(s, k)
    assert found >= max(sign * (s - k), 0.0)
    assert found >= european - slack
    assert found <= (s if call else k)
    assert american_price(k, s, t, v, not call, q, r) == found
    assert american_price(s, k, t * 1.1, v, call, r, q) >= found - slack, "more time is never worth less"


def test_a_call_without_dividend_is_a_european_one() -> None:
    assert american_price(100, 90, 1, 0.2, True, 0.05) == pytest.approx(
        spot_price(100, 90, 1, 0.2, True, 0.05), rel=1e-12
    )


def test_limits_shapes_and_what_has_no_answer() -> None:
    assert american_price(90, 100, 0, 0.2, False, 0.05) == 10.0
    assert american_price(90, 100, 1, 0.0, False, 0.05) == 10.0
    assert american_price(50, 100, 1, 0.2, False, 0.05) == 50.0, "below the boundary: exercised"
    assert math.isnan(american_price(-1, 100, 1, 0.2, False, 0.05))
    assert math.isnan(american_price(100, 100, 1, 0.2, False, -0.01, -0.05)), "two boundaries"
    assert american_price(np.full((2, 1), 100.0), np.array([90.0, 100.0, 110.0]), 1, 0.2, False, 0.05).shape == (2, 3)


@pytest.mark.parametrize("rate", [0.0, 5e-324, 1e-18, 1e-16, 1e-12])
@pytest.mark.parametrize(("vol", "dividend", "tree"), [(0.2, -0.05, 6.26405), (0.3, -0.05, 10.1791)])
def test_next_to_no_rate_but_a_negative_dividend(rate, vol, dividend, tree):
    """What exercise saves then is the dividend, which may be much. (A tree of 4,000 steps.)"""
    found = american_price(100.0, 100.0, 1.0, vol, False, rate, dividend)
    if rate == 0.0:
        assert np.isnan(found)  # two boundaries
    else:
        assert found == pytest.approx(tree, abs=4e-4)
        assert american_price(100.0, 100.0, 1.0, vol, True, dividend, rate) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-18, 1e-15])
@pytest.mark.parametrize("dividend", [0.0, 0.125])
def test_next_to_no_rate_is_european(rate, dividend):
    found = american_price(20.0, 20.0, 1.0, 1.0, False, rate, dividend)
    assert found == pytest.approx(american_price(20.0, 20.0, 1.0, 1.0, False, 0.0, dividend), rel=1e-12)
