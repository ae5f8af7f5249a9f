"""The cycle journal's fast path: a cycle of one entry, in one call."""

from collections.abc import Iterable

from typing_extensions import disjoint_base

from native.appender import Appender
from native.log import Control

ENTRY_FIELDS: tuple[str, ...]
"""The fields of an entry, in order, without gaps: fabric.runtime.journal.JOURNAL."""

@disjoint_base
class CycleJournal:
    """``outputs``: the control pages of the outputs' logs, in the order of their positions; ``cycle`` and ``output`` are the
    kinds of those entries.
    """

    def __init__(self, appender: Appender, outputs: Iterable[Control], *, cycle: int, output: int) -> None: ...
    def write(
        self, now_ns: int, number: int, kind: int, port: int, session: int, first: int, count: int, detail: int
    ) -> bool:
        """Commit the cycle of one entry; False where the journal must be written the slow way."""
