"""American options by the fixed-point method of L. Andersen, M. Lake and D. Offengenden, High Performance American Option
Pricing, Journal of Computational Finance 20 (2016).

The exercise boundary B of a put is found at Chebyshev nodes in the square root of the time to expiry, as
H = log(B / X)^2, X its limit at expiry, by iterating their equation FP-B; integrals are Gauss-Legendre in y with
tau - u = tau (1 + y)^2 / 4, which takes out the singularity. The value is the European one and Kim's premium integral. A call is
the put with spot and strike, rate and dividend exchanged.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport M_PI, NAN, cos, erfc, exp, fabs, isfinite, log, sqrt

cnp.import_array()

cdef enum:
    NODES = 16       # of the boundary, beside expiry itself
    POINTS = 32      # of each integral of the iteration
    SUMS = 64        # of the premium integral
    ROUNDS = 64      # at most

cdef double SQRT_HALF = 0.70710678118654752440
cdef double SETTLED = 1e-11

cdef double[::1] POINT_Y, POINT_W, SUM_Y, SUM_W
POINT_Y, POINT_W = (np.ascontiguousarray(each) for each in np.polynomial.legendre.leggauss(POINTS))
SUM_Y, SUM_W = (np.ascontiguousarray(each) for each in np.polynomial.legendre.leggauss(SUMS))


cdef double cumulative(double x) noexcept nogil:
    return 0.5 * erfc(-x * SQRT_HALF)


ctypedef struct put:
    double spot, strike, years, vol, rate, dividend
    double limit                     # of the boundary at expiry
    double boundary[NODES + 1]       # at the nodes, from the longest time to 0
    double series[NODES + 1]         # Chebyshev coefficients of H


cdef double deviations(const put *of, double tau, double ratio, double sign) noexcept nogil:
    cdef double spread = of.vol * sqrt(tau)
    return (log(ratio) + (of.rate - of.dividend) * tau) / spread + sign * 0.5 * spread


cdef void fit(put *of) noexcept nogil:
    """The series through H at the nodes x_i = sqrt(T) (1 + cos(i pi / n)) / 2."""
    cdef int i, k
    cdef double total, h
    for k in range(NODES + 1):
        total = 0.0
        for i in range(NODES + 1):
            h = log(of.boundary[i] / of.limit)
            h = h * h * cos(M_PI * i * k / NODES)
            total += 0.5 * h if i == 0 or i == NODES else h
        of.series[k] = 2.0 * total / NODES
    of.series[0] *= 0.5
    of.series[NODES] *= 0.5


cdef double boundary_at(const put *of, double tau) noexcept nogil:
    """Clenshaw's sum."""
    cdef double z = 2.0 * sqrt(tau / of.years) - 1.0
    cdef double one = 0.0, two = 0.0, new
    cdef int k
    for k in range(NODES, 0, -1):
        new = of.series[k] + 2.0 * z * one - two
        two = one
        one = new
    new = of.series[0] + z * one - two
    return of.limit * exp(-sqrt(new)) if new > 0 else of.limit


cdef double next_boundary(const put *of, double tau, double now) noexcept nogil:
    """FP-B: B = K e^{-(r - q) tau} N / D."""
    cdef double above = cumulative(deviations(of, tau, now / of.strike, -1.0))
    cdef double below = cumulative(deviations(of, tau, now / of.strike, 1.0))
    cdef double y, left, weight, ratio
    cdef int j
    for j in range(POINTS):
        y = 1.0 + POINT_Y[j]
        left = tau * y * y / 4.0
        weight = POINT_W[j] * tau * y / 2.0
        ratio = now / boundary_at(of, tau - left)
        above += of.rate * weight * exp(of.rate * (tau - left)) * cumulative(deviations(of, left, ratio, -1.0))
        below += of.dividend * weight * exp(of.dividend * (tau - left)) * cumulative(deviations(of, left, ratio, 1.0))
    return of.strike * exp(-(of.rate - of.dividend) * tau) * above / below


