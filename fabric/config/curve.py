"""``curve`` tables: the keys of tcp endpoints, looked up where a socket needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fabric.config.convert import convert
from fabric.config.keys import CURVE_KEYS
from fabric.config.references import no_literal
from fabric.config.source import Source, check_known, is_reference
from fabric.errors import UserMistake
from fabric.transport.security import (
    CurveClient,
    CurveServer,
    public_key_of,
    public_keys_in,
    require_curve,
    secret_key_of,
)

if TYPE_CHECKING:
    from fabric.config.topology import (
        ArchiveSection,
        ChannelSection,
        CurveSection,
        ServiceSection,
        StandbySection,
        Topology,
    )

    Section = ChannelSection | ServiceSection | ArchiveSection | StandbySection

NO_CURVE = "none"
_SERVER_KEY = "it is the public key of the fabric that publishes the channel"
_OWN_KEY = 'name the file that `fabric keygen` wrote: { file = "….key_secret" }'
_CLIENTS = 'list public keys, name a directory of them, or write "any"'
_LOOPBACK = ("127.", "localhost:", "[::1]:", "::1:")


def curve_section(source: Source, table: Any, default: CurveSection | None, *path: str) -> CurveSection | None:
    """What a ``curve`` table gives, over the fabric's; None: not encrypted. Raises ConfigError."""
    from fabric.config.topology import CurveSection

    if table is None:
        return default
    if table == NO_CURVE:
        return None
    if not isinstance(table, dict) or is_reference(table):
        raise source.error("is not a table", *path, remedy='curve = { secret_key = { file = "…" }, … }, or "none"')
    check_known(source, table, CURVE_KEYS, *path)
    if "secret_key" in table and not is_reference(table["secret_key"]):
        raise no_literal(source, *path, "secret_key")
    inherited = dict(default.where) if default is not None else {}
    return CurveSection(inherited | {name: (*path, name) for name in table})


def is_tcp(endpoint: str) -> bool:
    return endpoint.startswith("tcp://")


def listens_on(topology: Topology, section: ChannelSection) -> list[str]:
    """The tcp endpoints of a channel that this fabric binds."""
    if section.external or topology.writer(section.name) is None:
        return []
    return [endpoint for endpoint in (*section.listen, section.replay) if is_tcp(endpoint)]


def connects_to(section: ChannelSection) -> list[str]:
    """The tcp endpoints of a channel that this fabric connects to."""
    ours = [*section.connect, section.replay, section.archive] if section.external else []
    ours += [section.standby_connect, section.standby_replay] if section.external else []
    return [each for each in ours if is_tcp(each)]


def check_curve(topology: Topology, section: ChannelSection) -> None:
    """Is everything there that the channel's endpoints need? Raises ConfigError; looks nothing up."""
    if section.curve is None:
        return
    if listens_on(topology, section):
        _require(topology, section, "secret_key", _OWN_KEY)
        _require(topology, section, "clients", _CLIENTS)
    if connects_to(section):
        if "clients" not in section.curve.where:  # with them, a program may publish it with this config
            _require(topology, section, "server_key", _SERVER_KEY)
        _require(topology, section, "secret_key", _OWN_KEY)


def _require(topology: Topology, section: Section, key: str, remedy: str) -> None:
    assert section.curve is not None
    if key not in section.curve.where:
        raise topology.source.error("is missing", *_home(section), key, remedy=remedy)


def _home(section: Section) -> tuple[str, ...]:
    """The table where the keys stand, for messages."""
    assert section.curve is not None
    own = [path for path in section.curve.where.values() if path[0] in ("channels", "services")]
    return own[0][:-1] if own else ("curve",)


