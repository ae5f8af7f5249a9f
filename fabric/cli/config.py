"""``fabric check``: a config validated whole, before anything starts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from fabric.cli.options import config_argument, json_option, set_option
from fabric.config.curve import look_up_curves, warnings_of
from fabric.config.load import load_topology
from fabric.config.plan import make_plan


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
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
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
