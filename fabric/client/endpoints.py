"""Where a channel is: from a config, or given."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from fabric.config.curve import client_curve
from fabric.config.load import load_topology
from fabric.config.saved import SAVED, load_saved
from fabric.config.topology import Topology
from fabric.errors import ConfigError, UnknownChannel
from fabric.transport.security import CurveClient
from fabric.transport.sockets import check_endpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Live packets, replays, the stale limit that goes with the publisher's heartbeat, and our keys where they are tcp."""

    data: str
    replay: str
    stale_ns: int = 1_000_000_000
    curve: CurveClient | None = None


def find_topology(config: str | Path | Topology | None) -> Topology:
    """Of a config file or of a run's directory."""
    if isinstance(config, Topology):
        return config
    if config is not None and (Path(config) / SAVED).exists():
        return load_saved(Path(config))
    return load_topology(config)


def find_endpoints(
    channel: str,
    config: str | Path | Topology | None,
    data: str | None,
    replay: str | None,
    curve: CurveClient | None = None,
) -> Endpoints:
    """``curve``: keys for endpoints that are given; those of a config come from it. Raises ConfigError, UnknownChannel."""
    if data is not None or replay is not None:
        if data is None or replay is None:
            raise ConfigError("give both data= and replay=, or a config", key=channel)
        return Endpoints(check_endpoint(data, listens=False), check_endpoint(replay, listens=False), curve=curve)
    topology = find_topology(config)
    if channel not in topology.channels:
        raise UnknownChannel(channel, sorted(topology.channels), where=str(topology.source.file))
    return Endpoints(
        topology.data_endpoint_of(channel),
        topology.replay_endpoint_of(channel),
        topology.stale_after_ns,
        client_curve(topology, channel),
    )


def why_unreachable(endpoint: str) -> str:
    """ "" if somebody listens there; else what is wrong. Asks the operating system, not ZeroMQ, which does not tell."""
    scheme, _, address = endpoint.partition("://")
    try:
        if scheme == "ipc":
            if not Path(address).exists():
                return f"nothing listens on {endpoint}: no such socket"
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(address)
        else:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
                pass
    except OSError as error:
        return f"nothing listens on {endpoint}: {error.strerror or error}"
    return ""