def check_endpoints_agree(topology: Topology) -> None:
    """One endpoint is one socket's: all channels there have the same keys, or none. Raises ConfigError."""
    first: dict[str, ChannelSection] = {}
    for section in topology.channels.values():
        for endpoint in listens_on(topology, section):
            other = first.setdefault(endpoint, section)
            if _written(topology, other) != _written(topology, section):
                raise topology.source.error(
                    f"is not that of channel {other.name!r}, which has the same endpoint {endpoint}",
                    "channels", section.name, "curve", remedy="give both the same keys, or different endpoints",
                )  # fmt: skip


def _written(topology: Topology, section: ChannelSection) -> Any:
    if section.curve is None:
        return None
    return {name: _raw(topology.source, path) for name, path in section.curve.where.items()}


def _raw(source: Source, path: tuple[str, ...]) -> Any:
    value: Any = source.values
    for name in path:
        value = value[name]
    return value


def server_curve(topology: Topology, channel: str) -> CurveServer | None:
    """The keys with which this fabric (or ``fabric.publish``) listens for readers of the channel. Raises ConfigError."""
    return _server_keys(topology, topology.channels[channel])


def service_server_curve(topology: Topology, service: str) -> CurveServer | None:
    """The keys with which a service listens on its tcp endpoint. Raises ConfigError."""
    section = topology.services.get(service)
    return _server_keys(topology, section) if section is not None and is_tcp(section.endpoint) else None


def service_client_curve(topology: Topology, service: str) -> CurveClient | None:
    """The keys with which we ask a service at its tcp endpoint. Raises ConfigError."""
    section = topology.services.get(service)
    return _client_keys(topology, section) if section is not None and is_tcp(section.endpoint) else None


def _server_keys(topology: Topology, section: Section) -> CurveServer | None:
    if section.curve is None:
        return None
    _require(topology, section, "clients", _CLIENTS)
    keys = _own_keys(topology, section)
    clients = _clients(topology.source, section.curve.where["clients"])
    return CurveServer(keys.secret_key, clients, keys.public_key)


def client_curve(topology: Topology, channel: str) -> CurveClient | None:
    """The keys with which we read a channel of another fabric over tcp; None if it is not encrypted, or local.
    Raises ConfigError."""
    section = topology.channels[channel]
    return _client_keys(topology, section) if connects_to(section) else None


def _client_keys(topology: Topology, section: Section) -> CurveClient | None:
    if section.curve is None:
        return None
    _require(topology, section, "server_key", _SERVER_KEY)
    assert section.curve is not None
    path = section.curve.where["server_key"]
    text = convert(topology.source, _raw(topology.source, path), str, *path)
    try:
        server_key = public_key_of(text)
    except ValueError as error:
        raise topology.source.error(str(error), *path) from None
    keys = _own_keys(topology, section)
    return CurveClient(server_key, keys.secret_key, keys.public_key)


def node_curves(topology: Topology, node: str) -> dict[str, CurveServer]:
    """Endpoint to keys, of all that a node listens on. Raises ConfigError."""
    found: dict[str, CurveServer] = {}
    for channel in topology.nodes[node].outputs.values():
        for endpoint in filter(is_tcp, topology.channels[channel].listen):
            if endpoint not in found and (keys := server_curve(topology, channel)) is not None:
                found[endpoint] = keys
    return found


def replay_curves(topology: Topology) -> dict[str, CurveServer]:
    """Endpoint to keys, of all that this fabric's log server listens on. Raises ConfigError."""
    found: dict[str, CurveServer] = {}
    for name, section in topology.channels.items():
        if section.replay not in listens_on(topology, section) or section.replay in found:
            continue
        if (keys := server_curve(topology, name)) is not None:
            found[section.replay] = keys
    return found


def archive_curves(topology: Topology) -> dict[str, CurveServer]:
    """Endpoint to keys, of all that the archive listens on. Raises ConfigError."""
    section = topology.archive
    keys = _server_keys(topology, section) if section is not None and any(map(is_tcp, section.listen)) else None
    return {} if section is None or keys is None else {each: keys for each in section.listen if is_tcp(each)}


