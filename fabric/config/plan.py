"""From a Topology to a Plan: node classes loaded, their config keys typed and checked, record types matched."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fabric.config.convert import convert
from fabric.config.keys import NODE_KEYS
from fabric.config.source import check_known
from fabric.config.topology import NodeSection, Topology
from fabric.cpus import cpus_problem
from fabric.errors import ConfigError
from fabric.records import RecordType
from fabric.runtime.node import REQUIRED, Node, Source, config_keys

ENTRY_POINTS = "fabric.nodes"


@dataclass(slots=True)
class NodePlan:
    """A node ready to be made: its class, and its config with paths resolved."""

    section: NodeSection
    node_class: type[Node]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.section.name

    def make(self, state_dir: Path | None = None) -> Node:
        """The node object. Raises ConfigError if its class refuses the config."""
        return self.node_class(
            self.name,
            config=self.config,
            inputs=self.section.inputs,
            outputs=self.section.outputs,
            state_dir=state_dir,
        )


@dataclass(slots=True)
class Plan:
    """Everything about a fabric, checked."""

    topology: Topology
    nodes: dict[str, NodePlan]
    records: dict[str, RecordType]
    """Channel to record type."""

    def upstream_first(self) -> list[str]:
        """Node names, each after all that it reads from."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name in order:
                return
            for channel in self.nodes[name].section.inputs.values():
                writer = self.topology.writer(channel)
                if writer is not None:
                    visit(writer.name)
            order.append(name)

        for name in self.nodes:
            visit(name)
        return order

    def sources(self) -> list[str]:
        return [name for name, node in self.nodes.items() if issubclass(node.node_class, Source)]

    def readers(self, channel: str) -> list[tuple[str, str]]:
        """(node, port) pairs that read a channel."""
        return [
            (name, port)
            for name, node in self.nodes.items()
            for port, source in node.section.inputs.items()
            if source == channel
        ]


def make_plan(topology: Topology, only: Collection[str] | None = None) -> Plan:
    """Load node classes and check every key. ``only`` limits the loading to some nodes (as their own process does).
    Raises ConfigError, or RecordTypeError where a channel's writer and reader disagree."""
    plan = Plan(topology, {}, {})
    for name, section in topology.nodes.items():
        if only is not None and name not in only and not any(_touches(topology, each, section) for each in only):
            continue
        plan.nodes[name] = _node_plan(topology, section, with_config=only is None or name in only)
    for node in plan.nodes.values():
        for port, channel in node.section.outputs.items():
            plan.records[channel] = node.node_class.outputs[port].record
    for name, node in plan.nodes.items():
        for port, channel in node.section.inputs.items():
            wanted = node.node_class.inputs[port].record
            given = plan.records.setdefault(channel, wanted)
            if given.schema != wanted.schema:
                raise topology.source.error(
                    f"channel {channel!r} carries {given.name!r} records ({given.fields()}), "
                    f"but this input takes {wanted.name!r} ({wanted.fields()})",
                    "nodes", name, "inputs", port,
                )  # fmt: skip
    return plan


def _touches(topology: Topology, node: str, other: NodeSection) -> bool:
    """Is ``other`` the writer of one of ``node``'s inputs, so that its record types matter?"""
    return any(channel in other.outputs.values() for channel in topology.nodes[node].inputs.values())


def _node_plan(topology: Topology, section: NodeSection, *, with_config: bool) -> NodePlan:
    """``with_config`` False: its values are not looked up, because another process runs it (and may have secrets)."""
    source = topology.source
    path = ("nodes", section.name)
    node_class = find_class(topology, section)
    for key, ports, used in (
        ("inputs", node_class.inputs, section.inputs),
        ("outputs", node_class.outputs, section.outputs),
    ):
        check_known(source, used, list(ports), *path, key)
        for port, declared in ports.items():
            if port not in used and not declared.optional:
                raise source.error(
                    f"the {key[:-1]} {port!r} is not connected", *path, key,
                    remedy=f'add {port} = "some.channel" ({declared.record.name} records)',
                )  # fmt: skip
    # Here, not with the topology: a client may read it on a machine that runs none of its nodes.
    if with_config and section.cpus and (problem := cpus_problem(section.cpus)):
        raise source.error(problem, *path, "cpus")
    keys = config_keys(node_class)
    check_known(source, section.settings, [*keys, *NODE_KEYS], *path)
    config: dict[str, Any] = {}
    for key, (kind, default) in keys.items() if with_config else ():
        if key not in section.settings:
            if default is REQUIRED:
                raise source.error("is missing", *path, key, remedy=f"{section.use!r} needs it")
            continue
        config[key] = convert(source, section.settings[key], kind, *path, key)
    return NodePlan(section, node_class, config)


def find_class(topology: Topology, section: NodeSection) -> type[Node]:
    """By entry point, or ``package.module:Class``."""
    source, path = topology.source, ("nodes", section.name, "use")
    module_name, colon, class_name = section.use.partition(":")
    try:
        if colon:
            found = getattr(importlib.import_module(module_name), class_name)
        else:
            named = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
            if section.use not in named:
                close = get_close_matches(section.use, list(named), n=1)
                remedy = f"did you mean {close[0]!r}?" if close else ""
                known = ", ".join(sorted(named))
                raise source.error(
                    f"no node is called {section.use!r}", *path,
                    remedy=remedy or f"known: {known}; or write package.module:Class",
                )  # fmt: skip
            found = named[section.use].load()
    except (ImportError, AttributeError) as error:
        raise source.error(f"can't load {section.use!r}: {error}", *path, remedy="is it installed?") from None
    except ConfigError:
        raise
    except Exception as error:
        raise source.error(f"loading {section.use!r} failed: {error!r}", *path) from error
    if not (isinstance(found, type) and issubclass(found, Node)):
        raise source.error(f"{section.use!r} is not a fabric.Node class", *path)
    return found
