"""From TOML values to a Topology: names, wiring, sizes, endpoints; no node's code is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fabric.channel import channel_id, check_channel_name
from fabric.config.convert import convert
from fabric.config.curve import check_curve, check_endpoints_agree, curve_section
from fabric.config.fault import read_fault
from fabric.config.keys import (
    ARCHIVE_KEYS,
    CHANNEL_KEYS,
    NAME,
    NODE_KEYS,
    SERVICE_KEYS,
    STANDBY_KEYS,
    TOP_KEYS,
    read_keys,
)
from fabric.config.source import Source, check_known, is_reference, read_source
from fabric.config.topology import (
    ArchiveSection,
    ChannelSection,
    NodeSection,
    ServiceSection,
    StandbySection,
    Topology,
)
from fabric.protocol.channellines import MOST_LINES
from fabric.transport.sockets import check_endpoint

_NAME = re.compile(NAME)
_LEAST_WATCHDOG_NS = 1_000_000_000
_LEAST_DEADLINE_NS = 1_000_000_000
_LEAST_BUFFER_RECORDS = 8192
_LEAST_REPLAY_BYTES = 1 << 20
_LEAST_DEADLINE_OF_STANDBY_NS = 300_000_000
"""It is heard each 200 ms."""
LEAST_TAKEOVER_NS = 500_000_000
"""Of silence: heartbeats come each 100 ms, and the log server is to be asked meanwhile."""


def load_topology(config: str | Path | None, settings: tuple[str, ...] = (), *, alone: bool = False) -> Topology:
    """Read and check a config as far as that needs no node's code. Raises ConfigError naming file, key and remedy."""
    return topology_of(read_source(config, settings), alone=alone)


def topology_of(source: Source, *, alone: bool = False) -> Topology:
    """Check values that were read already. ``alone``: do not look into the configs of other fabrics that it names."""
    values = source.values
    top = read_keys(source, values, TOP_KEYS)
    name = top["fabric"] or source.file.stem
    if not _NAME.fullmatch(name):
        raise source.error(f"{name!r} can't be a fabric's name", "fabric", remedy="letters, digits, '_' and '-'")
    topology = Topology(
        fabric=name,
        source=source,
        data_dir=_path(source, "data_dir", top["data_dir"]),
        log_dir=None if top["log_dir"] == "auto" else _path(source, "log_dir", top["log_dir"]),
        heartbeat_ns=top["heartbeat"],
        stale_after_ns=top["stale_after"],
        nodes={},
        channels={},
        curve=curve_section(source, values.get("curve"), None, "curve"),
        replay_rate_bytes=top["replay_rate"],
    )
    if 0 < topology.replay_rate_bytes < _LEAST_REPLAY_BYTES:
        raise source.error("is less than 1MiB", "replay_rate", remedy='readers would give up waiting; "0B" is no limit')
    if topology.heartbeat_ns < 1_000_000:
        raise source.error("is shorter than 1ms", "heartbeat")
    if topology.stale_after_ns < 2 * topology.heartbeat_ns:
        raise source.error("is shorter than two heartbeats", "stale_after", remedy="heartbeat is 100ms by default")
    nodes = _table(source, values, "nodes")
    if not nodes and "archive" not in values:
        raise source.error("there are no nodes", "nodes", remedy='add a table such as [nodes.feed] with use = "…"')
    for node, table in nodes.items():
        topology.nodes[node] = _node(source, node, table)
    sections = _table(source, values, "channels")
    for channel, table in sections.items():
        topology.channels[channel] = _channel(topology, channel, table, alone=alone)
    for service, table in _table(source, values, "services").items():
        topology.services[service] = _service(topology, service, table)
    _wire(source, topology)
    topology.archive = _archive(source, topology, values)
    for name, table in _table(source, values, "standby").items():
        topology.standbys[name] = _standby(topology, name, table)
    if "fault" in values:
        topology.fault = read_fault(source, _table(source, values, "fault"), topology.nodes, "fault")
    if not alone:
        for section in topology.channels.values():
            check_curve(topology, section)
        check_endpoints_agree(topology)
    return topology


