"""Raw SVI slices of a volatility surface: fit and arbitrage checks. The mathematics is in svi_*.pxi."""

from collections import namedtuple

import numpy as np

cimport numpy as cnp
from libc.math cimport INFINITY, NAN, asinh, exp, fabs, isfinite, sqrt
from libc.stdlib cimport free as release
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

cnp.import_array()

cpdef enum Status:
    CONVERGED = 0
    TOO_FEW = 1
    NOT_CONVERGED = 2
    RAISED = 3
    ARBITRAGE = 4

include "svi_slice.pxi"
include "svi_check.pxi"
include "svi_descent.pxi"
include "svi_search.pxi"
include "svi_fit.pxi"


class Slice(namedtuple("Slice", ("a", "b", "rho", "m", "sigma"))):
    """w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))."""

    __slots__ = ()


class Worst(namedtuple("Worst", ("value", "at"))):
    """The smallest value and the k where it is."""

    __slots__ = ()


class Calendar(namedtuple("Calendar", ("value", "at", "left", "right"))):
    """The smallest distance, and by how much each wing of the later slice is steeper."""

    __slots__ = ()


class Fit(
    namedtuple("Fit", ("slice", "status", "points", "passes", "rms", "min_g", "min_g_at", "min_gap", "min_gap_at"))
):
    """What a fit came to."""

    __slots__ = ()


cdef object NOTHING = Slice(NAN, NAN, NAN, NAN, NAN)
cdef list STATUSES = [Status(code) for code in range(5)]


cdef int _slice(object given, Raw* s, str name) except -1:
    """The five numbers of a slice; ValueError if they are none."""
    try:
        s.a, s.b, s.rho, s.m, s.sigma = given
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be five numbers a, b, rho, m, sigma: it is {given!r}") from None
    if not (isfinite(s.a) and s.b >= 0 and isfinite(s.b) and fabs(s.rho) < 1 and isfinite(s.m) and 0 < s.sigma < INFINITY):
        raise ValueError(
            f"{name} must have finite numbers, b >= 0, |rho| < 1 and sigma > 0: it is {tuple(given)}"
        )
    return 0


cdef int _range(double low, double high) except -1:
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(f"low and high must be finite, low below high: they are {low} and {high}")
    return 0


cdef object _on_all(object given, object k, bint density):
    cdef Raw s
    _slice(given, &s, "slice")
    points = np.asarray(k, np.float64)
    cdef const double[::1] from_ = np.ascontiguousarray(points).reshape(-1)
    result = np.empty(from_.shape[0])
    cdef double[::1] to = result
    cdef Py_ssize_t i
    with nogil:
        for i in range(from_.shape[0]):
            to[i] = durrleman(&s, from_[i]) if density else variance(&s, from_[i])
    return result.reshape(points.shape) if points.ndim else float(result[0])


def total_variance(slice, k):
    return _on_all(slice, k, False)


def butterfly_g(slice, k):
    return _on_all(slice, k, True)


def butterfly(slice, low=-1.0, high=1.0):
    cdef Raw s
    _slice(slice, &s, "slice")
    _range(low, high)
    cdef double first = low, last = high
    cdef WorstOf worst = nothing(NULL, 0)
    with nogil:
        butterfly_of(&s, first, last, &worst)
    return Worst(worst.value, worst.at)


def calendar(earlier, later, low=-1.0, high=1.0):
    cdef Raw one, other
    _slice(earlier, &one, "earlier")
    _slice(later, &other, "later")
    _range(low, high)
    cdef double first = low, last = high
    cdef WorstOf worst = nothing(NULL, 0)
    with nogil:
        calendar_of(&one, &other, first, last, &worst)
    return Calendar(
        worst.value, worst.at, left_slope(&other) - left_slope(&one), right_slope(&other) - right_slope(&one)
    )


