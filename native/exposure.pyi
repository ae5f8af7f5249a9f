"""A book's positions: greeks taken into their columns, and sums over them as finished records."""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

RISK_FIELDS: tuple[str, ...]
"""The fields of a record that ``Exposures.fill`` writes, in order, without gaps: nodes.records.RISK."""

@disjoint_base
class Exposures:
    """Takes greeks into the columns of ``rows`` (a dict of arrays by the names in ``columns``; the first ``count`` are the
    positions) and ``forwards``, and sums over them. They are used where they lie: whoever replaces one makes a new
    Exposures. ``instruments`` is instrument to (position or -1, underlying).
    """

    columns: tuple[str, ...]

    def __init__(
        self,
        instruments: dict[int, tuple[int, int]],
        rows: dict[str, npt.NDArray[Any]],
        count: int,
        forwards: npt.NDArray[np.float64],
        *,
        stale_flag: int,
        carried_flag: int,
    ) -> None: ...
    def take(self, greeks: npt.NDArray[np.void]) -> int:
        """Take these greeks in order. Returns how many underlyings have positions among them (``touched``), or -1 if an
        instrument is not known or they are too many: then it must be done another way, from the beginning.
        """

    @property
    def touched(self) -> list[int]:
        """The underlyings of positions that ``take`` gave new greeks, ascending."""

    def fill(
        self,
        records: npt.NDArray[np.void],
        position: int,
        which: int,
        name: bytes,
        worst_pnl: float,
        worst_spot_move: float,
    ) -> None:
        """Write the record at ``position``: sums of the underlying ``touched[which]``, or of all positions where ``which``
        is -1; its head is that of what ``take`` was given. IndexError, TypeError if something does not fit.
        """

def sum_of(values: npt.NDArray[np.float64]) -> float:
    """A contiguous array's sum, with the bits of numpy's."""
