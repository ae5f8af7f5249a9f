"""``fabric check`` and ``fabric explain``: what a config says, before anything starts."""

from __future__ import annotations

import json
from typing import Any

import click

from fabric.cli.options import config_argument, json_option, set_option
from fabric.config.load import load_topology
from fabric.config.plan import Plan, make_plan
from fabric.units import format_bytes, format_ns


@click.command()
@config_argument
@set_option
def check(config: str | None, settings: tuple[str, ...]) -> None:
    """Validate a config whole: names, types, wiring, record types, endpoints, files that nodes read at start."""
    plan = make_plan(load_topology(config, settings))
    for node in plan.nodes.values():
        node.make().on_start()
    nodes, channels = len(plan.nodes), len(plan.topology.channels)
    click.echo(f"{plan.topology.source.file}: ok, {nodes} nodes, {channels} channels")


@click.command()
@config_argument
@set_option
@json_option
def explain(config: str | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say who talks to whom, over which path, how much is kept, and what can still lose data."""
    plan = make_plan(load_topology(config, settings))
    described = [describe_channel(plan, name) for name in plan.topology.channels]
    if as_json:
        click.echo(json.dumps({"fabric": plan.topology.fabric, "channels": described}, indent=2))
        return
    topology = plan.topology
    click.echo(f"fabric {topology.fabric}: {' -> '.join(plan.upstream_first())}")
    click.echo(f"  runs in {topology.directory}; sockets in {topology.sockets_dir}")
    click.echo(f"  heartbeat {format_ns(topology.heartbeat_ns)}, stale after {format_ns(topology.stale_after_ns)}")
    for entry in described:
        click.echo(f"\n{entry['channel']}  ({entry['record']}, {entry['record_bytes']} bytes a record)")
        click.echo(f"  writer   {entry['writer']} at {entry['data']}")
        for reader in entry["readers"]:
            click.echo(f"  reader   {reader['node']}.{reader['input']} over {reader['path']}")
        click.echo(f"  replay   {entry['replay']}, the last {entry['retained_records']:,} records ({entry['retain']})")
        click.echo(f"  beyond   {entry['beyond_retention']}")


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
    return {
        "channel": name,
        "record": record.name if record else "unknown",
        "record_bytes": size,
        "schema": f"{record.schema:08x}" if record else "",
        "writer": writer.name if writer else "another fabric",
        "data": data,
        "listen": section.listen,
        "replay": topology.replay_endpoint_of(name),
        "retain": format_bytes(section.retain_bytes),
        "retained_records": section.retain_bytes // size if size else 0,
        "image": image,
        "sync": section.sync,
        "beyond_retention": beyond,
        "readers": [{"node": node, "input": port, "path": data.partition(":")[0]} for node, port in plan.readers(name)],
    }