cdef bint _enough(const Problem* p) noexcept nogil:
    """Five different strikes."""
    cdef double seen[5]
    cdef int different = 0, j
    cdef Py_ssize_t i
    for i in range(p.count):
        for j in range(different):
            if seen[j] == p.k[i]:
                break
        else:
            seen[different] = p.k[i]
            different += 1
            if different == 5:
                return True
    return False


cdef void _gather(Problem* p, const double[:] k, const double[:] w, const double[:] weight) noexcept nogil:
    """The usable points, and their weights relative to the mean total variance."""
    cdef Py_ssize_t i, n = 0
    cdef double mass = 0.0, mean = 0.0, each
    for i in range(k.shape[0]):
        each = weight[i] if weight.shape[0] else 1.0
        if isfinite(k[i]) and isfinite(w[i]) and w[i] > 0 and each > 0 and isfinite(each):
            p.k[n], p.w[n], p.root[n] = k[i], w[i], each
            mass += each
            mean += each * w[i]
            n += 1
    p.count = n if isfinite(mass) and isfinite(mean) else 0
    p.scale = mean / mass if mass > 0 else 1.0
    for i in range(p.count):
        p.root[i] = sqrt(p.root[i] / mass) / p.scale


def fit(k, w, weight=None, *, start=None, floor=None, arbitrage_free=False, low=None, high=None, max_steps=100):
    cdef Raw s, from_, under
    cdef Problem p
    cdef Range where
    cdef WorstOf g = nothing(NULL, 0), gap = nothing(NULL, 0)
    cdef const double[:] ks, ws, weights
    try:
        ks, ws = np.asarray(k, np.float64), np.asarray(w, np.float64)
        weights = np.asarray(() if weight is None else weight, np.float64)
    except (TypeError, ValueError):
        raise ValueError("k, w and weight must be one-dimensional arrays of numbers") from None
    cdef Py_ssize_t count = ks.shape[0]
    if ws.shape[0] != count or (weight is not None and weights.shape[0] != count):
        raise ValueError(f"k, w and weight must be equally long: they are {count}, {ws.shape[0]}, {weights.shape[0]}")
    cdef int most = max_steps, code = TOO_FEW, passes = 0
    if most < 1:
        raise ValueError(f"max_steps must be at least 1: it is {most}")
    if start is not None:
        _slice(start, &from_, "start")
    if floor is not None:
        _slice(floor, &under, "floor")
    cdef double first = NAN, last = NAN, width, rms = NAN
    if low is not None or high is not None:
        first, last = -INFINITY if low is None else low, INFINITY if high is None else high
        _range(first, last)
    cdef bint warm = start is not None, repaired = arbitrage_free, floored = floor is not None
    cdef double* room = <double*>malloc(3 * max(count, 1) * sizeof(double))
    if room is NULL:
        raise MemoryError
    with nogil:
        p.k, p.w, p.root = room, room + count, room + 2 * count
        p.floor = &under if floored else NULL
        _gather(&p, ks, ws, weights)
        if _enough(&p):
            if first != first:
                bound(&p)
                first, last = p.low[CENTRE], p.high[CENTRE]  # the strikes' range and its width on either side
                width = (last - first) / 6.0
                first, last = first + width, last - width
            where.low, where.high = first, last
            code = fit_slice(&p, &from_ if warm else NULL, repaired, where, most, &s, &passes)
            free_of_arbitrage(&p, &s, first, last, &g, &gap)
            if repaired and not (g.value >= 0 and (not floored or gap.value >= 0)):
                code = ARBITRAGE
            rms = sqrt(distance(&p, &s)) * p.scale
    release(room)
    if code == TOO_FEW:
        return Fit(NOTHING, STATUSES[code], p.count, 0, NAN, NAN, NAN, NAN, NAN)
    return Fit(
        Slice(s.a, s.b, s.rho, s.m, s.sigma), STATUSES[code], p.count, passes, rms, g.value, g.at,
        gap.value if floored else NAN, gap.at if floored else NAN,
    )
