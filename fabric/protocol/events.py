"""What a subscription tells beside records; each stands in the stream exactly where it happened.

An event comes after every record below it and before every record above it.
"""

from __future__ import annotations

from dataclasses import dataclass

SESSION_GONE = "the log of that session is gone"
SESSION_GONE_UNKNOWN = "the log of that session is gone: whether it held more than was delivered is not known"
SESSION_LEFT = "the session ended before they could be had"
SESSION_FORKED = "a newer session goes on from before them"
SESSION_LEFT_UNKNOWN = (
    "a newer session is there, and nobody says where this one ended: whether more was published is not known"
)
NO_ANSWER = "no answer from its log server"
NOT_RETAINED = "no longer retained, and the channel has no image"
NOT_RETAINED_UNKNOWN = "retention has removed earlier records: whether some were of the time asked for is not known"
LOST_REASONS = (
    "",
    SESSION_GONE,
    SESSION_GONE_UNKNOWN,
    SESSION_LEFT,
    NO_ANSWER,
    NOT_RETAINED,
    NOT_RETAINED_UNKNOWN,
    SESSION_LEFT_UNKNOWN,
    SESSION_FORKED,
)
"""By code, as a cycle journal keeps them."""
END_UNKNOWN = (SESSION_GONE_UNKNOWN, SESSION_LEFT_UNKNOWN)
"""Of a Lost without records: what came after what was delivered of the session, and before the next one, is not known."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Records ``first`` to ``last`` (inclusive) of ``session`` can't be had from anyone any more."""

    session: int
    first: int
    last: int
    reason: str

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Skipped:
    """Records ``first`` to ``last`` were passed over; the snapshot that follows holds their effect."""

    session: int
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Session:
    """From here on another numbering. ``old`` is 0 at the first one."""

    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """The new session forked off below what was delivered: records ``first`` to ``delivered`` have no place in it."""

    first: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The source is finished, and all of it was delivered; ``last`` is the last sequence."""

    session: int
    last: int


Event = Lost | Skipped | Session | Diverged | Ended
