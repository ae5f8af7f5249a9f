"""``fabric explain``: who talks to whom over which path and why, how much is kept where, and what can still lose data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import click

from fabric.cli.options import config_argument, json_option, set_option
from fabric.cli.recovery import CatchUp, catch_up, recovery_warnings
from fabric.config.curve import is_tcp, listens_on, warnings_of, written_clients
from fabric.config.load import load_topology
from fabric.config.plan import Plan, make_plan
from fabric.config.topology import Topology
from fabric.errors import LogError
from fabric.log.reader import LogReader
from fabric.protocol.channellines import line_name
from fabric.protocol.types import Limits
from fabric.rundir import RunDirectory, latest_run
from fabric.transport.faults import SHARES
from fabric.transport.sockets import HIGH_WATER_PACKETS, native_wire
from fabric.units import format_bytes, format_ns
from native.clock import stamp_counter
from native.packet import MAX_BYTES
from native.wire import version

_MIN_RATE_RECORDS = 100
_NO_IMAGE, _NO_SNAPSHOT = "the channel has no image", "its recovery has no snapshot"


@click.command()
@config_argument
@set_option
@json_option
def explain(config: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say who talks to whom, over which path and why, what every buffer holds, how long a reader may be away, and what
    can still lose data. Rates are those of the newest run, if there was one."""
    plan = make_plan(load_topology(config, settings))
    topology = plan.topology
    run: RunDirectory | None = None
    with contextlib.suppress(LogError):
        run = latest_run(topology.directory)
    channels = [describe_channel(plan, name, run) for name in topology.channels]
    described: dict[str, Any] = {
        "fabric": topology.fabric,
        "packets": f"by libzmq {version()}, called natively" if native_wire() else "by pyzmq, in Python",
        "stamps": f"by the processor's counter ({counter})"
        if (counter := stamp_counter())
        else "by the system's clock",
        "nodes": [describe_node(plan, name) for name in plan.upstream_first()],
        "channels": channels,
        "archive": describe_archive(topology),
        "buffers": buffers(topology),
        "can_lose": can_lose(topology, channels),
        "fault": describe_fault(topology),
        "warnings": [*warnings_of(topology), *(line for entry in channels for line in recovery_of(topology, entry))],
    }
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    click.echo(f"fabric {topology.fabric}: {' -> '.join(plan.upstream_first())}")
    click.echo(f"  runs in {topology.directory}; sockets in {topology.sockets_dir}")
    click.echo(f"  packets {described['packets']}; stamps {described['stamps']}")
    click.echo(f"  heartbeat {format_ns(topology.heartbeat_ns)}, stale after {format_ns(topology.stale_after_ns)}")
    for node in described["nodes"]:
        places = ", ".join(map(str, node["cpus"]))
        click.echo(f"  {node['node']} waits by {node['idle']!r}, on {f'cpus {places}' if places else 'any cpu'}")
        if node["watchdog_seconds"]:
            click.echo(f"    killed by `fabric up` when it makes no progress for {_spell(node['watchdog_seconds'])}")
        if node["standby"]:
            click.echo("    a standby waits for its lock, and goes on in the same session when its process ends")
        for line in node["other_host"]:
            click.echo(f"    {line}")
    for entry in channels:
        _print_channel(entry)
    if archive := described["archive"]:
        click.echo(f"\narchive  {', '.join(archive['channels'])}")
        click.echo(
            f"  keeps    {archive['keep']}, at most {archive['keep_bytes']} a channel, in {archive['directory']}"
        )
        click.echo(
            f"  answers  at {', '.join(archive['endpoints'])}, and the log server from it for what it has no more"
        )
    click.echo("\nbuffers: none grows without bound")
    for buffer in described["buffers"]:
        click.echo(f"  {buffer['what']:34} {buffer['holds']}; full: {buffer['full']}")
    click.echo("\nwhat can still lose data, or delay it")
    for line in described["can_lose"]:
        click.echo(f"  - {line}")
    if described["fault"]:
        click.echo("\nwhat `fabric fault` does to it, for as many seconds as it is told; other verbs leave it alone")
        for line in described["fault"]:
            click.echo(f"  - {line}")
    for line in described["warnings"]:
        click.echo(f"warning: {line}", err=True)


