"""``fabric check`` and ``fabric explain``: what a config says, before anything starts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from fabric.cli.options import config_argument, json_option, set_option
from fabric.config.curve import is_tcp, listens_on, look_up_curves, warnings_of
from fabric.config.load import load_topology
from fabric.config.plan import Plan, make_plan
from fabric.config.topology import Topology
from fabric.units import format_bytes, format_ns


@click.command()
@config_argument
@set_option
@click.option("--resolved", is_flag=True, help="Print every value and where it came from; secrets are masked.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configs, for editors. Needs no CONFIG.")
@json_option
def check(config: str | None, settings: tuple[str, ...], resolved: bool, schema: bool, as_json: bool) -> None:
    """Validate a config whole: names, types, wiring, record types, endpoints, keys, files that nodes read at start."""
    if schema:
        _print_schema(config, settings)
        return
    plan = make_plan(load_topology(config, settings))
    look_up_curves(plan.topology)
    for node in plan.nodes.values():
        node.make().on_start()
    source, warnings = plan.topology.source, warnings_of(plan.topology)
    facts: dict[str, Any] = {
        "file": str(source.file),
        "nodes": len(plan.nodes),
        "channels": len(plan.topology.channels),
    }
    if resolved:
        from fabric.config.resolved import resolved_values

        facts["values"] = [dataclasses.asdict(value) for value in resolved_values(plan)]
    if as_json:
        click.echo(json.dumps({**facts, "warnings": warnings}, indent=2))
        return
    _warn(warnings)
    width = max((len(value["key"]) for value in facts.get("values", [])), default=0)
    for value in facts.get("values", []):
        click.echo(f"{value['key']:{width}}  {_toml(value['value'])}  # {value['origin']}")
    if not resolved:
        click.echo(f"{facts['file']}: ok, {facts['nodes']} nodes, {facts['channels']} channels")


def _print_schema(config: str | None, settings: tuple[str, ...]) -> None:
    from fabric.config.plan import find_class
    from fabric.config.schema import installed_nodes, make_schema

    classes = installed_nodes()
    if config is not None:
        topology = load_topology(config, settings)
        classes |= {node.use: find_class(topology, node) for node in topology.nodes.values()}
    click.echo(json.dumps(make_schema(classes), indent=2))


def _toml(value: Any) -> str:
    """Near enough to TOML for a person: JSON's values are TOML's, but for tables and what is not set."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


def _warn(warnings: list[str]) -> None:
    for line in warnings:
        click.echo(f"warning: {line}", err=True)


@click.command()
@config_argument
@set_option
@json_option
def explain(config: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say who talks to whom, over which path, how much is kept, and what can still lose data."""
    plan = make_plan(load_topology(config, settings))
    described = [describe_channel(plan, name) for name in plan.topology.channels]
    warnings = warnings_of(plan.topology)
    if as_json:
        content = {"fabric": plan.topology.fabric, "channels": described, "warnings": warnings}
        click.echo(json.dumps(content, indent=2))
        return
    topology = plan.topology
    click.echo(f"fabric {topology.fabric}: {' -> '.join(plan.upstream_first())}")
    click.echo(f"  runs in {topology.directory}; sockets in {topology.sockets_dir}")
    click.echo(f"  heartbeat {format_ns(topology.heartbeat_ns)}, stale after {format_ns(topology.stale_after_ns)}")
    for entry in described:
        click.echo(f"\n{entry['channel']}  ({entry['record']}, {entry['record_bytes']} bytes a record)")
        click.echo(f"  writer   {entry['writer']} at {entry['data']}")
        for endpoint in entry["listen"]:
            click.echo(f"  listens  at {endpoint}{_secured(entry, endpoint)}")
        for reader in entry["readers"]:
            click.echo(f"  reader   {reader['node']}.{reader['input']} over {reader['path']}")
        click.echo(f"  replay   {entry['replay']}, the last {entry['retained_records']:,} records ({entry['retain']})")
        if entry["replay_listen"]:
            click.echo(f"           and at {entry['replay_listen']}{_secured(entry, entry['replay_listen'])}")
        click.echo(f"  beyond   {entry['beyond_retention']}")
        if entry["curve"] and entry["writer"] == "another fabric":
            click.echo("  keys     CURVE")
    _warn(warnings)


def _secured(entry: dict[str, Any], endpoint: str) -> str:
    if not is_tcp(endpoint):
        return ""
    return f", CURVE, for {entry['clients']}" if entry["curve"] else ", not encrypted"


def describe_channel(plan: Plan, name: str) -> dict[str, Any]:
    """What ``explain --json`` says of a channel."""
    topology, record = plan.topology, plan.records.get(name)
    section = topology.channels[name]
    writer = topology.writer(name)
    data = topology.data_endpoint_of(name)
    size = record.size if record else 0
    image = record.image if record else "none"
    if image == "none":
        beyond = "lost: the channel has no image; a reader is told exactly which records"
    else:
        beyond = f"a snapshot (image of the {image} record for each key); what it passes over is counted as skipped"
    tcp = listens_on(topology, section) or [each for each in (section.connect, section.replay) if is_tcp(each)]
    return {
        "channel": name,
        "record": record.name if record else "unknown",
        "record_bytes": size,
        "schema": f"{record.schema:08x}" if record else "",
        "writer": writer.name if writer else "another fabric",
        "data": data,
        "listen": section.listen,
        "replay": topology.replay_endpoint_of(name),
        "replay_listen": "" if section.external else section.replay,
        "curve": bool(tcp and section.curve is not None),
        "clients": _clients(topology, name),
        "retain": format_bytes(section.retain_bytes),
        "retained_records": section.retain_bytes // size if size else 0,
        "image": image,
        "sync": section.sync,
        "beyond_retention": beyond,
        "readers": [{"node": node, "input": port, "path": data.partition(":")[0]} for node, port in plan.readers(name)],
    }


def _clients(topology: Topology, channel: str) -> str:
    """Who may connect, in words; needs no key."""
    from fabric.config.curve import written_clients

    section = topology.channels[channel]
    written = written_clients(topology, section) if listens_on(topology, section) else None
    if written is None:
        return ""
    if isinstance(written, list):
        return f"{len(written)} client{'s' * (len(written) != 1)}"
    return "any client" if written == "any" else f"the clients in {written}"
