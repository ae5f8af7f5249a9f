"""An element's bits depend on its own inputs alone: not on its neighbours, its place, the length or how arrays lie.

Options are drawn from a pool of everything that takes a path of its own in the kernel, so that blocks mix series and
direct values, early and late converging volatilities, limits and nonsense.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pricing_exact import Columns, chain, hard

from native import black

pytestmark = pytest.mark.usefixtures("black_target")

OPTIONS = 1200
properties = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = (0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, 5e-324, 1e-308, 1e200, 1.7e308)


@functools.cache
def pool() -> Columns:
    """Price, forward, strike, expiry_years, vol, is_call, discount of OPTIONS options, chosen once."""
    rng = np.random.default_rng(77)
    parts = [chain(400, seed=31), chain(300, seed=32, width=30.0), hard(100, seed=33)]
    forward, strike, expiry, vol, call, discount = (np.concatenate(column) for column in zip(*parts, strict=True))
    price = black.price(forward, strike, expiry, vol, call, discount)
    assert len(price) == OPTIONS
    price[:200] = forward[:200] * rng.random(200)  # mostly another volatility, or none
    columns = [price, forward, strike, expiry, vol, discount]
    for column in columns:
        rows = rng.choice(OPTIONS, len(SPECIAL) * 2, replace=False)
        column[rows] = np.tile(SPECIAL, 2)
    strike[::23] = forward[::23]
    return price, forward, strike, expiry, vol, call, discount


def as_bits(values: np.ndarray) -> np.ndarray:
    """All NaNs as the same one."""
    return np.where(np.isnan(values), np.nan, values).view(np.uint64)


def bits(columns: Columns) -> np.ndarray:
    """Everything that the kernel computes, a row for each result."""
    price, forward, strike, expiry, vol, call, discount = columns
    options = (forward, strike, expiry, vol, call, discount)
    status = np.empty(len(price), np.uint8)
    solved = black.implied_vol(price, forward, strike, expiry, call, discount, status=status)
    values = [*black.greeks2(*options), *black.greeks(*options), black.price(*options), solved]
    return np.array([*(as_bits(value) for value in values), status.astype(np.uint64)])


@functools.lru_cache(maxsize=1)
def alone(target: str) -> np.ndarray:
    """The bits of each option of the pool as an array of one."""
    assert target == black.target()
    return np.concatenate([bits(tuple(column[i : i + 1] for column in pool())) for i in range(OPTIONS)], axis=1)


def places(most: int) -> st.SearchStrategy[list[int]]:
    """Options of the pool in any order and number, some often."""
    seeds = st.tuples(st.integers(0, 2**32), st.integers(1, most))
    seeded = seeds.map(lambda drawn: np.random.default_rng(drawn[0]).integers(0, OPTIONS, drawn[1]).tolist())
    return seeded | st.lists(st.integers(0, OPTIONS - 1), min_size=1, max_size=40)


@properties
@given(rows=places(900))
def test_any_neighbours_and_any_length(black_target, rows):
    columns = tuple(column[rows] for column in pool())
    assert np.array_equal(bits(columns), alone(black_target)[:, rows])


@properties
@given(row=st.integers(0, OPTIONS - 1), among=st.integers(0, OPTIONS - 1), count=st.integers(1, 530), data=st.data())
def test_one_among_many_of_another_kind(black_target, row, among, count, data):
    """Such as an ordinary option in blocks full of limits, or of volatilities that need further steps."""
    place = data.draw(st.integers(0, count - 1))
    rows = np.full(count, among)
    rows[place] = row
    columns = tuple(column[rows] for column in pool())
    assert np.array_equal(bits(columns), alone(black_target)[:, rows])


@properties
@given(rows=places(600), stride=st.integers(-3, 3).filter(bool), offset=st.integers(0, 7))
def test_how_arrays_lie_in_memory(black_target, rows, stride, offset):
    """Strided, reversed, and starting anywhere between two vectors."""
    laid = []
    for column in pool():
        room = np.zeros(offset + abs(stride) * len(rows), column.dtype)
        view = room[offset:][:: abs(stride)][: len(rows)]
        view = view[::-1] if stride < 0 else view
        view[:] = column[rows]
        laid.append(view)
    assert np.array_equal(bits(tuple(laid)), alone(black_target)[:, rows])


@properties
@given(rows=places(300), shared=st.sets(st.sampled_from(range(7))), as_number=st.booleans())
def test_one_value_for_all_elements(rows, shared, as_number):
    """Arrays of one element, or numbers, are the same as columns filled with them."""
    columns = [column[rows] for column in pool()]
    if len(shared) == 7 or len(rows) == 1:
        return
    given_ = list(columns)
    for c in shared:
        columns[c] = np.full(len(rows), columns[c][0])
        given_[c] = columns[c][0].item() if as_number else columns[c][:1]
    price, forward, strike, expiry, vol, call, discount = given_
    wanted = bits(tuple(columns))
    if not shared >= {0, 1, 2, 3, 5, 6}:  # else it is one option
        solved = black.implied_vol(price, forward, strike, expiry, call, discount)
        assert np.array_equal(as_bits(solved), wanted[-2])
    if not shared >= {1, 2, 3, 4, 5, 6}:
        values = black.greeks2(forward, strike, expiry, vol, call, discount)
        assert np.array_equal(np.array([as_bits(value) for value in values]), wanted[:10])


def test_price_greeks_and_all_greeks_agree_to_the_bit():
    found = bits(pool())
    assert np.array_equal(found[:6], found[10:16])
    assert np.array_equal(found[0], found[16])


def test_single_numbers_have_the_bits_of_elements(black_target):
    wanted = alone(black_target)
    for i, row in enumerate(zip(*(column.tolist() for column in pool()), strict=True)):
        price, *option = row
        try:
            alone_values = np.array([*black.greeks2(*option), *black.greeks(*option), black.price(*option)])
        except ValueError:
            assert np.isnan(wanted[:17, i].view(np.float64)).all()
        else:
            assert np.array_equal(as_bits(alone_values), wanted[:17, i]), row
        try:
            vol = black.implied_vol(price, *option[:3], *option[4:])
        except ValueError:
            assert wanted[-1, i] != black.Status.OK
        else:
            assert np.float64(vol).view(np.uint64) == wanted[-2, i], row
