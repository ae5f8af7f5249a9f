"""Black-76 value, greeks and implied volatility of European options, on arrays or single numbers.

All functions broadcast their inputs like a ufunc, in float64; inputs need not be contiguous. If every input is a
single number (and no ``out`` or ``status`` is given) the result is of Python floats, and input without an answer
raises ValueError that says which; in arrays such elements are NaN. ``is_call`` is true or false, one for each element.
An element's result depends on its own inputs alone, to the bit.

The arrays of one large result share one block of memory: copy a column that is to outlive the others.

Units: values are discounted by ``discount`` = exp(-r T), in the currency of forward and strike. ``expiry_years`` is the
time to expiry. At no time or no volatility the value is exactly the discounted intrinsic value.

    delta, gamma, speed   first, second, third derivative to the forward
    vega, volga           first, second derivative to ``vol``, per 1.00 (1 point of volatility is 0.01)
    vanna                 derivative of delta to ``vol``
    theta, charm          change of value and delta as calendar time passes, a year, at fixed forward and rate
    rho                   derivative to the rate, per 1.00, at a fixed forward: -expiry_years x price. Deribit's rho is
                          another quantity: per 1 %, of a forward that grows with the rate (K T N(d2) / 100 of a call)
"""

from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

_T = TypeVar("_T")
_Floats = npt.NDArray[np.float64]
_Number = float | np.floating | np.integer
_Truth = bool | np.bool_
_Numbers = npt.ArrayLike

class Status(IntEnum):
    """Why there is no implied volatility."""

    OK = 0
    BELOW_INTRINSIC = 1
    """The price is below the discounted intrinsic value."""
    ABOVE_MAXIMUM = 2
    """The price is not below the discounted forward (call) or strike (put)."""
    EXPIRED = 3
    """expiry_years is not above 0."""
    NON_POSITIVE = 4
    """forward, strike or discount is not above 0, or any input is NaN or infinite (but a price of -infinity is
    BELOW_INTRINSIC, an expiry of it EXPIRED)."""
    NO_TIME_VALUE = 5
    """The price is the discounted intrinsic value (0 out of the money)."""

class Greeks(NamedTuple, Generic[_T]):
    """Value and five greeks."""

    price: _T
    delta: _T
    gamma: _T
    vega: _T
    theta: _T
    rho: _T

class Greeks2(NamedTuple, Generic[_T]):
    """Value and nine greeks."""

    price: _T
    delta: _T
    gamma: _T
    vega: _T
    theta: _T
    rho: _T
    vanna: _T
    volga: _T
    charm: _T
    speed: _T

@overload
def price(
    forward: _Number,
    strike: _Number,
    expiry_years: _Number,
    vol: _Number,
    is_call: _Truth,
    discount: _Number = 1.0,
    out: None = None,
) -> float: ...
@overload
def price(
    forward: _Numbers,
    strike: _Numbers,
    expiry_years: _Numbers,
    vol: _Numbers,
    is_call: _Numbers,
    discount: _Numbers = 1.0,
    out: _Floats | None = None,
) -> _Floats:
    """The discounted value, into ``out`` if given (of the shape that the inputs broadcast to)."""

@overload
def greeks(
    forward: _Number,
    strike: _Number,
    expiry_years: _Number,
    vol: _Number,
    is_call: _Truth,
    discount: _Number = 1.0,
    out: None = None,
) -> Greeks[float]: ...
@overload
def greeks(
    forward: _Numbers,
    strike: _Numbers,
    expiry_years: _Numbers,
    vol: _Numbers,
    is_call: _Numbers,
    discount: _Numbers = 1.0,
    out: Greeks[_Floats] | None = None,
) -> Greeks[_Floats]:
    """Value and five greeks; ``out`` is filled in place."""

@overload
def greeks2(
    forward: _Number,
    strike: _Number,
    expiry_years: _Number,
    vol: _Number,
    is_call: _Truth,
    discount: _Number = 1.0,
    out: None = None,
) -> Greeks2[float]: ...
@overload
def greeks2(
    forward: _Numbers,
    strike: _Numbers,
    expiry_years: _Numbers,
    vol: _Numbers,
    is_call: _Numbers,
    discount: _Numbers = 1.0,
    out: Greeks2[_Floats] | None = None,
) -> Greeks2[_Floats]:
    """Value and nine greeks; ``out`` is filled in place."""

@overload
def implied_vol(
    price: _Number,
    forward: _Number,
    strike: _Number,
    expiry_years: _Number,
    is_call: _Truth,
    discount: _Number = 1.0,
    out: None = None,
    status: None = None,
) -> float: ...
@overload
def implied_vol(
    price: _Numbers,
    forward: _Numbers,
    strike: _Numbers,
    expiry_years: _Numbers,
    is_call: _Numbers,
    discount: _Numbers = 1.0,
    out: _Floats | None = None,
    status: npt.NDArray[np.uint8] | None = None,
) -> _Floats:
    """The volatility at which the discounted value is ``price``; ``status`` receives a ``Status`` for each element."""

def target() -> str:
    """The instruction set in use: v4 (AVX-512), v3 (AVX2 and FMA) or baseline. FABRIC_BLACK_TARGET forces one."""

def targets() -> tuple[str, ...]:
    """Those that this machine runs, best first."""

def select_target(name: str | None = None) -> None:
    """Use another one (None: the best) in the whole process, for tests. Not while another thread computes."""