def pair_curve(topology: Topology, section: ChannelSection | StandbySection) -> CurveClient | None:
    """The keys with which a publisher and its standby talk to one another: to their readers they are one, with one key
    pair, which is then the server's as well. Raises ConfigError."""
    if section.curve is None:
        return None
    keys = _own_keys(topology, section)
    return CurveClient(keys.public_key, keys.secret_key, keys.public_key)


def sync_curve(topology: Topology, node: str) -> CurveServer | None:
    """The keys with which a node listens for its standby. Raises ConfigError."""
    section = topology.nodes[node]
    return server_curve(topology, next(iter(section.outputs.values()))) if is_tcp(section.sync) else None


def client_curves(topology: Topology, channels: list[str]) -> dict[str, CurveClient]:
    """Channel to our keys, of those that are read over an encrypted connection. Raises ConfigError."""
    found = {channel: client_curve(topology, channel) for channel in channels}
    return {channel: keys for channel, keys in found.items() if keys is not None}


def written_clients(topology: Topology, section: ChannelSection) -> Any:
    """``clients`` as it stands in the config, not looked up; None if there is no such key."""
    if section.curve is None or "clients" not in section.curve.where:
        return None
    return _raw(topology.source, section.curve.where["clients"])


def look_up_curves(topology: Topology) -> None:
    """Look up all keys once, so that a missing file is told before anything starts. Raises ConfigError."""
    for name, section in topology.channels.items():
        if listens_on(topology, section):
            server_curve(topology, name)
        if section.curve is not None and "server_key" in section.curve.where:
            client_curve(topology, name)
    archive_curves(topology)


def warnings_of(topology: Topology) -> list[str]:
    """What a config allows and should not: endpoints that other hosts reach, without keys."""
    pairs = [
        (f"channel {name!r}", endpoint)
        for name, section in topology.channels.items()
        if section.curve is None
        for endpoint in listens_on(topology, section)
    ]
    if topology.archive is not None and topology.archive.curve is None:
        pairs += [("the archive", endpoint) for endpoint in topology.archive.listen if is_tcp(endpoint)]
    return [
        f"{what} listens on {endpoint} without `curve`: whoever reaches it can read the channel, and change what "
        "readers get on the way"
        for what, endpoint in pairs
        if not endpoint[6:].startswith(_LOOPBACK)
    ]


def _own_keys(topology: Topology, section: Section) -> CurveServer:
    """Our key pair; raises ConfigError naming the key and never its value."""
    source = topology.source
    assert section.curve is not None
    try:
        require_curve()
    except UserMistake as error:
        raise source.error(error.message, *_home(section), remedy=error.remedy) from None
    _require(topology, section, "secret_key", _OWN_KEY)
    path = section.curve.where["secret_key"]
    text = convert(source, _raw(source, path), CURVE_KEYS["secret_key"].kind, *path)
    try:
        secret_key = secret_key_of(text.reveal())
        public = ""
        if "public_key" in section.curve.where:
            path = section.curve.where["public_key"]
            public = public_key_of(convert(source, _raw(source, path), str, *path))
        return CurveServer(secret_key, "any", public)
    except ValueError as error:
        raise source.error(str(error), *path) from None


def _clients(source: Source, path: tuple[str, ...]) -> frozenset[str] | Path | Literal["any"]:
    value: str | list[str] = convert(source, _raw(source, path), CURVE_KEYS["clients"].kind, *path)
    if value == "any":
        return "any"
    try:
        if isinstance(value, list):
            return frozenset(map(public_key_of, value))
        directory: Path = (source.origin(*path).base / value).resolve()
        public_keys_in(directory)
    except (OSError, ValueError) as error:
        raise source.error(str(error), *path) from None
    if not directory.is_dir():
        raise source.error(
            f"there is no directory {directory}",
            *path,
            remedy='a list of keys is written [ … ], and everybody is "any"',
        )
    return directory
