"""Ten million random and adversarial options through every build of the kernel: `make soak`. The seed is printed;
FABRIC_SOAK_SEED gives it again, FABRIC_SOAK_OPTIONS another number.

Where there is an answer is decided here, from the inputs alone:

- a price, if forward, strike and discount are finite and not negative, expiry_years and vol are not negative (they may
  be infinite) and vol * sqrt(expiry_years) is not 0 * inf; everything else is NaN;
- all greeks, if besides forward, strike and discount are in 1e-150 .. 1e150, expiry_years and vol in 1e-60 .. 1e60 (further
  out their own magnitudes leave float64);
- an implied volatility, if all inputs are finite, forward, strike, discount and expiry_years above 0, and the price,
  exactly, above discount * intrinsic value and below discount * forward (call) or strike (put): by 64-bit mantissas, and by
  fractions where those can't tell. Minus infinity is a price below intrinsic value and an expiry in the past.

Where time value over discount * sqrt(forward * strike) is below 1e-300, "no time value" is right too. Beyond the magnitudes
above, and where discount * forward or strike is below 1e-250, only what is not finite or not positive has its status judged.
"""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import pytest
from pricing_exact import NAMES, Columns, chain, hard, value_errors, vol_errors

from native import black
from native.black import Status

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("black_target")]

OPTIONS = int(os.environ.get("FABRIC_SOAK_OPTIONS", "10000000"))
CHUNK = 100_000
SAMPLE = 30  # of each chunk, by mpmath
SPECIAL = np.array([0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, 2.3e-308, 1.7e308, 1.0])
WIDE = np.longdouble


def magnitudes(rng: np.random.Generator, reach: float, count: int) -> np.ndarray:
    return 10.0 ** rng.uniform(-reach, reach, count)


