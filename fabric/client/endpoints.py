"""Where a channel is: from a config, or given."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from fabric.config.curve import client_curve
from fabric.config.load import load_topology
from fabric.config.saved import SAVED, load_saved
from fabric.config.topology import Topology
from fabric.errors import ConfigError, UnknownChannel
from fabric.protocol.channellines import MOST_LINES, REORDER_NS
from fabric.protocol.ladder import Rung
from fabric.protocol.types import Limits, PathWanted
from fabric.transport.climb import STANDBY
from fabric.transport.security import CurveClient
from fabric.transport.sockets import check_endpoint


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Live packets (several: lines), who replays, the limits that go with the channel, our keys where endpoints are tcp, and
    how records are to come."""

    data: tuple[str, ...]
    rungs: tuple[Rung, ...]
    limits: Limits = field(default_factory=Limits)
    curve: CurveClient | None = None
    path: PathWanted = "auto"
    standbys: tuple[str, ...] = ()
    """Where live packets come from once a standby has taken over."""

    @property
    def replay(self) -> str:
        """The log server."""
        return self.rungs[0].endpoint


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
    data: str | Sequence[str] | None,
    replay: str | Sequence[str] | None,
    curve: CurveClient | None = None,
    path: PathWanted | None = None,
    standby: tuple[str, str] | None = None,
) -> Endpoints:
    """``standby``: where a standby publishes once it has taken over, and its log server.
    ``curve``: keys for endpoints that are given; those of a config come from it, as does ``path`` where it is None. Raises
    ConfigError, UnknownChannel."""
    if data is not None or replay is not None:
        if data is None or replay is None:
            raise ConfigError("give both data= and replay=, or a config", key=channel)
        given = (data,) if isinstance(data, str) else tuple(data)
        if not 0 < len(given) <= MOST_LINES or len(set(given)) != len(given):
            remedy = f"1 to {MOST_LINES} endpoints of one publisher, all different"
            raise ConfigError(f"data= names {len(given)} lines", key=channel, remedy=remedy)
        lines = tuple(check_endpoint(each, listens=False) for each in given)
        check_path(path or "auto", lines, channel)
        asked = (replay,) if isinstance(replay, str) else tuple(replay)
        if not asked:
            raise ConfigError("replay= names nobody", key=channel, remedy="the log server, and after it any archive")
        names = ["log", *(f"archive {number}" if len(asked) > 2 else "archive" for number in range(1, len(asked)))]
        rungs = tuple(Rung(name, check_endpoint(each, listens=False)) for name, each in zip(names, asked, strict=True))
        limits = Limits(reorder_ns=REORDER_NS if len(lines) > 1 else 0)
        standbys: tuple[str, ...] = ()
        if standby is not None:
            standbys = (check_endpoint(standby[0], listens=False),)
            rungs = (rungs[0], Rung(STANDBY, check_endpoint(standby[1], listens=False)), *rungs[1:])
        return Endpoints(lines, rungs, limits, curve, path or "auto", standbys)
    if standby is not None:
        raise ConfigError("standby= goes with data= and replay=", key=channel, remedy="the config says where it is")
    topology = find_topology(config)
    if channel not in topology.channels:
        raise UnknownChannel(channel, sorted(topology.channels), where=str(topology.source.file))
    lines = topology.lines_of(channel)
    path = path or topology.channels[channel].path
    check_path(path, lines, channel)
    return Endpoints(
        lines,
        topology.rungs_of(channel),
        topology.limits_of(channel),
        client_curve(topology, channel),
        path,
        topology.standbys_of(channel),
    )


def check_path(path: str, lines: tuple[str, ...], channel: str) -> None:
    """Raises ConfigError for a path that is none, or a socket's that the channel does not have."""
    if path not in get_args(PathWanted):
        raise ConfigError(f"path={path!r}", key=channel, remedy='"auto", "local", "ipc" or "tcp"')
    for endpoint in lines:
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
