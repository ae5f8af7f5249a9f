"""From TOML values to a Topology: names, wiring, sizes, endpoints; no node's code is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric.channel import channel_id, check_channel_name
from fabric.config.source import Source, check_known, read_source
from fabric.config.topology import ChannelSection, NodeSection, Topology
from fabric.transport.sockets import check_endpoint
from fabric.units import parse_bytes, parse_duration_ns

TOP_KEYS = ["fabric", "data_dir", "log_dir", "heartbeat", "stale_after", "nodes", "channels"]
NODE_KEYS = ["use", "inputs", "outputs", "resume", "idle", "checkpoint_every"]
CHANNEL_KEYS = ["retain", "retain_age", "segment", "sync", "crc", "listen", "connect", "replay", "config"]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def load_topology(config: str | Path | None, settings: tuple[str, ...] = (), *, alone: bool = False) -> Topology:
    """Read and check a config as far as that needs no node's code. Raises ConfigError naming file, key and remedy."""
    return topology_of(read_source(config, settings), alone=alone)


def topology_of(source: Source, *, alone: bool = False) -> Topology:
    """Check values that were read already. ``alone``: do not look into the configs of other fabrics that it names."""
    values = source.values
    check_known(source, values, TOP_KEYS)
    name = _get(source, values, "fabric", str, source.file.stem)
    if not _NAME.fullmatch(name):
        raise source.error(f"{name!r} can't be a fabric's name", "fabric", remedy="letters, digits, '_' and '-'")
    topology = Topology(
        fabric=name,
        source=source,
        data_dir=_path(source, values, "data_dir", "../var"),
        log_dir=None if values.get("log_dir", "auto") == "auto" else _path(source, values, "log_dir", ""),
        heartbeat_ns=_unit(source, values, "heartbeat", "100ms", parse_duration_ns),
        stale_after_ns=_unit(source, values, "stale_after", "1s", parse_duration_ns),
        nodes={},
        channels={},
    )
    if topology.heartbeat_ns < 1_000_000:
        raise source.error("is shorter than 1ms", "heartbeat")
    if topology.stale_after_ns < 2 * topology.heartbeat_ns:
        raise source.error("is shorter than two heartbeats", "stale_after", remedy="heartbeat is 100ms by default")
    nodes = _table(source, values, "nodes")
    if not nodes:
        raise source.error("there are no nodes", "nodes", remedy='add a table such as [nodes.feed] with use = "…"')
    for node, table in nodes.items():
        topology.nodes[node] = _node(source, node, table)
    sections = _table(source, values, "channels")
    for channel, table in sections.items():
        topology.channels[channel] = _channel(source, channel, table, alone=alone)
    _wire(source, topology)
    return topology


def _node(source: Source, name: str, table: Any) -> NodeSection:
    path = ("nodes", name)
    if not _NAME.fullmatch(name):
        raise source.error(f"{name!r} can't be a node's name", *path, remedy="letters, digits, '_' and '-'")
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    if "use" not in table:
        raise source.error("is missing", *path, "use", remedy='name the node\'s class, such as use = "pricing"')
    resume = _get(source, table, "resume", str, "exact", *path)
    idle = _get(source, table, "idle", str, "block", *path)
    for key, value, allowed in (("resume", resume, ("exact", "fresh")), ("idle", idle, ("block", "yield", "spin"))):
        if value not in allowed:
            raise source.error(f"{value!r} is not one of {', '.join(allowed)}", *path, key)
    ports: dict[str, dict[str, str]] = {}
    for key in ("inputs", "outputs"):
        ports[key] = {}
        for port, channel in _table(source, table, key, *path).items():
            if not isinstance(channel, str):
                raise source.error("is not a channel's name", *path, key, port)
            origin = source.origin(*path, key, port)
            ports[key][port] = check_channel_name(channel, file=origin.name, key=".".join((*path, key, port)))
    return NodeSection(
        name=name,
        use=_get(source, table, "use", str, "", *path),
        inputs=ports["inputs"],
        outputs=ports["outputs"],
        resume=resume,
        idle=idle,
        checkpoint_every_ns=_unit(source, table, "checkpoint_every", "1s", parse_duration_ns, *path),
        settings={key: value for key, value in table.items() if key not in NODE_KEYS},
    )