cdef int solve(put *of) noexcept nogil:
    """Find the boundary; the number of rounds, or -1 if it does not settle."""
    cdef int i, m
    cdef double x, tau, new, moved
    cdef double fresh[NODES + 1]
    of.limit = of.strike * min(1.0, of.rate / of.dividend) if of.dividend > 0 else of.strike
    for i in range(NODES + 1):
        x = 0.5 * (1.0 + cos(M_PI * i / NODES))
        tau = of.years * x * x
        # A first guess that has the right limits: falls with the square root of time towards the perpetual one.
        of.boundary[i] = of.limit * exp(-0.5 * of.vol * sqrt(tau)) if tau > 0 else of.limit
    for m in range(ROUNDS):
        fit(of)
        moved = 0.0
        for i in range(NODES):
            x = 0.5 * (1.0 + cos(M_PI * i / NODES))
            new = next_boundary(of, of.years * x * x, of.boundary[i])
            if not (isfinite(new) and new > 0):
                return -1
            fresh[i] = min(new, of.limit)
            moved = max(moved, fabs(fresh[i] / of.boundary[i] - 1.0))
        for i in range(NODES):
            of.boundary[i] = fresh[i]
        if moved < SETTLED:
            break
    fit(of)
    return m


cdef double european(const put *of) noexcept nogil:
    cdef double tau = of.years
    cdef double up = deviations(of, tau, of.spot / of.strike, 1.0)
    cdef double down = deviations(of, tau, of.spot / of.strike, -1.0)
    return (of.strike * exp(-of.rate * tau) * cumulative(-down)
            - of.spot * exp(-of.dividend * tau) * cumulative(-up))


cdef double premium(const put *of) noexcept nogil:
    """Kim's integral: what early exercise is worth."""
    cdef double total = 0.0, y, u, weight, ratio
    cdef int j
    for j in range(SUMS):
        y = 1.0 + SUM_Y[j]
        u = of.years * y * y / 4.0
        weight = SUM_W[j] * of.years * y / 2.0
        ratio = of.spot / boundary_at(of, of.years - u)
        total += weight * (
            of.rate * of.strike * exp(-of.rate * u) * cumulative(-deviations(of, u, ratio, -1.0))
            - of.dividend * of.spot * exp(-of.dividend * u) * cumulative(-deviations(of, u, ratio, 1.0))
        )
    return total


cdef double put_value(double spot, double strike, double years, double vol, double rate, double dividend) noexcept nogil:
    cdef put of
    cdef double inside
    of.spot, of.strike, of.years, of.vol, of.rate, of.dividend = spot, strike, years, vol, rate, dividend
    inside = max(strike - spot, 0.0)
    if years == 0:
        return inside
    if vol == 0:  # the best certain moment is now or the end, but for a forward that turns in between: it never does
        return max(inside, strike * exp(-rate * years) - spot * exp(-dividend * years))
    if rate <= 0:
        # No interest to gain: waiting is free where the dividend is not below the rate; else there are two boundaries.
        return european(&of) if dividend >= rate else NAN
    if rate * years < 1e-17 and dividend >= 0:
        # Exercise gains no more than the interest, strike (1 - exp(-rate years)), which is below the last bit.
        return max(inside, european(&of))
    if solve(&of) < 0:
        return NAN
    if spot <= of.boundary[0]:
        return inside
    return max(inside, european(&of) + premium(&of))


cdef double value(
    double spot, double strike, double years, double vol, bint is_call, double rate, double dividend
) noexcept nogil:
    if not (isfinite(spot) and isfinite(strike) and isfinite(years) and isfinite(vol) and isfinite(rate)
            and isfinite(dividend) and spot > 0 and strike > 0 and years >= 0 and vol >= 0):
        return NAN
    if is_call:
        return put_value(strike, spot, years, vol, dividend, rate)
    return put_value(spot, strike, years, vol, rate, dividend)


def american_price(spot, strike, expiry_years, vol, is_call, rate=0.0, dividend=0.0):
    arrays = np.broadcast_arrays(
        *(np.asarray(each, np.float64) for each in (spot, strike, expiry_years, vol, is_call, rate, dividend))
    )
    columns = [np.ascontiguousarray(each).reshape(-1) for each in arrays]
    cdef const double[::1] s = columns[0], k = columns[1], t = columns[2], v = columns[3]
    cdef const double[::1] c = columns[4], r = columns[5], q = columns[6]
    found = np.empty(len(columns[0]))
    cdef double[::1] out = found
    cdef Py_ssize_t i, n = out.shape[0]
    with nogil:
        for i in range(n):
            out[i] = value(s[i], k[i], t[i], v[i], c[i] != 0, r[i], q[i])
    return found.reshape(arrays[0].shape) if arrays[0].shape else float(found[0])