def _node(source: Source, name: str, table: Any) -> NodeSection:
    path = ("nodes", name)
    if not _NAME.fullmatch(name):
        raise source.error(f"{name!r} can't be a node's name", *path, remedy="letters, digits, '_' and '-'")
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    if "use" not in table:
        raise source.error("is missing", *path, "use", remedy='name the node\'s class, such as use = "pricing"')
    common = read_keys(source, table, NODE_KEYS, *path, more=True)
    ports: dict[str, dict[str, str]] = {}
    for key in ("inputs", "outputs"):
        ports[key] = {}
        for port, channel in _table(source, table, key, *path).items():
            if not isinstance(channel, str) and not is_reference(channel):
                raise source.error("is not a channel's name", *path, key, port)
            place = source.origin(*path, key, port).place
            given = convert(source, channel, str, *path, key, port)
            ports[key][port] = check_channel_name(given, file=place, key=".".join((*path, key, port)))
    if common["sync"]:
        check_endpoint(common["sync"], file=source.origin(*path, "sync").place, key=".".join((*path, "sync")))
    if common["standby_deadline"] < _LEAST_DEADLINE_OF_STANDBY_NS:
        raise source.error("is shorter than 300ms", *path, "standby_deadline", remedy="it is heard each 200ms")
    cpus = common["cpus"]
    if 0 < common["watchdog"] < _LEAST_WATCHDOG_NS:
        raise source.error("is shorter than 1s", *path, "watchdog", remedy='a machine may be busy; "0s" is never')
    return NodeSection(
        name=name,
        use=common["use"],
        inputs=ports["inputs"],
        outputs=ports["outputs"],
        resume=common["resume"],
        idle=common["idle"],
        checkpoint_every_ns=common["checkpoint_every"],
        standby=common["standby"],
        process=_process(source, common, *path),
        sync=common["sync"] or "",
        on_standby_lost=common["on_standby_lost"],
        standby_deadline_ns=common["standby_deadline"],
        watchdog_ns=common["watchdog"],
        settings={key: value for key, value in table.items() if key not in NODE_KEYS},
        cpus=() if cpus is None else (cpus,) if isinstance(cpus, int) else _several(source, cpus, *path, "cpus"),
    )


def _process(source: Source, common: dict[str, Any], *path: str) -> str:
    name: str | None = common["process"]
    if name is None:
        return ""
    if not _NAME.fullmatch(name):
        raise source.error(
            f"{name!r} can't be a process's name", *path, "process", remedy="letters, digits, '_' and '-'"
        )
    if common["standby"]:
        raise source.error(
            "is set beside standby", *path, "process", remedy="a node with a standby has its own process"
        )
    return name


def _several(source: Source, cpus: list[int], *path: str) -> tuple[int, ...]:
    if not cpus:
        raise source.error("names no processor", *path, remedy="leave it out: then it may run on any")
    return tuple(cpus)


def _channel(topology: Topology, name: str, table: Any, *, alone: bool) -> ChannelSection:
    source, path = topology.source, ("channels", name)
    check_channel_name(name, file=source.origin(*path).place, key=".".join(path))
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    values = read_keys(source, table, CHANNEL_KEYS, *path)
    listen = values["listen"]
    section = ChannelSection(
        name=name,
        retain_bytes=values["retain"],
        rate=values["rate"],
        outage_ns=values["outage"],
        retain_age_ns=values["retain_age"],
        segment_bytes=values["segment"],
        sync=values["sync"],
        crc=values["crc"],
        path=values["path"],
        listen=[listen] if isinstance(listen, str) else list(listen),
        connect=[values["connect"]] if isinstance(values["connect"], str) else list(values["connect"]),
        reorder_ns=values["reorder"],
        replay=values["replay"] or "",
        archive=values["archive"] or "",
        standby_connect=values["standby_connect"] or "",
        standby_replay=values["standby_replay"] or "",
        recovery=tuple(values["recovery"]),
        recovery_deadline_ns=values["recovery_deadline"],
        buffer_records=values["buffer"],
        curve=curve_section(source, table.get("curve"), topology.curve, *path, "curve"),
    )
    if other := values["config"]:
        if alone:
            section.connect, section.replay = ["ipc://elsewhere"], "ipc://elsewhere"
        else:
            _take_endpoints(source, section, other, *path)
    named = {
        "listen": section.listen,
        "connect": section.connect,
        "replay": [section.replay],
        "archive": [section.archive],
        "standby_connect": [section.standby_connect],
        "standby_replay": [section.standby_replay],
    }
    for key, endpoints in named.items():
        for endpoint in filter(None, endpoints):
            origin = source.origin(*path, key).place
            listens = key == "listen" or (key == "replay" and not section.external)
            check_endpoint(endpoint, listens=listens, file=origin, key=".".join((*path, key)))
    if section.standby_connect and not section.external:
        raise source.error(
            "is set for a channel that this fabric writes",
            *path,
            "standby_connect",
            remedy="it is for readers elsewhere",
        )
    if section.standby_connect and not section.standby_replay:
        raise source.error("is missing", *path, "standby_replay", remedy="where the standby's log server answers")
    if section.standby_connect and 1 < len(section.connect) >= MOST_LINES:
        raise source.error("and the standby are too many lines", *path, "connect", remedy=f"up to {MOST_LINES} of both")
    if len(section.connect) > MOST_LINES or len(set(section.connect)) != len(section.connect):
        raise source.error(
            f"names {len(section.connect)} lines",
            *path, "connect", remedy=f"up to {MOST_LINES} endpoints of one publisher, all different",
        )  # fmt: skip
    _check_recovery(source, section, *path)
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


