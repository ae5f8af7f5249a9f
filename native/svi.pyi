"""One expiry of a volatility surface as a raw SVI slice: the fit to its total variances, and checks for arbitrage.

    w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2))      k = ln(strike / forward), w = volatility^2 x years

Sources: Gatheral (2004), "A parsimonious arbitrage-free implied volatility parameterization"; Gatheral & Jacquier (2014),
"Arbitrage-free SVI volatility surfaces"; De Marco & Martini (2009), "Quasi-explicit calibration of Gatheral's SVI model";
Lee (2004), "The moment formula for implied volatility at extreme strikes".

Every fitted slice has w > 0 everywhere, b > 0, |rho| < 1, sigma > 0, and wings no steeper than 2: b (1 + |rho|) <= 2.

**Butterfly.** g(k) = (1 - k w'/(2w))^2 - (w'^2/4) (1/w + 1/4) + w''/2 must not be negative: it is the density of the
underlying, up to a positive factor (Gatheral & Jacquier, lemma 2.2). It is evaluated at 97 even points from ``low`` to
``high``; on both sides of m at 64 points that are even in asinh((k - m) / sigma), out to |k - m| of 10,000 or more; around
the minimum of w, where that is narrower than sigma; each dip is then followed to its bottom. In the limits of the wings it is
(4 - slope^2) / 16, in closed form. This is dense, and no proof: a dip narrower than the points is not seen.

**Calendar.** Total variance must not fall from one expiry to the next at the same k. The distance of two slices is evaluated
at 97 even points from ``low`` to ``high`` and around the m of each, and followed to the bottom of each dip; nothing is said of
k beyond, but by the slopes of the wings.

The same inputs give the same bits. Points may stand in any order.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Slice = Sequence[float]

class Status(IntEnum):
    """How a fit ended."""

    CONVERGED = 0
    TOO_FEW = 1
    """Fewer than five different k with a finite w above 0 and a weight above 0: all numbers are NaN."""
    NOT_CONVERGED = 2
    """``max_steps`` were not enough; the slice is the best one found, as free of arbitrage as was asked for."""
    RAISED = 3
    """``arbitrage_free`` was only reached by raising ``a`` as a whole: the slice lies above the quotes."""
    ARBITRAGE = 4
    """``arbitrage_free`` was not reached: ``min_g`` or ``min_gap`` is negative."""

class Slice(NamedTuple):
    """The parameters of total variance."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float

class Worst(NamedTuple):
    """The smallest g and the k where it is (infinite: the limit of that wing)."""

    value: float
    at: float

class Calendar(NamedTuple):
    """The smallest w of the later slice less that of the earlier one, and the k where it is."""

    value: float
    at: float
    left: float
    """By how much the left wing of the later slice is steeper; if negative, they cross somewhere further out."""
    right: float
    """The same of the right wing."""

class Fit(NamedTuple):
    """A slice and how good it is."""

    slice: Slice
    status: Status
    points: int
    """Those that could be used: k, w finite, w and the weight above 0."""
    passes: int
    """How often the fit went over the points."""
    rms: float
    """Root of the weighted mean of the squared distances in total variance."""
    min_g: float
    min_g_at: float
    min_gap: float
    """The smallest distance to ``floor``; NaN without one."""
    min_gap_at: float

@overload
def total_variance(slice: _Slice, k: float) -> float: ...
@overload
def total_variance(slice: _Slice, k: npt.ArrayLike) -> _Floats:
    """w(k)."""

@overload
def butterfly_g(slice: _Slice, k: float) -> float: ...
@overload
def butterfly_g(slice: _Slice, k: npt.ArrayLike) -> _Floats:
    """g(k); minus infinity where w is not above 0."""

def butterfly(slice: _Slice, low: float = -1.0, high: float = 1.0) -> Worst:
    """The smallest g, with the even points from ``low`` to ``high``. Where w is not above 0 everywhere: minus infinity."""

def calendar(earlier: _Slice, later: _Slice, low: float = -1.0, high: float = 1.0) -> Calendar:
    """Where the later slice is lowest over the earlier one, for k from ``low`` to ``high``."""

def fit(
    k: npt.ArrayLike,
    w: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    start: _Slice | None = None,
    floor: _Slice | None = None,
    arbitrage_free: bool = False,
    low: float | None = None,
    high: float | None = None,
    max_steps: int = 100,
) -> Fit:
    """The slice with the least weighted sum of squared distances in total variance.

    Total variance, because it is linear in three of five parameters once m and sigma are given, which is what makes the
    cold start sure. To fit volatilities to first order, divide a weight of squared volatilities by (2 vol years)^2.
    Points with a NaN, a w or a weight that is not above 0 are passed over; bad data never raise, a ``Status`` tells.

    Without ``start``, m and sigma are searched for (a grid, then steps to the better neighbour), the other three following
    by least squares. From there, or from the slice ``start``, Levenberg-Marquardt over all five, within w > 0 everywhere,
    slopes of the wings up to 2, m within one width of the strikes' range and sigma from 0.001 to 10 widths.

    ``arbitrage_free``: where the fit has a negative g, or is below ``floor`` (the slice of the expiry before) for k from
    ``low`` to ``high``, penalties are put, and made firmer until neither is so; if that fails, ``a`` is raised until it is.
    ``low`` and ``high`` are half a width beyond the points, unless given.

    Raises ValueError for arrays that do not fit together, a start or floor that is no slice, and an empty range.
    """