def _print_channel(entry: dict[str, Any]) -> None:
    click.echo(f"\n{entry['channel']}  ({entry['record']}, {entry['record_bytes']} bytes a record)")
    click.echo(f"  writer   {entry['writer']} at {entry['data']}")
    for number, endpoint in enumerate(entry["lines"]):
        click.echo(f"  line {line_name(number)}   {endpoint}")
    if entry["lines"]:
        click.echo(
            f"           the same on each, the first one counts; what one lacks is waited for {format_ns(entry['reorder_ns'])}"
        )
    for endpoint in entry["standbys"]:
        click.echo(f"  standby  publishes at {endpoint} once it has taken over; readers listen there too")
    for endpoint in entry["listen"]:
        click.echo(f"  listens  at {endpoint}{_secured(entry, endpoint)}")
    for reader in entry["readers"]:
        click.echo(f"  reader   {reader['node']}.{reader['input']} over {reader['path']}: {reader['why']}")
    click.echo(f"  replay   {entry['replay']}, the last {entry['retained_records']:,} records ({entry['retain']})")
    if entry["replay_listen"]:
        click.echo(f"           and at {entry['replay_listen']}{_secured(entry, entry['replay_listen'])}")
    if entry["window_seconds"] is not None:
        click.echo(
            f"  window   {_spell(entry['window_seconds'])} at {entry['records_per_second']:,.0f} records/s, "
            f"{'as expected' if entry['expected'] else 'as in the newest run'}: a reader may be away so long and loses nothing"
        )
    if (recovery := entry["recovery"]) is not None and recovery["seconds"] is not None:
        click.echo(
            f"  recovery away for {_spell(recovery['away_s'])}, a reader has caught up {_spell(recovery['seconds'])} after it "
            f"left: replayed at {recovery['replay_rate']:,.0f} records/s"
        )
    for rung in entry["rungs"][1:]:
        click.echo(f"  then     the {rung['name']} at {rung['endpoint']}, for what the log server has no more")
    click.echo(f"  beyond   {entry['beyond_retention']}")
    if entry["curve"] and entry["writer"] == "another fabric":
        click.echo("  keys     CURVE")


