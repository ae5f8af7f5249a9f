"""Other forms of European options over the Black-76 kernel: to the spot, inverse, digital, and Bachelier's normal model.

Spot and inverse forms are the kernel's results carried over by the chain rule; the normal model has a loop of its own.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY, NAN, erfc, exp, fabs, isfinite, log, sqrt
from libc.stdint cimport uint8_t

from native import black
from native.black import Greeks, Greeks2

cnp.import_array()

cdef enum:
    STEPS = 100

cdef double SQRT_HALF = 0.70710678118654752440
cdef double SQRT_TWO_PI = 2.50662827463100050242
cdef double FAR = 2.0  # from here on a continued fraction, which cancels nothing


# To the spot


def _forward(spot, expiry_years, rate, dividend):
    spot, expiry_years, rate, dividend = (
        np.asarray(each, np.float64) for each in (spot, expiry_years, rate, dividend)
    )
    growth = np.exp((rate - dividend) * expiry_years)
    return spot * growth, growth, np.exp(-rate * expiry_years), rate - dividend, expiry_years


def spot_price(spot, strike, expiry_years, vol, is_call, rate=0.0, dividend=0.0):
    forward, _, discount, _, expiry_years = _forward(spot, expiry_years, rate, dividend)
    return black.price(forward, strike, expiry_years, vol, is_call, discount)


def spot_greeks(spot, strike, expiry_years, vol, is_call, rate=0.0, dividend=0.0):
    forward, growth, discount, carry, expiry_years = _forward(spot, expiry_years, rate, dividend)
    of = black.greeks2(forward, strike, expiry_years, vol, is_call, discount)
    drift = -carry * forward  # of the forward, as calendar time passes at a fixed spot
    return Greeks2(
        price=of.price,
        delta=of.delta * growth,
        gamma=of.gamma * growth**2,
        vega=of.vega,
        theta=of.theta + drift * of.delta,
        rho=of.rho + expiry_years * forward * of.delta,
        vanna=of.vanna * growth,
        volga=of.volga,
        charm=growth * (of.charm + drift * of.gamma - carry * of.delta),
        speed=of.speed * growth**3,
    )


def spot_implied_vol(price, spot, strike, expiry_years, is_call, rate=0.0, dividend=0.0, status=None):
    forward, _, discount, _, expiry_years = _forward(spot, expiry_years, rate, dividend)
    return black.implied_vol(price, forward, strike, expiry_years, is_call, discount, status=status)


# Settled in the underlying coin


def inverse_price(forward, strike, expiry_years, vol, is_call, discount=1.0):
    return black.price(forward, strike, expiry_years, vol, is_call, discount) / np.asarray(forward, np.float64)


def inverse_greeks(forward, strike, expiry_years, vol, is_call, discount=1.0):
    of = black.greeks(forward, strike, expiry_years, vol, is_call, discount)
    forward = np.asarray(forward, np.float64)
    price = of.price / forward
    delta = (of.delta - price) / forward
    return Greeks(
        price=price,
        delta=delta,
        gamma=(of.gamma - 2.0 * delta) / forward,
        vega=of.vega / forward,
        theta=of.theta / forward,
        rho=of.rho / forward,
    )


def inverse_implied_vol(price, forward, strike, expiry_years, is_call, discount=1.0, status=None):
    in_strike_currency = np.asarray(price, np.float64) * forward
    return black.implied_vol(in_strike_currency, forward, strike, expiry_years, is_call, discount, status=status)


# Digital


cdef double cumulative(double x) noexcept nogil:
    """The standard normal distribution function, without cancellation in its lower tail."""
    return 0.5 * erfc(-x * SQRT_HALF)


cdef double digital_one(
    double forward, double strike, double expiry, double vol, bint is_call, double discount, bint asset
) noexcept nogil:
    cdef double deviation, moneyness, share
    if not (forward > 0 and strike > 0 and expiry >= 0 and vol >= 0 and discount > 0):
        return NAN
    if not (isfinite(forward) and isfinite(strike) and isfinite(expiry) and isfinite(vol) and isfinite(discount)):
        return NAN
    deviation = vol * sqrt(expiry)
    if deviation == 0:
        share = 0.5 if forward == strike else (1.0 if (forward > strike) == is_call else 0.0)
    else:
        moneyness = log(forward / strike) / deviation + (0.5 if asset else -0.5) * deviation
        share = cumulative(moneyness if is_call else -moneyness)
    return discount * share * (forward if asset else 1.0)


# The normal model


cdef double tail(double x) noexcept nogil:
    """(1 - x R(x)) sqrt(2 pi) phi(x) for x >= 0, R Mills' ratio: the value of a normal option for a unit deviation that is
    x deviations out of the money, times sqrt(2 pi)."""
    cdef double fraction
    cdef int n
    if x < FAR:
        return exp(-0.5 * x * x) - x * 0.5 * SQRT_TWO_PI * erfc(x * SQRT_HALF)
    fraction = x
    for n in range(STEPS, 1, -1):  # c = 1/(x + 2/(x + 3/(x + ...))), 1 - x R = c / (x + c)
        fraction = x + n / fraction
    return exp(-0.5 * x * x) / (1.0 + x * fraction)


cdef double normal_one(
    double forward, double strike, double expiry, double vol, bint is_call, double discount
) noexcept nogil:
    cdef double deviation, distance, inside
    if not (isfinite(forward) and isfinite(strike) and isfinite(expiry) and isfinite(vol) and isfinite(discount)):
        return NAN
    if not (expiry >= 0 and vol >= 0 and discount > 0):
        return NAN
    deviation = vol * sqrt(expiry)
    distance = forward - strike if is_call else strike - forward
    inside = distance if distance > 0 else 0.0
    if deviation == 0:
        return discount * inside
    return discount * (inside + deviation * tail(fabs(distance) / deviation) / SQRT_TWO_PI)


cdef double normal_vol_one(
    double price, double forward, double strike, double expiry, bint is_call, double discount, uint8_t *status
) noexcept nogil:
    cdef double distance, outside, target, x, value, slope, ratio, step, low, high
    cdef int n
    status[0] = 4
    if not (isfinite(price) and isfinite(forward) and isfinite(strike) and isfinite(discount) and discount > 0):
        return NAN
    status[0] = 3
    if not (expiry > 0 and isfinite(expiry)):
        return NAN
    distance = forward - strike if is_call else strike - forward
    outside = price / discount - (distance if distance > 0 else 0.0)
    if outside < 0:
        status[0] = 1
        return NAN
    if outside == 0:
        status[0] = 5
        return NAN
    status[0] = 0
    distance = fabs(distance)
    if distance == 0:
        return outside * SQRT_TWO_PI / sqrt(expiry)
    # Solve tail(x) / x = target for x, the distance in deviations: log of it falls steadily, so Newton's steps on the log
    # with a bracket always arrive.
    target = log(outside / distance) + log(SQRT_TWO_PI)
    low, high = 0.0, INFINITY
    x = 1.0 / (outside / distance * SQRT_TWO_PI) if target > 0 else sqrt(max(1e-300, -2.0 * target)) * 0.7 + 0.3
    for n in range(100):
        value = tail(x)
        if value <= 0:
            high = x
            x = 0.5 * (low + high)
            continue
        ratio = log(value / x) - target
        if ratio > 0:
            low = x
        else:
            high = x
        # d/dx tail = -x... tail'(x) = -sqrt(2 pi) N(-x)
        slope = -0.5 * SQRT_TWO_PI * erfc(x * SQRT_HALF) / value - 1.0 / x
        step = ratio / slope
        if fabs(step) <= 2e-16 * x:
            break
        if x - step > low and x - step < high:
            x -= step
        else:
            x = 0.5 * (low + high) if high < INFINITY else 2.0 * x
    return distance / (x * sqrt(expiry))


# Broadcasting


cdef tuple spread(tuple given):
    """float64 arrays of one shape, contiguous, and that shape."""
    arrays = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in given))
    return [np.ascontiguousarray(each).reshape(-1) for each in arrays], arrays[0].shape


def _result(values, shape):
    return values.reshape(shape) if shape else float(values[0])


def digital_price(forward, strike, expiry_years, vol, is_call, discount=1.0, *, asset=False):
    columns, shape = spread((forward, strike, expiry_years, vol, is_call, discount))
    cdef const double[::1] f = columns[0], k = columns[1], t = columns[2], s = columns[3], c = columns[4], d = columns[5]
    found = np.empty(len(columns[0]))
    cdef double[::1] out = found
    cdef Py_ssize_t i, n = out.shape[0]
    cdef bint of_asset = asset
    with nogil:
        for i in range(n):
            out[i] = digital_one(f[i], k[i], t[i], s[i], c[i] != 0, d[i], of_asset)
    return _result(found, shape)


def normal_price(forward, strike, expiry_years, vol, is_call, discount=1.0):
    columns, shape = spread((forward, strike, expiry_years, vol, is_call, discount))
    cdef const double[::1] f = columns[0], k = columns[1], t = columns[2], s = columns[3], c = columns[4], d = columns[5]
    found = np.empty(len(columns[0]))
    cdef double[::1] out = found
    cdef Py_ssize_t i, n = out.shape[0]
    with nogil:
        for i in range(n):
            out[i] = normal_one(f[i], k[i], t[i], s[i], c[i] != 0, d[i])
    return _result(found, shape)


def normal_implied_vol(price, forward, strike, expiry_years, is_call, discount=1.0, status=None):
    columns, shape = spread((price, forward, strike, expiry_years, is_call, discount))
    cdef const double[::1] p = columns[0], f = columns[1], k = columns[2], t = columns[3], c = columns[4], d = columns[5]
    found, told = np.empty(len(columns[0])), np.empty(len(columns[0]), np.uint8)
    cdef double[::1] out = found
    cdef uint8_t[::1] codes = told
    cdef Py_ssize_t i, n = out.shape[0]
    with nogil:
        for i in range(n):
            out[i] = normal_vol_one(p[i], f[i], k[i], t[i], c[i] != 0, d[i], &codes[i])
    if status is not None:
        status[...] = told.reshape(shape)
    elif not shape and told[0]:
        raise ValueError(black.Status(told[0]).name.lower().replace("_", " "))
    return _result(found, shape)


# Units


def per_percent(value):
    return np.asarray(value, np.float64) / 100.0 if np.ndim(value) else value / 100.0


def per_day(value):
    return np.asarray(value, np.float64) / 365.0 if np.ndim(value) else value / 365.0
