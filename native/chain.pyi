"""Option chains whose forward moved: each live option's greeks, from its carried volatility, as finished records."""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

RECORD_FIELDS: tuple[str, ...]
"""The fields of a record that ``Carrier.carry`` writes, in order, without gaps: nodes.records.GREEKS."""

@disjoint_base
class Carrier:
    """The columns of a set of options, by slot: one array each for the names in ``columns``, equally long, contiguous;
    ``call`` is the kind of a call, ``stale_flag`` what the record of a stale option is flagged with. The columns are
    read where they lie: whoever replaces one by another array makes a new Carrier.
    """

    columns: tuple[str, ...]

    def __init__(self, call: int, stale_flag: int, **arrays: npt.NDArray[Any]) -> None: ...
    def chains(self, slots: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]) -> ChainGroup:
        """The options at ``slots`` as a ``ChainGroup``; see there."""

@disjoint_base
class ChainGroup:
    """Chains of one forward: ``slots`` are their options, ``bounds`` where each chain of one expiry begins and the last
    one ends, as positions in ``slots``. IndexError, ValueError if something does not fit.
    """

    def __init__(self, carrier: Carrier, slots: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]) -> None: ...
    def carried(self, event_ns: int) -> int:
        """How many of the options have a volatility to carry; -1 if one of them is waiting for its first forward, or
        has one and is expired at ``event_ns``: those need more than this class does.
        """

    def carry(
        self, records: npt.NDArray[np.void], *, forward: float, event_ns: int, origin_ns: int, flags: int, last: int
    ) -> None:
        """Write the greeks of these options at a new ``forward`` into ``records``, as many as ``carried`` tells. All of
        them get ``flags``, each chain's last one ``last`` too. ValueError, TypeError if ``records`` does not fit.
        """
