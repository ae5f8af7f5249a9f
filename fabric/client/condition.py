"""How far what a reader holds can be relied on: of a channel, and of each instrument in it."""

from __future__ import annotations

import enum

from fabric.protocol.types import State


class Condition(enum.StrEnum):
    """The worst that holds, in this order."""

    LOST = "LOST"
    """Records that can't be had any more came after this one: perhaps of this instrument."""
    STALE = "STALE"
    """Its publisher says so (``Flags.STALE``), or is silent; or it is kept current no longer."""
    RECOVERING = "RECOVERING"
    """Records that exist are not here yet."""
    LIVE = "LIVE"


def condition(state: State, *, stale: bool, lost: bool) -> Condition:
    """Of a channel in this state; or of an instrument in it, by its own ``stale`` and ``lost``."""
    if lost:
        return Condition.LOST
    if state == State.ENDED:
        return Condition.LIVE  # silent because it is finished: the last records are the last ones
    if stale or state in (State.FAILED, State.CLOSED):
        return Condition.STALE
    return Condition.LIVE if state == State.LIVE else Condition.RECOVERING
