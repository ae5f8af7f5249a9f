"""Where a channel is: from a config, or given."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fabric.config.curve import client_curve
from fabric.config.load import load_topology
from fabric.config.saved import SAVED, load_saved
from fabric.config.topology import Topology
from fabric.errors import ConfigError, UnknownChannel
from fabric.protocol.types import PathWanted
from fabric.transport.security import CurveClient
from fabric.transport.sockets import check_endpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Live packets, replays, the stale limit that goes with the publisher's heartbeat, our keys where they are tcp, and how
    records are to come."""

    data: str
    replay: str
    stale_ns: int = 1_000_000_000
    curve: CurveClient | None = None
    path: PathWanted = "auto"


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
    path: PathWanted | None = None,
) -> Endpoints:
    """``curve``: keys for endpoints that are given; those of a config come from it, as does ``path`` where it is None. Raises
    ConfigError, UnknownChannel."""
    if data is not None or replay is not None:
        if data is None or replay is None:
            raise ConfigError("give both data= and replay=, or a config", key=channel)
        live = check_endpoint(data, listens=False)
        check_path(path or "auto", live, channel)
        return Endpoints(live, check_endpoint(replay, listens=False), curve=curve, path=path or "auto")
    topology = find_topology(config)
    if channel not in topology.channels:
        raise UnknownChannel(channel, sorted(topology.channels), where=str(topology.source.file))
    live = topology.data_endpoint_of(channel)
    path = path or topology.channels[channel].path
    check_path(path, live, channel)
    return Endpoints(
        live,
        topology.replay_endpoint_of(channel),
        topology.stale_after_ns,
        client_curve(topology, channel),
        path,
    )


def check_path(path: str, endpoint: str, channel: str) -> None:
    """Raises ConfigError for a path that is none, or a socket's that the channel does not have."""
    if path not in get_args(PathWanted):
        raise ConfigError(f"path={path!r}", key=channel, remedy='"auto", "local", "ipc" or "tcp"')
    if path in ("ipc", "tcp") and not endpoint.startswith(f"{path}://"):
        raise ConfigError(f"path={path!r}, but it is published at {endpoint}", key=channel, remedy='path="auto"')


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
