"""The config keys of a live ``feed.deribit``, checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from fabric.errors import ConfigError
from fabric.units import parse_bytes, parse_duration_ns
from nodes.feed.live import LiveSettings
from nodes.feed.recording import RecordingLimits
from nodes.feed.session_settings import SessionSettings

if TYPE_CHECKING:
    from nodes.feed.deribit import DeribitFeed

_KINDS = ("option", "future", "spot")
_CHANNELS = ("ticker", "book", "trades")
_INTERVALS = ("100ms", "agg2", "raw")
_MIN_FILE_BYTES = 64 << 10
_CURRENCY = re.compile(r"[A-Z0-9]{2,8}", re.ASCII)


def live_settings(feed: DeribitFeed) -> LiveSettings:
    """Raises ConfigError that names the key."""

    def refuse(key: str, text: str, remedy: str = "") -> ConfigError:
        return ConfigError(text, key=f"nodes.{feed.name}.{key}", remedy=remedy)

    def parsed(key: str, parse: Callable[[str], int], least: int, told: str) -> int:
        try:
            value = parse(str(getattr(feed, key)))
        except ValueError as error:
            raise refuse(key, str(error)) from None
        if value < least:
            raise refuse(key, f"{getattr(feed, key)!r}: must be {told}")
        return value

    for key, allowed in (("kinds", _KINDS), ("channels", _CHANNELS)):
        given = getattr(feed, key)
        if not given or len(set(given)) != len(given) or not set(given) <= set(allowed):
            raise refuse(key, f"{given!r}: must be different ones of {', '.join(allowed)}, at least one")
    if not feed.currencies or len(set(feed.currencies)) != len(feed.currencies):
        raise refuse("currencies", f"{feed.currencies!r}: must be different currencies, at least one")
    for currency in feed.currencies:
        if not _CURRENCY.fullmatch(currency):
            raise refuse("currencies", f"{currency!r} is not a currency", 'such as "BTC", "ETH" or "USDC"')
    if feed.interval not in _INTERVALS:
        raise refuse("interval", f"{feed.interval!r}: must be one of {', '.join(_INTERVALS)}")
    for key, most in (("max_instruments", 500_000), ("channels_per_request", 500), ("max_burst", 65_536)):
        if not 1 <= getattr(feed, key) <= most:
            raise refuse(key, f"{getattr(feed, key)!r}: must be 1 to {most}")
    if feed.instruments is not None:
        raise refuse("instruments", "is only for recorded sources", "remove it: a live venue is asked for them")
    if feed.speed != "max":
        raise refuse("speed", "is only for recorded sources", "remove it")
    reconnect_min_ns = parsed("reconnect_min", parse_duration_ns, 1_000_000, "1ms or more")
    file_bytes = parsed("recording_file", parse_bytes, _MIN_FILE_BYTES, "64KiB or more")
    return LiveSettings(
        url=str(feed.source),
        session=SessionSettings(
            currencies=tuple(feed.currencies),
            kinds=tuple(feed.kinds),
            channels=tuple(feed.channels),
            interval=feed.interval,
            channels_per_request=feed.channels_per_request,
            max_instruments=feed.max_instruments,
            heartbeat_ns=parsed("heartbeat", parse_duration_ns, 100_000_000, "100ms or more"),
            refresh_ns=parsed("instruments_every", parse_duration_ns, 0, "0s (never) or more"),
        ),
        limits=RecordingLimits(
            file_bytes=file_bytes,
            retain_bytes=parsed("recording_retain", parse_bytes, 2 * file_bytes, "two recording_file or more"),
        ),
        reconnect_min_ns=reconnect_min_ns,
        reconnect_max_ns=parsed("reconnect_max", parse_duration_ns, reconnect_min_ns, "reconnect_min or more"),
        ca_file=feed.ca_file,
        lines_per_poll=feed.max_burst,
    )
