"""What a stand-in venue does wrong, and when: given by hand, or drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

FAULTS = {
    "close": "the connection is closed in order",
    "reset": "the connection is reset (TCP), after all that was sent has arrived",
    "stall": "nothing is sent any more, until the client leaves",
    "pause": "nothing is sent for most of a heartbeat, then all at once",
    "skip": "the next five changes of books are not sent",
    "malformed": "three messages that are not JSON, or not of this venue",
    "burst": "five hundred messages at once",
    "error": "the next request is refused",
    "reject": "the next subscription lacks one channel",
    "list": "a new strike is listed",
    "expire": "an option expires",
    "refuse": "the connection is reset, and no new one taken for half a second",
    "mute_tests": "no heartbeats and test requests from now on, on this connection",
}
_DRAWN = ("skip", "skip", "skip", "skip", "malformed", "close", "reset", *FAULTS)
"""Some more often than others."""

MALFORMED = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[1, 2",
    b'{"method": 5}',
    b'{"jsonrpc": "2.0"}',
    b"line\nend",
    b"[" * 2_000,
    b'{"method":"subscription","params":{"channel":"ticker.X.100ms","data":{"instrument_name":5}}}',
    b'{"method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":"nothing"}}',
)


class Fault(NamedTuple):
    """``kind`` happens ``at_ns`` after the start."""

    at_ns: int
    kind: str


def parse_fault(text: str) -> Fault:
    """``"2.5:close"``: after 2.5 s. Raises ValueError."""
    seconds, _, kind = text.partition(":")
    if kind not in FAULTS:
        raise ValueError(f"{text!r} is not SECONDS:KIND with one of {', '.join(FAULTS)}")
    return Fault(round(float(seconds) * 1e9), kind)


def drawn_faults(seed: int, every_ns: int, duration_ns: int, kinds: Sequence[str] = _DRAWN) -> list[Fault]:
    """One about each ``every_ns``; each kind at least once if there is the time for it."""
    draw = random.Random(seed)
    count = duration_ns // every_ns
    chosen = list(dict.fromkeys(kinds))
    draw.shuffle(chosen)
    chosen += [draw.choice(kinds) for _ in range(max(0, count - len(chosen)))]
    return [
        Fault(round((place + draw.random()) * every_ns) + every_ns, kind) for place, kind in enumerate(chosen[:count])
    ]
