"""How long recovery takes: what `fabric explain` reckons for a reader that was away.

    away for D seconds, published at l and replayed at r records a second:   R = D / (1 - l / r)

R counts from the moment it left until it has caught up: in R - D seconds r (R - D) records are replayed, and l R were
published meanwhile. It needs l < r, and a log that reaches back D seconds: what is asked for is oldest when it returns.
"""

from __future__ import annotations

from dataclasses import dataclass

from fabric.config.topology import Topology
from fabric.units import format_bytes

REPLAY_BYTES = 128 << 20
"""A second, where no `replay_rate` says otherwise: about half of what bench/recovery.py shows over ipc."""


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Of one reader of a channel; rates are records a second."""

    live_rate: float
    replay_rate: float
    reach_s: float
    """How far back the log reaches at that rate, or the archive."""
    away_s: float
    """As the config wishes; else as long as can be."""
    seconds: float | None
    """From leaving to having caught up; None: never."""


def reach_s(topology: Topology, channel: str, size: int, rate: float) -> float:
    """How many seconds back a channel's records of ``size`` bytes are kept at ``rate`` a second."""
    section, archive = topology.channels[channel], topology.archive
    kept = _kept_s(section.retain_bytes, section.retain_age_ns, size, rate)
    if archive is not None and channel in archive.channels:
        kept = max(kept, _kept_s(archive.keep_bytes, archive.keep_ns, size, rate))
    return kept


def catch_up(topology: Topology, channel: str, size: int, rate: float) -> CatchUp:
    """``size`` bytes a record, ``rate`` records a second."""
    section = topology.channels[channel]
    limit = 0 if section.external else topology.replay_rate_bytes
    replay_rate = (limit or REPLAY_BYTES) / size
    reach = reach_s(topology, channel, size, rate)
    away = section.outage_ns / 1e9 or reach
    return CatchUp(rate, replay_rate, reach, away, away / (1 - rate / replay_rate) if rate < replay_rate else None)


def recovery_warnings(topology: Topology, channel: str, size: int, found: CatchUp) -> list[str]:
    """What a reader's recovery fails on; empty if it does not."""
    section = topology.channels[channel]
    if found.seconds is None:
        return [
            f"channel {channel!r}: {found.live_rate:,.0f} records/s are published, and {found.replay_rate:,.0f}/s replayed: "
            "a reader that falls behind never catches up"
        ]
    if section.outage_ns and found.reach_s < found.away_s:
        wanted = format_bytes(int(found.away_s * found.live_rate * size) + section.segment_bytes)
        return [
            f"channel {channel!r}: a reader is to be away for {found.away_s:,.0f} s, but at {found.live_rate:,.0f} records/s "
            f"what is kept reaches back {found.reach_s:,.0f} s: set retain to {wanted}, or archive it"
        ]
    return []


def _kept_s(size_bytes: int, age_ns: int, record_bytes: int, rate: float) -> float:
    by_size = size_bytes / record_bytes / rate
    return min(by_size, age_ns / 1e9) if age_ns else by_size
