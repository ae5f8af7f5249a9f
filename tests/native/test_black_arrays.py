"""How the pricing kernel takes arrays: shapes, outputs, edge inputs, and that elements do not touch one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native import black
from native.black import Status

pytestmark = pytest.mark.usefixtures("black_target")
FUNCTIONS = [black.price, black.greeks, black.greeks2]


def as_list(result):
    return [result] if isinstance(result, np.ndarray | float) else list(result)


def options(count: int):
    rng = np.random.default_rng(11)
    forward = rng.uniform(50.0, 150.0, count)
    return forward, forward * rng.uniform(0.5, 2, count), rng.uniform(0.01, 2, count), rng.uniform(0.1, 1, count)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_scalars_give_floats_equal_to_array_elements(function):
    forward, strike, expiry, vol = options(50)
    call = strike > forward
    arrays = as_list(function(forward, strike, expiry, vol, call, 0.9))
    for i in range(50):
        numbers = as_list(function(forward[i], strike[i], expiry[i], vol[i], call[i], 0.9))
        plain = as_list(
            function(float(forward[i]), float(strike[i]), float(expiry[i]), float(vol[i]), bool(call[i]), 0.9)
        )
        assert all(type(number) is float for number in numbers + plain)
        assert numbers == plain == [array[i] for array in arrays]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_broadcasts_like_a_ufunc(function):
    forward, strike, expiry, vol = options(6)
    grid = as_list(function(forward[:, None], strike[None, :], expiry[0], vol[:, None], True))
    full = [np.ascontiguousarray(a) for a in np.broadcast_arrays(forward[:, None], strike[None, :], vol[:, None])]
    flat = as_list(function(full[0], full[1], expiry[0], full[2], np.ones((6, 6), bool)))
    for ours, theirs in zip(grid, flat, strict=True):
        assert ours.shape == (6, 6)
        assert np.array_equal(ours, theirs)
    assert as_list(function([100.0], 100, 1, 0.2, True))[0].shape == (1,)
    assert as_list(function(np.empty((0, 3)), 100.0, 1.0, 0.2, True))[0].shape == (0, 3)
    with pytest.raises(ValueError, match="broadcast"):
        function(forward, strike[:5], 1.0, 0.2, True)


def test_input_need_not_be_contiguous_aligned_or_native():
    forward, strike, expiry, vol = options(64)
    call = strike > forward
    expected = black.price(forward, strike, expiry, vol, call)
    packed = np.zeros(64, np.dtype([("pad", "u1"), ("strike", "f8"), ("expiry", ">f8"), ("call", "?")]))
    packed["strike"], packed["expiry"], packed["call"] = strike, expiry, call
    wide = np.repeat(forward, 3)[::3]
    backwards = vol[::-1].copy()[::-1]
    assert not packed["strike"].flags.aligned
    got = black.price(wide, packed["strike"], packed["expiry"], backwards, packed["call"].astype("i4"))
    assert np.array_equal(got, expected)
    square = forward.reshape(8, 8)
    assert np.array_equal(black.price(square.T, 100.0, 1.0, 0.2, True), black.price(square, 100.0, 1.0, 0.2, True).T)


def test_out_is_filled_in_place():
    forward, strike, expiry, vol = options(64)
    expected = black.greeks(forward, strike, expiry, vol, True)
    out = black.Greeks(*(np.full(128, -1.0)[::2] for _ in range(6)))
    assert black.greeks(forward, strike, expiry, vol, True, out=out) is out
    for ours, theirs in zip(out, expected, strict=True):
        assert np.array_equal(ours, theirs)
        assert (ours.base[1::2] == -1.0).all()
    square = np.empty((8, 8)).T
    assert black.price(forward.reshape(8, 8), 100.0, 1.0, 0.3, True, out=square) is square
    assert np.array_equal(square.ravel(), black.price(forward, 100.0, 1.0, 0.3, True))
    same = forward.copy()
    assert np.array_equal(black.price(same, strike, expiry, vol, True, out=same), expected.price)
    shifted = np.concatenate([forward, [0.0]])
    black.price(shifted[:-1], strike, expiry, vol, True, out=shifted[1:])
    assert np.array_equal(shifted[1:], expected.price)


def test_out_may_be_a_matrix():
    room = np.zeros(1000)
    matrix = room[:100].reshape(10, 10).view(np.matrix)
    assert black.price(np.full((10, 10), 100.0), 100.0, 1.0, 0.2, True, out=matrix) is matrix
    assert (room[:100] == black.price(100.0, 100.0, 1.0, 0.2, True)).all()
    assert (room[100:] == 0.0).all()


@pytest.mark.parametrize("count", [5, 256, 300])
def test_one_array_for_all_that_is_not_wanted(count):
    forward, strike, expiry, vol = options(count)
    expected = black.greeks2(forward, strike, expiry, vol, True)
    for wanted in black.Greeks2._fields:
        scratch, kept = np.empty(count), np.empty(count)
        out = black.Greeks2(*(kept if name == wanted else scratch for name in black.Greeks2._fields))
        assert black.greeks2(forward, strike, expiry, vol, True, out=out) is out
        assert np.array_equal(kept, getattr(expected, wanted))


def test_out_of_the_wrong_kind_is_refused():
    forward = np.full(4, 100.0)
    for out in (np.empty(3), np.empty(4, np.float32), [0.0] * 4):
        with pytest.raises(ValueError, match="out must be an array of float64"):
            black.price(forward, 100.0, 1.0, 0.2, True, out=out)
    frozen = np.empty(4)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        black.price(forward, 100.0, 1.0, 0.2, True, out=frozen)
    with pytest.raises(ValueError, match="6 arrays"):
        black.greeks(forward, 100.0, 1.0, 0.2, True, out=(np.empty(4),))
    with pytest.raises(ValueError, match="status must be an array of uint8"):
        black.implied_vol(forward / 10, forward, 100.0, 1.0, True, status=np.empty(4))


def test_flags_of_plus_and_minus_one_are_refused():
    with pytest.raises(ValueError, match=r"not \+1 and -1"):
        black.price(100.0, 100.0, 1.0, 0.2, np.array([1, -1]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ((100.0, 90.0, 0.0, 0.2, True, 0.9), 9.0),
        ((100.0, 90.0, 1.0, 0.0, True, 0.9), 9.0),
        ((100.0, 90.0, 1.0, 0.0, False, 0.9), 0.0),
        ((100.0, 100.0, 0.0, 0.0, True, 1.0), 0.0),
        ((0.0, 90.0, 1.0, 0.2, False, 0.9), 81.0),
        ((100.0, 0.0, 1.0, 0.2, True, 0.9), 90.0),
        ((100.0, 90.0, 1.0, math.inf, True, 0.9), 90.0),
        ((100.0, 90.0, 1.0, math.inf, False, 0.9), 81.0),
        ((100.0, 90.0, 1.0, 1e-200, True, 1.0), 10.0),
        ((100.0, 900.0, 1.0, 1e-3, True, 1.0), 0.0),
    ],
)
def test_limits_are_exact(option, value):
    assert black.price(*option) == value
    assert black.greeks2(*option).price == value


def test_greeks_at_expiry():
    values = black.greeks2(np.array([110.0, 90.0, 100.0]), 100.0, 0.0, 0.2, True)
    assert values.delta.tolist() == [1.0, 0.0, 0.5]
    assert values.gamma.tolist() == [0.0, 0.0, math.inf]
    assert values.vega.tolist() == [0.0, 0.0, 0.0]
    assert values.theta.tolist() == [0.0, 0.0, -math.inf]


def test_input_without_meaning():
    good = [100.0, 90.0, 1.0, 0.2, 0.9]
    for position, name in enumerate(("forward", "strike", "expiry_years", "vol", "discount")):
        for bad in (-1.0, math.nan):
            values = list(good)
            values[position] = bad
            forward, strike, expiry, vol, discount = values
            for function in FUNCTIONS:
                with pytest.raises(ValueError, match=name):
                    function(forward, strike, expiry, vol, True, discount)
                mixed = as_list(function(np.array([forward, 100.0]), strike, expiry, vol, True, discount))
                assert all(np.isnan(array[0]) for array in mixed)


IMPLIED_EDGES = [
    ((10.0, 100.0, 100.0, 1.0, True, 1.0), Status.OK, ""),
    ((9.9, 110.0, 100.0, 1.0, True, 1.0), Status.BELOW_INTRINSIC, "below intrinsic"),
    ((-0.1, 90.0, 100.0, 1.0, True, 1.0), Status.BELOW_INTRINSIC, "below intrinsic"),
    ((100.0, 100.0, 90.0, 1.0, True, 1.0), Status.ABOVE_MAXIMUM, "largest"),
    ((95.0, 100.0, 90.0, 1.0, False, 1.0), Status.ABOVE_MAXIMUM, "largest"),
    ((10.0, 100.0, 100.0, 0.0, True, 1.0), Status.EXPIRED, "expiry_years"),
    ((10.0, 100.0, 100.0, -1.0, True, 1.0), Status.EXPIRED, "expiry_years"),
    ((10.0, 0.0, 100.0, 1.0, True, 1.0), Status.NON_POSITIVE, "forward"),
    ((10.0, 100.0, -1.0, 1.0, True, 1.0), Status.NON_POSITIVE, "strike"),
    ((10.0, 100.0, 100.0, 1.0, True, 0.0), Status.NON_POSITIVE, "discount"),
    ((math.nan, 100.0, 100.0, 1.0, True, 1.0), Status.NON_POSITIVE, "finite"),
    ((10.0, 100.0, 100.0, math.nan, True, 1.0), Status.NON_POSITIVE, "finite"),
    ((0.0, 90.0, 100.0, 1.0, True, 1.0), Status.NO_TIME_VALUE, "no time value"),
    ((9.0, 110.0, 100.0, 1.0, True, 0.9), Status.NO_TIME_VALUE, "no time value"),
]


def test_status_of_each_element():
    columns = [np.array(column) for column in zip(*(edge[0] for edge in IMPLIED_EDGES), strict=True)]
    status = np.full(len(IMPLIED_EDGES), 99, np.uint8)
    solved = black.implied_vol(*columns, status=status)
    assert status.tolist() == [edge[1] for edge in IMPLIED_EDGES]
    assert np.array_equal(np.isnan(solved), status != Status.OK)


@pytest.mark.parametrize(("option", "status", "words"), IMPLIED_EDGES)
def test_a_single_price_without_solution_says_why(option, status, words):
    if status == Status.OK:
        assert black.price(option[1], option[2], option[3], black.implied_vol(*option), True) == pytest.approx(10.0)
        return
    with pytest.raises(ValueError, match=words):
        black.implied_vol(*option)


any_number = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.0, 200.0) | st.sampled_from([0.0, 100.0])


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(any_number, any_number, any_number, any_number, st.booleans()), min_size=1, max_size=40))
def test_an_element_depends_on_its_own_inputs_alone(rows):
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    values = [*black.greeks2(*columns), black.price(*columns)]
    status = np.empty(len(rows), np.uint8)
    price, forward, strike, expiry, call = columns
    values.append(black.implied_vol(price, forward, strike, expiry, call, status=status))
    for i in range(len(rows)):
        alone = [column[i : i + 1] for column in columns]
        code = np.empty(1, np.uint8)
        singles = [*black.greeks2(*alone), black.price(*alone), black.implied_vol(*alone, status=code)]
        assert [single.tobytes() for single in singles] == [value[i : i + 1].tobytes() for value in values]
        assert code[0] == status[i]
        assert (code[0] == Status.OK) == bool(np.isfinite(singles[-1][0]))