def _check_recovery(source: Source, section: ChannelSection, *path: str) -> None:
    order = section.recovery
    if not order or order[0] != "log" or len(set(order)) != len(order) or "snapshot" in order[:-1]:
        raise source.error(
            f"{list(order)} is no order", *path, "recovery",
            remedy='"log" is first, "snapshot" last, each once: ["log", "archive", "snapshot"]',
        )  # fmt: skip
    if section.archive and "archive" not in order:
        raise source.error("is not in recovery", *path, "archive", remedy='recovery = ["log", "archive", "snapshot"]')
    if section.archive and not section.external:
        raise source.error(
            "is set for a channel that this fabric writes", *path, "archive",
            remedy="its log server asks the archive of this host by itself",
        )  # fmt: skip
    if section.rate is not None and not section.rate > 0:
        raise source.error("is not above 0", *path, "rate")
    if section.recovery_deadline_ns < _LEAST_DEADLINE_NS:
        raise source.error("is shorter than 1s", *path, "recovery_deadline")
    if section.buffer_records < _LEAST_BUFFER_RECORDS:
        raise source.error(f"is less than {_LEAST_BUFFER_RECORDS:,}", *path, "buffer")


def _archive(source: Source, topology: Topology, values: dict[str, Any]) -> ArchiveSection | None:
    if "archive" not in values:
        return None
    table = _table(source, values, "archive")
    given = read_keys(source, table, ARCHIVE_KEYS, "archive")
    written = [channel for node in topology.nodes.values() for channel in node.outputs.values()]
    channels = given["channels"] if given["channels"] is not None else written
    check_known(source, dict.fromkeys(channels), list(topology.channels), "archive", "channels")
    if not channels:
        raise source.error("names no channel", "archive", "channels")
    listen = [given["listen"]] if isinstance(given["listen"], str) else list(given["listen"])
    for endpoint in listen:
        check_endpoint(endpoint, file=source.origin("archive", "listen").place, key="archive.listen")
    if not 64 << 10 <= given["segment"] <= 1 << 30:
        raise source.error("is not between 64KiB and 1GiB", "archive", "segment")
    if given["keep_bytes"] < 2 * given["segment"]:
        raise source.error("is less than two segments", "archive", "keep_bytes", remedy="raise it, or lower segment")
    if "archive" in topology.nodes:
        raise source.error("is the archive's own name", "nodes", "archive", remedy="name the node otherwise")
    directory = topology.directory / "archive"
    if given["directory"] is not None:
        directory = (source.origin("archive", "directory").base / given["directory"]).resolve()
    return ArchiveSection(
        list(dict.fromkeys(channels)), directory, given["keep"], given["keep_bytes"], given["segment"], listen,
        topology.curve,
    )  # fmt: skip


def _standby(topology: Topology, name: str, table: Any) -> StandbySection:
    source, path = topology.source, ("standby", name)
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    check_known(source, {name: None}, list(topology.nodes), "standby")
    given = read_keys(source, table, STANDBY_KEYS, *path)
    for key in ("connect", "replay", "sync"):
        if given[key]:
            place = source.origin(*path, key).place
            check_endpoint(given[key], listens=False, file=place, key=".".join((*path, key)))
    if not topology.nodes[name].outputs:
        raise source.error("publishes nothing that could be taken over", *path)
    if topology.nodes[name].process:
        raise source.error("stands by, and shares a process", *path, remedy=f"leave out nodes.{name}.process")
    if 0 < given["takeover_after"] < LEAST_TAKEOVER_NS:
        raise source.error("is shorter than 500ms", *path, "takeover_after", remedy="heartbeats come each 100ms")
    return StandbySection(
        name, given["connect"], given["replay"], given["sync"] or "", given["takeover_after"], topology.curve
    )


def _service(topology: Topology, name: str, table: Any) -> ServiceSection:
    source, path = topology.source, ("services", name)
    check_channel_name(name, file=source.origin(*path).place, key=".".join(path))
    if not isinstance(table, dict):
        raise source.error("is not a table", *path)
    endpoint = read_keys(source, table, SERVICE_KEYS, *path)["endpoint"] or ""
    if endpoint:
        place = source.origin(*path, "endpoint").place
        check_endpoint(endpoint, listens=False, file=place, key=".".join((*path, "endpoint")))
    return ServiceSection(name, endpoint, curve_section(source, table.get("curve"), topology.curve, *path, "curve"))


def _take_endpoints(source: Source, section: ChannelSection, other: str, *path: str) -> None:
    """A channel of another fabric on this host: its config says where it is."""
    if section.connect or section.replay:
        raise source.error("is given beside connect or replay", *path, "config", remedy="keep one of them")
    topology = load_topology(source.origin(*path, "config").base / other, alone=True)
    if topology.writer(section.name) is None:
        known = ", ".join(name for name in topology.channels if topology.writer(name))
        raise source.error(f"{other} writes no channel {section.name!r}", *path, "config", remedy=f"it writes {known}")
    section.connect = [topology.data_endpoint_of(section.name)]
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
            topology.channels.setdefault(channel, ChannelSection(channel, curve=topology.curve))
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


def _path(source: Source, key: str, value: str) -> Path:
    return (source.origin(key).base / Path(value)).resolve()


def _table(source: Source, table: dict[str, Any], key: str, *path: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict) or (is_reference(value) and not path):
        raise source.error("is not a table", *path, key)
    return value
