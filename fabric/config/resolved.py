"""Every value of a config and where it came from: ``fabric check --resolved``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.config.convert import convert, mentions_secret
from fabric.config.keys import (
    ACTION_KEYS,
    ARCHIVE_KEYS,
    CHANNEL_KEYS,
    CURVE_KEYS,
    FAULT_KEYS,
    NODE_KEYS,
    SERVICE_KEYS,
    STANDBY_KEYS,
    TOP_KEYS,
    Key,
)
from fabric.config.plan import Plan
from fabric.config.source import Source, dotted, is_reference
from fabric.runtime.node import REQUIRED, config_keys
from fabric.secret import MASK, Secret
from fabric.units import Bytes, Duration


@dataclass(frozen=True, slots=True)
class Value:
    """One key. ``value`` is plain data, with secrets masked; ``origin`` says ``default``, or where it was written."""

    key: str
    value: Any
    origin: str


def resolved_values(plan: Plan) -> list[Value]:
    """In the order of configs/README.md: the fabric, its nodes, its channels, its keys."""
    topology = plan.topology
    source = topology.source
    found = _common(source, source.values, TOP_KEYS)
    for name, node in plan.nodes.items():
        path = ("nodes", name)
        table = source.values["nodes"][name]
        found += _common(source, table, NODE_KEYS, *path)
        for ports in ("inputs", "outputs"):
            found += [_read(source, channel, str, *path, ports, port) for port, channel in table.get(ports, {}).items()]
        for key, (kind, default) in config_keys(node.node_class).items():
            if key in table:
                found.append(_read(source, table[key], kind, *path, key))
            elif default is not REQUIRED:
                found.append(Value(dotted((*path, key)), plain(default), "default"))
    for name in topology.channels:
        table = source.values.get("channels", {}).get(name, {})
        found += _common(source, table, CHANNEL_KEYS, "channels", name)
    if topology.archive is not None:
        found += _common(source, source.values["archive"], ARCHIVE_KEYS, "archive")
    for name in topology.standbys:
        found += _common(source, source.values["standby"][name], STANDBY_KEYS, "standby", name)
    for name in topology.services:
        found += _common(source, source.values["services"][name], SERVICE_KEYS, "services", name)
    fault = source.values.get("fault")
    if fault is not None:
        found += _common(source, fault, FAULT_KEYS, "fault")
        for name, table in fault.get("actions", {}).items():
            found += _common(source, table, ACTION_KEYS, "fault", "actions", name)
    curves = [topology.curve, *(section.curve for section in topology.channels.values())]
    curves += [section.curve for section in topology.services.values()]
    where = dict.fromkeys(path for curve in curves if curve is not None for path in curve.where.values())
    for key_path in where:
        value: Any = source.values
        for part in key_path:
            value = value[part]
        found.append(_read(source, value, CURVE_KEYS[key_path[-1]].kind, *key_path))
    return found


def _common(source: Source, table: dict[str, Any], keys: Mapping[str, Key], *path: str) -> list[Value]:
    found = []
    for name, key in keys.items():
        if key.structural:
            continue
        if name in table:
            found.append(_read(source, table[name], key.kind, *path, name))
        else:
            default = key.default
            if name == "fabric":
                default = source.file.stem
            found.append(Value(dotted((*path, name)), plain(default), "default"))
    return found


def _read(source: Source, value: Any, kind: Any, *path: str) -> Value:
    converted = plain(convert(source, value, kind, *path))
    place = source.origin(*path).place
    if path in source.resolved:
        place = f"{source.resolved[path][1]} ({place})"
    elif mentions_secret(kind) and is_reference(value):
        written = f"env {value['env']}" if "env" in value else f"file {source.origin(*path).base / value['file']}"
        place = f"{written} ({place})"
    return Value(dotted(path), converted, place)


def plain(value: Any) -> Any:
    """As it would stand in JSON, or in TOML: units spelled out, secrets masked."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Duration | Bytes | Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
