"""American options on a spot with continuous dividend, by the method of Andersen, Lake and Offengenden (2016)."""

from typing import Any

import numpy.typing as npt

def american_price(
    spot: npt.ArrayLike,
    strike: npt.ArrayLike,
    expiry_years: npt.ArrayLike,
    vol: npt.ArrayLike,
    is_call: npt.ArrayLike,
    rate: npt.ArrayLike = 0.0,
    dividend: npt.ArrayLike = 0.0,
) -> Any:
    """The value in the spot's currency, broadcast; ``rate`` and ``dividend`` are continuous, a year.

    NaN for input that is not finite or not positive, and where there are two exercise boundaries (a put with
    dividend < rate <= 0, a call with rate < dividend <= 0), which the method does not have.
    """
