"""Other forms of European options over the Black-76 kernel: to the spot, inverse, digital, and Bachelier's normal model.

All functions broadcast; of single numbers the result is a float. Input without an answer gives NaN (implied
volatilities of single numbers raise ValueError that says which; ``status`` takes the codes of ``native.black.Status``).
Units are those of ``native.black`` but where a function says otherwise.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from native.black import Greeks, Greeks2

_Floats = npt.NDArray[np.float64]

def spot_price(
    spot: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    rate: npt.ArrayLike = 0.0,
    dividend: npt.ArrayLike = 0.0,
) -> Any:
    """Black-Scholes-Merton: ``rate`` and ``dividend`` (or foreign rate) are continuous, a year."""

def spot_greeks(
    spot: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    rate: npt.ArrayLike = 0.0,
    dividend: npt.ArrayLike = 0.0,
) -> Greeks2[Any]:
    """To the spot: delta, gamma, speed its derivatives; theta and charm at a fixed spot; rho to ``rate``, the forward growing
    with it (E. G. Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., chapter 2)."""

def spot_implied_vol(
    price: npt.ArrayLike,
    spot: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    rate: npt.ArrayLike = 0.0,
    dividend: npt.ArrayLike = 0.0,
    status: npt.NDArray[np.uint8] | None = None,
) -> Any: ...
def inverse_price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> Any:
    """In the underlying coin, as Deribit quotes: the value in strike currency over the forward."""

def inverse_greeks(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> Greeks[Any]:
    """Of the value in coin: delta and gamma are its derivatives to the forward; vega, theta, rho in coin."""

def inverse_implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    status: npt.NDArray[np.uint8] | None = None,
) -> Any:
    """Of a price in coin."""

def digital_price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    *,
    asset: bool = False,
) -> Any:
    """Pays 1 (``asset``: the underlying) if it ends in the money: discount N(d2), discount forward N(d1) of a call (M. Rubinstein
    and E. Reiner, Unscrambling the Binary Code, Risk 4, 1991). At the strike with no time or volatility left: half."""

def normal_price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
) -> Any:
    """L. Bachelier, Theorie de la speculation, 1900. ``vol`` is in currency a square root of a year; forward and strike may be
    zero or negative."""

def normal_implied_vol(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    is_call: npt.ArrayLike,
    discount: npt.ArrayLike = 1.0,
    status: npt.NDArray[np.uint8] | None = None,
) -> Any:
    """The normal volatility that gives the price."""

def per_percent(value: npt.ArrayLike) -> Any:
    """A vega or rho per 1.00 as one per 1 %."""

def per_day(value: npt.ArrayLike) -> Any:
    """A theta or charm a year as one a day (of 365)."""
