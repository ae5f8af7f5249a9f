"""What a live session asks its venue for, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass

SECOND_NS = 1_000_000_000
Group = tuple[str, str]
"""(currency, kind)"""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What to ask for."""

    currencies: tuple[str, ...] = ("BTC", "ETH")
    kinds: tuple[str, ...] = ("option", "future")
    channels: tuple[str, ...] = ("ticker", "book", "trades")
    interval: str = "100ms"
    channels_per_request: int = 250
    max_instruments: int = 10_000
    heartbeat_ns: int = 10 * SECOND_NS
    answer_timeout_ns: int = 10 * SECOND_NS
    refresh_ns: int = 300 * SECOND_NS
    """How often the lists of instruments are asked for again; 0: never."""
    retry_ns: int = SECOND_NS // 2
    """Wait before a refused request is sent again; doubles."""

    def groups(self) -> list[Group]:
        return [(currency, kind) for currency in self.currencies for kind in self.kinds]

    def channels_of(self, name: str) -> list[str]:
        return [f"{channel}.{name}.{self.interval}" for channel in self.channels]


@dataclass(slots=True)
class SessionCounters:
    """Of all connections of a process; plain numbers for the report."""

    received: int = 0
    malformed: int = 0
    """Messages that are no JSON-RPC; the feed that reads the recording counts them as well, and says where."""
    test_requests: int = 0
    requests: int = 0
    refused: int = 0
    """Error answers."""
    rejected: int = 0
    """Channels that were asked for and not subscribed."""
    resubscribed: int = 0
    """Books asked for anew after a break of their change ids."""
    listed: int = 0
    """Instruments that came while the connection was up."""
    dropped: int = 0
    """Instruments that expired, or were no longer listed, while the connection was up."""
