"""Bytes of structured arrays: numpy copies and clears them field by field, which costs more than a small batch is worth."""

from typing import Any

import numpy.typing as npt

def blank(records: npt.NDArray[Any]) -> None:
    """Zero every byte. ValueError unless contiguous and writable."""

def copy(to: npt.NDArray[Any], records: npt.NDArray[Any]) -> None:
    """Copy every byte; both must be as long, and contiguous (else ValueError). They must not overlap."""
