"""What the pricing kernel is judged by: 60-digit arithmetic (mpmath), and the sets of options that tests and docs use.

Every float64 input is taken as exact. Options are columns in the order of ``native.black``: forward, strike,
expiry_years, vol, is_call, discount.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath as mp
import numpy as np

DIGITS = 60
NAMES = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm", "speed")
Columns = tuple[np.ndarray, ...]


def digits(s: float) -> int:
    """Black's formula subtracts two numbers that are about ``s`` apart."""
    return DIGITS + max(0, round(-math.log10(s)))


def exact(forward, strike, expiry, vol, is_call, discount=1.0):
    """All values and the natural size of each (the sum of the magnitudes of its terms), from exact inputs."""
    with mp.workdps(digits(vol * math.sqrt(expiry))):
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


def exact_price(forward, strike, expiry, vol, is_call, discount=1):
    """Black's formula as he wrote it, of numbers of any precision, at the precision in force."""
    sign = 1 if is_call else -1
    s = vol * mp.sqrt(expiry)
    d1 = mp.log(forward / strike) / s + s / 2
    n1, n2 = (mp.erfc(-sign * x / mp.sqrt(2)) / 2 for x in (d1, d1 - s))
    return discount * sign * (forward * n1 - strike * n2)


def value_errors(values, columns: Columns, names: Sequence[str] = NAMES) -> dict[str, np.ndarray]:
    """|value - exact| / size of each of ``names`` in a ``Greeks2``."""
    found = {name: np.empty(len(columns[0])) for name in names}
    for i, option in enumerate(zip(*columns, strict=True)):
        truth = exact(*option)
        for name in names:
            value, size = truth[name]
            got = float(getattr(values, name)[i])
            found[name][i] = float(abs(mp.mpf(got) - value) / size) if np.isfinite(got) else np.inf
    return found


def vol_errors(solved: np.ndarray, price: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of implied volatilities of float64 prices taken as exact, and how far half a last bit of the
    price moves each (no solver can be asked for better). The volatilities among ``columns`` are not used."""
    errors, attainable = np.full(len(price), np.inf), np.zeros(len(price))
    for i, (forward, strike, expiry, _, is_call, discount) in enumerate(zip(*columns, strict=True)):
        if np.isfinite(solved[i]):
            with mp.workdps(digits(solved[i] * math.sqrt(expiry))):
                f, k, t, d, p, got = (
                    mp.mpf(float(x)) for x in (forward, strike, expiry, discount, price[i], solved[i])
                )
                vol, vega = exact_vol(p, f, k, t, is_call, d, got)
                errors[i], attainable[i] = abs(got / vol - 1), abs(p) / (vega * vol) * 2.0**-53
    return errors, attainable


def exact_vol(price, forward, strike, expiry, is_call, discount, guess):
    """By Newton's steps from a guess that is close, and the vega there."""
    for _ in range(30):
        s = guess * mp.sqrt(expiry)
        vega = discount * forward * mp.npdf(mp.log(forward / strike) / s + s / 2) * mp.sqrt(expiry)
        step = (exact_price(forward, strike, expiry, guess, is_call, discount) - price) / vega
        guess -= step
        if abs(step) < guess * 1e-12:
            return guess, vega
    raise ArithmeticError(f"no volatility close to {guess}: {(price, forward, strike, expiry, is_call, discount)}")


def chain(count: int, seed: int, *, width: float = 3.0) -> Columns:
    """Options as a venue lists them: within ``width`` standard deviations."""
    rng = np.random.default_rng(seed)
    forward = rng.uniform(20e3, 120e3, count)
    expiry = np.exp(rng.uniform(np.log(1 / 8760), np.log(2.0), count))
    vol = rng.uniform(0.05, 2.5, count)
    strike = forward * np.exp(rng.uniform(-width, width, count) * vol * np.sqrt(expiry))
    return forward, strike, expiry, vol, rng.random(count) < 0.5, np.exp(-rng.uniform(-0.01, 0.1, count) * expiry)


HARD = (
    "far out of the money",
    "far in the money",
    "seconds to expiry",
    "at the money, next to no volatility",
    "huge volatility",
)


def hard(count: int, seed: int) -> Columns:
    """``count`` of each kind in HARD, one kind after the other."""
    rng = np.random.default_rng(seed)
    parts = []
    for kind in range(len(HARD)):
        forward, _, expiry, vol, call, discount = chain(count, seed * 10 + kind)
        side = rng.choice([-1.0, 1.0], count)
        if kind == 2:
            expiry = rng.uniform(1.0, 60.0, count) / (365 * 86400)
        if kind == 3:
            vol = 10.0 ** rng.uniform(-9, -3, count) / np.sqrt(expiry)
        if kind == 4:
            vol = rng.uniform(3.5, 12.0, count) / np.sqrt(expiry)
        s = vol * np.sqrt(expiry)
        wide = {0: rng.uniform(4.0, 30.0, count), 1: rng.uniform(3.0, 8.0, count), 3: 10.0 ** rng.uniform(-6, 0, count)}
        strike = forward * np.exp(side * wide.get(kind, rng.uniform(0.0, 3.0, count)) * s)
        if kind < 2:
            call = (strike > forward) == (kind == 0)
        parts.append((forward, strike, expiry, vol, call, discount))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


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