def draw(rng: np.random.Generator) -> Columns:
    """A tenth each as venues list them, far out, hard; the rest of any magnitude, and one in eight with a special value."""
    tenth = CHUNK // 10
    seed = int(rng.integers(2**31))
    parts = [chain(tenth, seed), chain(tenth, seed + 1, width=40.0), hard(tenth // 5, seed + 2)]
    count = CHUNK - 3 * tenth
    reach = rng.choice([2.0, 30.0, 100.0, 150.0])
    forward, expiry = magnitudes(rng, reach, count), magnitudes(rng, min(reach, 60.0), count)
    vol = np.where(rng.random(count) < 0.8, magnitudes(rng, 4.0, count) / np.sqrt(expiry), magnitudes(rng, 60.0, count))
    kind = rng.integers(0, 4, count)
    strike = forward * np.exp(rng.normal(0, 1, count) * 10.0 ** rng.uniform(-16, 1, count))
    strike = np.where(kind == 1, forward, strike)
    strike = np.where(kind == 2, forward * (1.0 + rng.integers(-4, 5, count) * 2.0**-52), strike)
    strike = np.where(kind == 3, magnitudes(rng, reach, count), strike)
    discount = np.where(rng.random(count) < 0.5, 1.0, magnitudes(rng, min(reach, 50.0), count))
    parts.append((forward, strike, expiry, vol, rng.random(count) < 0.5, discount))
    columns = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    for c in (0, 1, 2, 3, 5):
        rows = rng.choice(CHUNK, CHUNK // 40, replace=False)
        columns[c][rows] = rng.choice(SPECIAL, len(rows))
    return columns


def draw_prices(rng: np.random.Generator, columns: Columns) -> np.ndarray:
    """The model's, some last bits beside it or beside a bound, anything between the bounds, tiny ones, senseless ones."""
    forward, strike, _, _, call, discount = columns
    most, least = discount * np.where(call, forward, strike), np.where(call, forward - strike, strike - forward)
    least = discount * np.maximum(least, 0.0)
    model, kind = black.price(*columns), rng.integers(0, 8, CHUNK)
    nudge = rng.integers(-8, 9, CHUNK)
    price = model
    for which, base in ((1, model), (2, least), (3, most)):
        price = np.where(kind == which, (base.view(np.int64) + nudge).view(np.float64), price)
    price = np.where(kind == 4, least + (most - least) * rng.random(CHUNK), price)
    price = np.where(kind == 5, least + most * 10.0 ** rng.uniform(-300, -1, CHUNK), price)
    price = np.where(kind == 6, least, price)
    return np.where(rng.random(CHUNK) < 0.02, rng.choice(SPECIAL, CHUNK), price)


def priced(columns: Columns) -> np.ndarray:
    forward, strike, expiry, vol, _, discount = columns
    named = np.ones(CHUNK, bool)
    for column in (forward, strike, discount):
        named &= (column >= 0) & (column < np.inf)
    return named & (expiry >= 0) & (vol >= 0) & ~((vol == 0) & np.isinf(expiry)) & ~((expiry == 0) & np.isinf(vol))


def splits(columns: Columns) -> np.ndarray:
    """Where Veltkamp's splitting, which the baseline multiplies by, stays finite: test_black_edges has what is beyond."""
    return np.all([(column < 1e300) | (column == np.inf) | np.isnan(column) for column in columns[:4]], axis=0)


def ordinary(columns: Columns) -> np.ndarray:
    within = np.ones(CHUNK, bool)
    for c, reach in ((0, 1e150), (1, 1e150), (5, 1e150), (2, 1e60), (3, 1e60)):
        within &= (columns[c] >= 1 / reach) & (columns[c] <= reach)
    return within


def statuses(price: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The status of each, where ``NO_TIME_VALUE`` may stand instead of ``OK``, and where magnitudes allow to tell them apart."""
    forward, strike, expiry, _, call, discount = columns
    mine, other = np.where(call, forward, strike), np.where(call, strike, forward)
    finite = (price < np.inf) & np.isfinite(forward) & np.isfinite(strike) & (expiry < np.inf) & np.isfinite(discount)
    positive = finite & (forward > 0) & (strike > 0) & (discount > 0)
    rounded = discount * np.maximum(mine - other, 0.0)
    p, d, m, o = (WIDE(column) for column in (price, discount, mine, other))
    value, room = p - d * np.maximum(m - o, 0), d * m - p
    found = np.where(value > 0, np.where(room > 0, Status.OK, Status.ABOVE_MAXIMUM), Status.NO_TIME_VALUE)
    near = 16 * np.finfo(WIDE).eps * abs(p)
    unsure = positive & (price > 0) & (((m > o) & (abs(value) <= near)) | (abs(room) <= near))
    for i in np.flatnonzero(unsure):
        exact = [Fraction(float(column[i])) for column in (price, discount, mine, other)]
        if exact[0] <= exact[1] * max(exact[2] - exact[3], 0):
            found[i] = Status.NO_TIME_VALUE
        else:
            found[i] = Status.OK if exact[0] < exact[1] * exact[2] else Status.ABOVE_MAXIMUM
    # a price that is just the rounded intrinsic value is not called below it
    found[(found == Status.NO_TIME_VALUE) & (price < rounded)] = Status.BELOW_INTRINSIC
    found[~(expiry > 0)] = Status.EXPIRED
    found[~positive] = Status.NON_POSITIVE
    plain = ordinary((*columns[:3], np.ones(CHUNK), call, discount)) & (discount * np.minimum(mine, other) > 1e-250)
    plain |= (found == Status.EXPIRED) | (found == Status.NON_POSITIVE)
    return found, value < 1e-300 * d * np.sqrt(m) * np.sqrt(o), plain


def check_values(columns: Columns) -> black.Greeks2:
    call, discount = columns[4:]
    of, has_price, has_greeks = black.greeks2(*columns), priced(columns), ordinary(columns)
    shorter = black.greeks(*columns)
    assert all(getattr(shorter, name).tobytes() == getattr(of, name).tobytes() for name in shorter._fields)
    assert black.price(*columns).tobytes() == of.price.tobytes()
    settled = splits(columns)
    wrong = np.flatnonzero(settled & (np.isnan(of.price) == has_price))
    assert not len(wrong), (of.price[wrong[0]], [column[wrong[0]] for column in columns])
    for name in NAMES:
        missing = np.flatnonzero(has_greeks & np.isnan(getattr(of, name)))
        assert not len(missing), (name, [column[missing[0]] for column in columns])
    has_price &= settled
    some = tuple(column[has_price] for column in columns)
    price, most = of.price[has_price], some[5] * np.where(some[4], some[0], some[1])
    least = some[5] * np.maximum(np.where(some[4], some[0] - some[1], some[1] - some[0]), 0.0)
    assert ((price >= least) & (price <= most * (1 + 2.0**-51))).all()
    assert (of.gamma[has_greeks] >= 0).all()
    assert (of.vega[has_greeks] >= 0).all()
    share = (np.where(call, of.delta, -of.delta) / discount)[has_greeks]
    assert ((share >= 0) & (share <= 1 + 2.0**-51)).all()
    return of


def check_vols(price: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Statuses, and that the volatility gives the price back. Returns volatilities, and which can be judged closely."""
    forward, strike, expiry, _, call, discount = columns
    status, (wanted, tiny, plain) = np.empty(CHUNK, np.uint8), statuses(price, columns)
    solved = black.implied_vol(price, forward, strike, expiry, call, discount, status=status)
    right = (status == wanted) | (tiny & (wanted == Status.OK) & (status == Status.NO_TIME_VALUE))
    wrong = np.flatnonzero(plain & ~right)
    assert not len(wrong), (status[wrong[0]], wanted[wrong[0]], price[wrong[0]], [c[wrong[0]] for c in columns])
    wrong = np.flatnonzero(splits(columns) & (np.isnan(solved) == (status == Status.OK)))
    assert not len(wrong), (status[wrong[0]], price[wrong[0]], [c[wrong[0]] for c in columns])
    judged = (status == Status.OK) & ~tiny & plain
    judged &= (solved * np.sqrt(expiry) > 1e-280) & (np.minimum(price, price / discount) > 1e-290)
    assert ((solved > 0) & (solved < np.inf))[judged].all()
    again = black.greeks(forward, strike, expiry, solved, call, discount)
    with np.errstate(invalid="ignore"):
        missed = judged & ~(abs(again.price - price) <= 1e-13 * (price + solved * again.vega))
    wrong = np.flatnonzero(missed)
    assert not len(wrong), (solved[wrong[0]], price[wrong[0]], [column[wrong[0]] for column in columns])
    return solved, judged


def check_sample(rng, of: black.Greeks2, solved, judged, price, columns: Columns) -> dict[str, float]:
    """A few by mpmath: 5e-14; prices and rho beyond 20 deviations 1e-13; volatilities 1e-14 or 50 times what is attainable."""
    worst = dict.fromkeys((*NAMES, "implied vol"), 0.0)
    rows = rng.permutation(np.flatnonzero(ordinary(columns)))[:SAMPLE]
    some = tuple(column[rows] for column in columns)
    forward, strike, expiry, vol, _, discount = some
    s, x = vol * np.sqrt(expiry), np.log(forward / strike)
    far, least = abs(x) > 20.0 * s, np.minimum(1.0, forward) * np.minimum(1.0, np.sqrt(expiry))
    dense = np.log(least) - (abs(x / s) + s / 2) ** 2 / 2 > np.log(1e-290)  # density and vega are normal numbers
    for name, error in value_errors(type(of)(*(value[rows] for value in of)), some).items():
        value = abs(getattr(of, name)[rows])
        visible = dense & (np.minimum(value, value / discount) > 1e-290) & (np.maximum(value, value / discount) < 1e300)
        over = np.flatnonzero(visible & (error > np.where(far & (name in ("price", "rho")), 1e-13, 5e-14)))
        assert not len(over), (name, error[over[0]], [column[over[0]] for column in some])
        worst[name] = max(error[visible], default=0.0)
    rows = rng.permutation(np.flatnonzero(judged))[:SAMPLE]
    some = tuple(column[rows] for column in columns)
    error, attainable = vol_errors(solved[rows], price[rows], some)
    over = np.flatnonzero(error > np.maximum(1e-14, 50 * attainable))
    assert not len(over), (error[over[0]], price[rows[over[0]]], [column[over[0]] for column in some])
    worst["implied vol"] = max(error[attainable < 1e-16], default=0.0)
    return worst


def test_millions_of_options_without_a_missing_answer(black_target: str) -> None:
    seed = int(os.environ.get("FABRIC_SOAK_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"{OPTIONS:,} options, target {black_target}: FABRIC_SOAK_SEED={seed}")
    rng = np.random.default_rng(seed)
    worst = dict.fromkeys((*NAMES, "implied vol"), 0.0)
    with np.errstate(all="ignore"):
        for _ in range(max(1, OPTIONS // CHUNK)):
            columns = draw(rng)
            of = check_values(columns)
            price = draw_prices(rng, columns)
            solved, judged = check_vols(price, columns)
            for name, error in check_sample(rng, of, solved, judged, price, columns).items():
                worst[name] = max(worst[name], error)
    print("largest sampled errors:", ", ".join(f"{name} {error:.1e}" for name, error in worst.items()))