def _spell(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _secured(entry: dict[str, Any], endpoint: str) -> str:
    if not is_tcp(endpoint):
        return ""
    return f", CURVE, for {entry['clients']}" if entry["curve"] else ", not encrypted"


def describe_node(plan: Plan, name: str) -> dict[str, Any]:
    """How a node's process waits, and where it may run (no ``cpus``: anywhere)."""
    section = plan.nodes[name].section
    return {
        "node": name,
        "idle": section.idle,
        "cpus": list(section.cpus),
        "standby": section.standby,
        "watchdog_seconds": section.watchdog_ns / 1e9,
        "other_host": describe_other_host(plan, name),
    }


def describe_other_host(plan: Plan, name: str) -> list[str]:
    """What a node has to do with another host's, in words: it stands by for that, or has a standby there."""
    topology, section, lines = plan.topology, plan.nodes[name].section, []
    if (standby := topology.standbys.get(name)) is not None:
        how = "sync" if standby.sync else "async"
        lines.append(f"stands by ({how}) for the node at {standby.connect}, whose log server is at {standby.replay}")
        after_ns = standby.takeover_after_ns
        lines.append(
            f"takes over after {format_ns(after_ns)} of silence, in new sessions; that both publish then can't be ruled out"
            if after_ns
            else "takes over when `fabric takeover` says so, in new sessions"
        )
    if section.sync:
        lost = "it stops" if section.on_standby_lost == "stop" else "it goes on without"
        lines.append(
            f"a standby that joins at {section.sync} has each record before anybody sees it; {lost} when that does not "
            f"answer for {format_ns(section.standby_deadline_ns)}"
        )
    rivals = {topology.channels[each].standby_replay for each in section.outputs.values()} - {""}
    lines += [f"asks {each} each second whether a standby has taken over, and stops then" for each in sorted(rivals)]
    return lines


def describe_channel(plan: Plan, name: str, run: RunDirectory | None) -> dict[str, Any]:
    """What ``explain --json`` says of a channel."""
    topology, record = plan.topology, plan.records.get(name)
    section = topology.channels[name]
    writer = topology.writer(name)
    data, lines = topology.data_endpoint_of(name), topology.lines_of(name)
    size = record.size if record else 0
    image = record.image if record else "none"
    if image == "none" or "snapshot" not in section.recovery:
        beyond = f"lost: {_NO_IMAGE if image == 'none' else _NO_SNAPSHOT}; a reader is told exactly which records"
    else:
        beyond = f"a snapshot (image of the {image} record for each key); what it passes over is counted as skipped"
    if topology.archive is not None and name in topology.archive.channels and writer is not None:
        beyond = f"the archive; beyond that {beyond}"
    tcp = listens_on(topology, section) or [each for each in (*section.connect, section.replay) if is_tcp(each)]
    path, why = _path(topology, name)
    rate = section.rate or _rate(run, name)
    recovery = catch_up(topology, name, size, rate) if rate and size else None
    rungs = topology.rungs_of(name)
    retained = section.retain_bytes // size if size else 0
    return {
        "channel": name,
        "record": record.name if record else "unknown",
        "record_bytes": size,
        "schema": f"{record.schema:08x}" if record else "",
        "writer": writer.name if writer else "another fabric",
        "data": data,
        "lines": [] if len(lines) < 2 else list(lines),
        "reorder_ns": section.reorder_ns,
        "standbys": list(topology.standbys_of(name)),
        "listen": section.listen,
        "replay": topology.replay_endpoint_of(name),
        "replay_listen": "" if section.external else section.replay,
        "curve": bool(tcp and section.curve is not None),
        "clients": _clients(topology, name),
        "retain": format_bytes(section.retain_bytes),
        "retained_records": retained,
        "expected": section.rate is not None,
        "records_per_second": None if rate is None else round(rate, 1),
        "window_seconds": None if not rate or not retained else round(retained / rate, 1),
        "recovery": None if recovery is None else _rounded(recovery),
        "rungs": [{"name": rung.name, "endpoint": rung.endpoint} for rung in rungs],
        "image": image,
        "sync": section.sync,
        "beyond_retention": beyond,
        "readers": [{"node": node, "input": port, "path": path, "why": why} for node, port in plan.readers(name)],
    }


def _rounded(recovery: CatchUp) -> dict[str, float | None]:
    """Shape: fabric.cli.recovery.CatchUp."""
    return {name: None if value is None else round(value, 1) for name, value in dataclasses.asdict(recovery).items()}


def recovery_of(topology: Topology, entry: dict[str, Any]) -> list[str]:
    """Warnings of what a channel's readers could not recover from."""
    if entry["recovery"] is None:
        return []
    name, size = entry["channel"], entry["record_bytes"]
    rate = topology.channels[name].rate or entry["records_per_second"]
    return recovery_warnings(topology, name, size, catch_up(topology, name, size, rate)) if rate else []


def describe_archive(topology: Topology) -> dict[str, Any] | None:
    section = topology.archive
    if section is None:
        return None
    return {
        "channels": section.channels,
        "directory": str(section.directory),
        "keep": _spell(section.keep_ns / 1e9) if section.keep_ns else "all",
        "keep_bytes": format_bytes(section.keep_bytes),
        "endpoints": [topology.archive_endpoint, *section.listen],
    }


def _path(topology: Topology, channel: str) -> tuple[str, str]:
    """How readers of this config get a channel's records, and why so."""
    section = topology.channels[channel]
    scheme = topology.data_endpoint_of(channel).partition(":")[0]
    here = (
        "its publisher is of this fabric, on this host" if topology.writer(channel) else "[channels] says where it is"
    )
    if section.path in ("ipc", "tcp"):
        return section.path, f'{here}; path = "{section.path}"'
    if section.path == "auto" and section.curve is not None and section.external and scheme == "tcp":
        return scheme, f"{here}; its keys are for the socket"
    if section.external:
        return f"local or {scheme}", f"{here}; its log is mapped where that is on this host"
    return "local", f"{here}: its log is mapped, and {scheme} is used until it is, and under --fault"


def _rate(run: RunDirectory | None, channel: str) -> float | None:
    """Records a second in the newest run; None where too few were published to tell."""
    if run is None:
        return None
    with contextlib.suppress(LogError, OSError):
        log = LogReader(run.channel_log(channel))
        if len(log) >= _MIN_RATE_RECORDS:
            first = int(log[log.first_available : log.first_available + 1].records["ts_publish_ns"][0])
            last = int(log[-1:].records["ts_publish_ns"][0])
            return (len(log) - 1) / ((last - first) / 1e9) if last > first else None
    return None


def buffers(topology: Topology) -> list[dict[str, str]]:
    """Everything between a publisher and its readers that holds data, its size, and what happens when it is full."""
    limits = Limits()
    packets = f"{HIGH_WATER_PACKETS:,} packets of up to {MAX_BYTES // 1024} KiB for each peer"
    return [
        {"what": "a channel's log", "holds": "what `retain` says", "full": "the oldest segment is removed"},
        {"what": "libzmq, sending", "holds": packets, "full": "the packet is dropped; the reader replays it"},
        {"what": "libzmq, receiving", "holds": packets, "full": "as above"},
        {
            "what": "a reader's lane",
            "holds": "4 MiB at most for each channel, 4 MiB of frames for each process",
            "full": "packets wait above; then they are not taken, and replayed",
        },
        {
            "what": "a reader of a mapped log",
            "holds": "nothing: the log does",
            "full": "it is told what retention removed",
        },
        {
            "what": "a reader, above a hole",
            "holds": f"{limits.max_held_records:,} records for each channel",
            "full": "live packets are not taken; they are replayed",
        },
        {
            "what": "a reader, ready to be read",
            "holds": f"{limits.max_queued_records:,} records for each channel, as many again in a client",
            "full": "live packets are not taken; they are replayed when it reads on",
        },
    ]


def can_lose(topology: Topology, channels: list[dict[str, Any]]) -> list[str]:
    """What this config leaves possible, most likely first."""
    lines = []
    bare = [entry["channel"] for entry in channels if entry["image"] == "none"]
    with_image = [entry["channel"] for entry in channels if entry["image"] != "none"]
    if bare:
        lines.append(
            f"{', '.join(bare)}: a reader that is away for longer than its log reaches back gets Lost with the range"
        )
    if with_image:
        lines.append(
            f"{', '.join(with_image)}: such a reader is brought up to date by a snapshot; single records in between are Skipped"
        )
    owned = [name for name in topology.channels if not topology.channels[name].external]
    volatile = [name for name in owned if not topology.channels[name].sync]
    if volatile and topology.log_dir is None:
        lines.append(
            f"{', '.join(volatile)}: logs are on tmpfs where it has room; power loss takes them (log_dir on a disk, and sync "
            "for what must be on it before it is sent)"
        )
    elif volatile:
        lines.append(
            f"{', '.join(volatile)}: without sync, an operating system's crash takes what it had not yet written to the disk"
        )
    alone = [name for name, node in topology.nodes.items() if not node.standby]
    if alone:
        lines.append(
            f"{', '.join(alone)}: one process each: while it restarts nothing new is published; what it had committed is "
            "replayed (standby = true shortens that)"
        )
    return lines


def describe_fault(topology: Topology) -> list[str]:
    """The ``[fault]`` table in words; empty without one."""
    section = topology.fault
    if section is None:
        return []
    plan = section.plan
    held = plan.duplicate or plan.reorder or plan.delay
    shares = [f"{name} {share:.2%}" for name in SHARES if (share := getattr(plan, name))]
    lines = [f"packets: {', '.join(shares)}" + (f", held back at most {format_ns(plan.delay_for_ns)}" if held else "")]
    for action in section.actions:
        when = f"after {format_ns(action.at_ns)}" + (
            f", then each {format_ns(action.every_ns)}" if action.every_ns else ""
        )
        lasts = f" for {format_ns(action.for_ns)}" if action.for_ns else ""
        lines.append(f"{action.name}: {action.do} {' or '.join(action.nodes)}{lasts} {when}")
    return lines if shares else lines[1:]


def _clients(topology: Topology, channel: str) -> str:
    """Who may connect, in words; needs no key."""
    section = topology.channels[channel]
    written = written_clients(topology, section) if listens_on(topology, section) else None
    if written is None:
        return ""
    if isinstance(written, list):
        return f"{len(written)} client{'s' * (len(written) != 1)}"
    return "any client" if written == "any" else f"the clients in {written}"