def _channel(source: Source, name: str, table: Any, *, alone: bool) -> ChannelSection:
    path = ("channels", name)
    check_channel_name(name, file=source.origin(*path).name, key=".".join(path))
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    check_known(source, table, CHANNEL_KEYS, *path)
    listen = table.get("listen", [])
    section = ChannelSection(
        name=name,
        retain_bytes=_unit(source, table, "retain", "128MiB", parse_bytes, *path),
        retain_age_ns=_unit(source, table, "retain_age", "0s", parse_duration_ns, *path),
        segment_bytes=_unit(source, table, "segment", "8MiB", parse_bytes, *path),
        sync=_get(source, table, "sync", bool, False, *path),
        crc=_get(source, table, "crc", bool, None, *path),
        listen=[listen] if isinstance(listen, str) else listen,
        connect=_get(source, table, "connect", str, "", *path),
        replay=_get(source, table, "replay", str, "", *path),
    )
    if other := _get(source, table, "config", str, "", *path):
        if alone:
            section.connect = section.replay = "ipc://elsewhere"
        else:
            _take_endpoints(source, section, other, *path)
    if not isinstance(section.listen, list) or not all(isinstance(each, str) for each in section.listen):
        raise source.error("is not an endpoint or a list of them", *path, "listen")
    for key, endpoints in (("listen", section.listen), ("connect", [section.connect]), ("replay", [section.replay])):
        for endpoint in filter(None, endpoints):
            origin = source.origin(*path, key).name
            check_endpoint(endpoint, listens=key == "listen", file=origin, key=".".join((*path, key)))
    if section.segment_bytes < 64 << 10 or section.segment_bytes > 1 << 30:
        raise source.error("is not between 64KiB and 1GiB", *path, "segment")
    if section.retain_bytes < 2 * section.segment_bytes:
        raise source.error(
            "is less than two segments", *path, "retain", remedy="raise retain, or lower segment (8MiB by default)"
        )
    if section.external and not section.replay:
        raise source.error(
            "is missing", *path, "replay", remedy="a channel of another fabric needs its log server's endpoint"
        )
    return section


def _take_endpoints(source: Source, section: ChannelSection, other: str, *path: str) -> None:
    """A channel of another fabric on this host: its config says where it is."""
    if section.connect or section.replay:
        raise source.error("is given beside connect or replay", *path, "config", remedy="keep one of them")
    topology = load_topology(source.origin(*path, "config").base / other, alone=True)
    if topology.writer(section.name) is None:
        known = ", ".join(name for name in topology.channels if topology.writer(name))
        raise source.error(f"{other} writes no channel {section.name!r}", *path, "config", remedy=f"it writes {known}")
    section.connect = topology.data_endpoint_of(section.name)
    section.replay = topology.replay_endpoint_of(section.name)


def _wire(source: Source, topology: Topology) -> None:
    """Outputs declare channels; every input must find one; ids must not collide; no node may feed itself."""
    for node in topology.nodes.values():
        for port, channel in node.outputs.items():
            other = topology.writer(channel)
            same_node = [key for key, value in node.outputs.items() if value == channel]
            if other is not node or same_node[0] != port:
                raise source.error(
                    f"channel {channel!r} already has a writer, node {other.name if other else '?'!r}",
                    "nodes", node.name, "outputs", port,
                    remedy="a channel has one writer: choose another name",
                )  # fmt: skip
            topology.channels.setdefault(channel, ChannelSection(channel))
            if topology.channels[channel].external:
                raise source.error("is set for a channel that this fabric writes", "channels", channel, "connect")
    for name, section in topology.channels.items():
        if topology.writer(name) is None and not section.external:
            written = sorted({channel for node in topology.nodes.values() for channel in node.outputs.values()})
            check_known(source, {name: None}, written, "channels")
    for node in topology.nodes.values():
        for port, channel in node.inputs.items():
            if channel not in topology.channels:
                check_input(source, topology, node.name, port, channel)
    if len(topology.channel_ids()) != len(topology.channels):
        seen: dict[int, str] = {}
        for name in topology.channels:
            other_name = seen.setdefault(channel_id(name), name)
            if other_name != name:
                raise source.error(f"has the same id as {other_name!r}", "channels", name, remedy="rename one of them")
    _check_cycles(source, topology)


def check_input(source: Source, topology: Topology, node: str, port: str, channel: str) -> None:
    from difflib import get_close_matches

    close = get_close_matches(channel, list(topology.channels), n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "make it some node's output, or say where it is in [channels]"
    raise source.error(f"no node writes channel {channel!r}", "nodes", node, "inputs", port, remedy=remedy)


def _check_cycles(source: Source, topology: Topology) -> None:
    upstream = {
        name: {writer.name for channel in node.inputs.values() if (writer := topology.writer(channel)) is not None}
        for name, node in topology.nodes.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            loop = " -> ".join((*trail[trail.index(name) :], name))
            raise source.error(f"nodes feed one another in a cycle: {loop}", "nodes", name, "inputs")
        if name not in done:
            for other in sorted(upstream[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in topology.nodes:
        visit(name, ())


# Values


def _get(source: Source, table: dict[str, Any], key: str, kind: type, default: Any, *path: str) -> Any:
    value = table.get(key, default)
    if value is not default and type(value) is not kind:
        names = {str: "a string", bool: "true or false", int: "a whole number", list: "a list"}
        raise source.error(f"is {value!r}, not {names[kind]}", *path, key)
    return value


def _unit(
    source: Source, table: dict[str, Any], key: str, default: str, parse: Callable[[str], int], *path: str
) -> int:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise source.error(f"is {value!r}, not a string with a unit", *path, key, remedy=f"for example {default!r}")
    try:
        return parse(value)
    except ValueError as error:
        raise source.error(str(error), *path, key) from None


def _path(source: Source, table: dict[str, Any], key: str, default: str) -> Path:
    value = _get(source, table, key, str, default)
    return (source.origin(key).base / Path(value)).resolve()


def _table(source: Source, table: dict[str, Any], key: str, *path: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise source.error("is not a table", *path, key)
    return value
