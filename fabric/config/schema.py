"""The JSON Schema of a config file, for editors (taplo, Even Better TOML): ``fabric check --schema``.

It says what can be said of one file by itself: keys, types, defaults, meanings. Wiring is what ``fabric check`` is for.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec

from fabric.config.convert import mentions_secret
from fabric.config.curve import NO_CURVE
from fabric.config.keys import (
    ACTION_KEYS,
    ARCHIVE_KEYS,
    CHANNEL_KEYS,
    CURVE_KEYS,
    FAULT_KEYS,
    NAME,
    NODE_KEYS,
    SERVICE_KEYS,
    STANDBY_KEYS,
    TOP_KEYS,
    Key,
)
from fabric.config.plan import ENTRY_POINTS
from fabric.config.resolved import plain
from fabric.location import Location
from fabric.runtime.node import REQUIRED, Node, config_keys
from fabric.secret import Secret
from fabric.units import DURATION_UNITS, SIZE_UNITS, Bytes, Duration

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER = r"^\s*[0-9]+(_[0-9]+)*(\.[0-9]+)?\s*"


def make_schema(classes: Mapping[str, type[Node]]) -> Schema:
    """``classes``: what ``use`` may name, to its node class; other ``package.module:Class`` names are let through."""
    defs: Schema = {
        "reference": _reference(default=True),
        "secret": _reference(default=False),
        "duration": {"type": "string", "pattern": f"{_NUMBER}({'|'.join(DURATION_UNITS)})\\s*$", "examples": ["100ms"]},
        "size": {"type": "string", "pattern": f"{_NUMBER}({'|'.join(SIZE_UNITS)})?\\s*$", "examples": ["512MiB"]},
        "curve": _table(CURVE_KEYS),
        "channel": _table(CHANNEL_KEYS, curve=_curve("#/$defs/curve")),
        "action": _table(ACTION_KEYS),
        "service": _table(SERVICE_KEYS, curve=_curve("#/$defs/curve")),
        "standby": _table(STANDBY_KEYS),
    }
    for use, node_class in classes.items():
        defs[f"node-{use}"] = _node(use, node_class)
    defs["node"] = _any_node(classes, whole=True)
    defs["partial-node"] = _any_node(classes, whole=False)  # the rest is in a file that is extended
    top = _table(
        TOP_KEYS,
        extends=_described(
            TOP_KEYS["extends"], {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        ),
        curve=_curve("#/$defs/curve"),
        nodes=_described(TOP_KEYS["nodes"], {"type": "object", "propertyNames": {"pattern": f"^{NAME}$"}}),
        channels=_described(
            TOP_KEYS["channels"], {"type": "object", "additionalProperties": {"$ref": "#/$defs/channel"}}
        ),
        archive=_described(TOP_KEYS["archive"], _table(ARCHIVE_KEYS)),
        standby=_described(
            TOP_KEYS["standby"], {"type": "object", "additionalProperties": {"$ref": "#/$defs/standby"}}
        ),
        services=_described(
            TOP_KEYS["services"], {"type": "object", "additionalProperties": {"$ref": "#/$defs/service"}}
        ),
    )
    top["properties"]["fault"] = _described(
        TOP_KEYS["fault"],
        _table(
            FAULT_KEYS,
            actions=_described(
                FAULT_KEYS["actions"], {"type": "object", "additionalProperties": {"$ref": "#/$defs/action"}}
            ),
        ),
    )
    top.pop("required", None)
    whole, part = (
        {"properties": {"nodes": {"additionalProperties": {"$ref": f"#/$defs/{name}"}}}}
        for name in ("node", "partial-node")
    )
    return {
        "$schema": DRAFT,
        "title": "A fabric's config",
        **top,
        "if": {"required": ["extends"]},
        "then": part,
        "else": whole,  # without nodes it may be there for others to extend
        "$defs": defs,
    }


def installed_nodes() -> dict[str, type[Node]]:
    """What the entry points name. One that can't be loaded is left out: it is an error only where a config uses it."""
    found: dict[str, type[Node]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
        except Exception:  # any package may be installed here
            continue
        if isinstance(loaded, type) and issubclass(loaded, Node):
            found[entry.name] = loaded
    return dict(sorted(found.items()))


def _reference(*, default: bool) -> Schema:
    env: Schema = {"env": {"type": "string", "description": "The name of an environment variable."}}
    if default:
        env["default"] = {"description": "What holds if it is not set."}
    file: Schema = {"file": {"type": "string", "description": "The path of a file, relative to this one."}}
    return {
        "description": "A value from the environment or a file." if default else "A secret: only by reference.",
        "oneOf": [
            {"type": "object", "properties": each, "required": [next(iter(each))], "additionalProperties": False}
            for each in (env, file)
        ],
    }


def _table(keys: Mapping[str, Key], **given: Schema) -> Schema:
    properties = {name: given[name] if name in given else _of_key(key) for name, key in keys.items()}
    required = [name for name, key in keys.items() if key.default is REQUIRED]
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": required}


def _of_key(key: Key) -> Schema:
    return _described(key, _of_type(key.kind, key.schema))


def _described(key: Key, schema: Schema) -> Schema:
    described = {**schema, "description": key.meaning}
    if key.default is not None and key.default is not REQUIRED:
        described["default"] = key.default
    return described


def _curve(target: str) -> Schema:
    return {"description": TOP_KEYS["curve"].meaning, "anyOf": [{"$ref": target}, {"const": NO_CURVE}]}


def _of_type(kind: Any, more: Mapping[str, Any] | None = None) -> Schema:
    """What a value of the type looks like in TOML; everywhere in it may be a reference."""
    if kind is Secret:
        return {"$ref": "#/$defs/secret"}
    try:
        schema = msgspec.json.schema(kind, schema_hook=_custom)
    except TypeError:  # a type that only the node knows
        return {}
    parts = schema.pop("$defs", {})
    inlined = _inline(schema, parts)
    if more and "anyOf" in more:
        inlined = dict(more)
    elif more:
        inlined = {**inlined, **more}
    return inlined if "$ref" in inlined and mentions_secret(kind) else _or_reference(inlined)


def _custom(kind: type) -> Schema:
    if kind is Secret:
        return {"x-fabric": "secret"}
    if kind is Duration:
        return {"x-fabric": "duration"}
    if kind is Bytes:
        return {"x-fabric": "size"}
    if issubclass(kind, Path | Location):
        return {"type": "string"}
    raise TypeError(kind)


def _inline(schema: Any, parts: Schema) -> Any:
    """msgspec's ``$defs`` put in their places, and our own referred to."""
    if isinstance(schema, list):
        return [_inline(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "x-fabric" in schema:
        return {"$ref": f"#/$defs/{schema['x-fabric']}"}
    if "$ref" in schema and (name := schema["$ref"].rpartition("/")[2]) in parts:
        return _inline(parts[name], {key: part for key, part in parts.items() if key != name})
    return {name: _inline(each, parts) for name, each in schema.items()}


def _or_reference(schema: Schema) -> Schema:
    inner = dict(schema)
    for name in ("items", "additionalProperties"):
        if isinstance(inner.get(name), dict) and inner[name] and inner[name] != {"$ref": "#/$defs/secret"}:
            inner[name] = _or_reference(inner[name])
    if "anyOf" in inner:
        # null is how msgspec writes an optional key; TOML has none
        options = [_with_inner(each) for each in inner.pop("anyOf") if each != {"type": "null"}]
        return {**inner, "anyOf": [*options, {"$ref": "#/$defs/reference"}]}
    return {"anyOf": [inner, {"$ref": "#/$defs/reference"}]}


def _with_inner(schema: Schema) -> Schema:
    return {**schema, "items": _or_reference(schema["items"])} if isinstance(schema.get("items"), dict) else schema


# Nodes


def _node(use: str, node_class: type[Node]) -> Schema:
    """The table of one class, whatever of it is there."""
    schema = _table(
        NODE_KEYS,
        use={"const": use, "description": _first_line(node_class.__doc__)},
        inputs=_ports(node_class.inputs, NODE_KEYS["inputs"]),
        outputs=_ports(node_class.outputs, NODE_KEYS["outputs"]),
    )
    meanings = attribute_docs(node_class)
    for name, (kind, default) in config_keys(node_class).items():
        described = _of_type(kind)
        if name in meanings:
            described["description"] = meanings[name]
        if default is not REQUIRED and default is not None:
            described["default"] = plain(default)
        schema["properties"][name] = described
    schema["required"] = ["use"]
    return schema


def _ports(ports: Mapping[str, Any], key: Key) -> Schema:
    text = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/reference"}]}
    properties = {
        name: {
            **text,
            "description": f"A channel of {port.record.name!r} records{', optional' if port.optional else ''}.",
        }
        for name, port in ports.items()
    }
    return {"type": "object", "description": key.meaning, "properties": properties, "additionalProperties": False}


def _any_node(classes: Mapping[str, type[Node]], *, whole: bool) -> Schema:
    known = {"enum": list(classes)} if classes else False
    return {
        "type": "object",
        "properties": {
            "use": {
                "description": NODE_KEYS["use"].meaning,
                "anyOf": [known, {"type": "string", "pattern": ".:."}, {"$ref": "#/$defs/reference"}],
            }
        },
        "required": ["use"] if whole else [],
        "allOf": [
            {
                "if": {"properties": {"use": {"const": use}}, "required": ["use"]},
                "then": {"$ref": f"#/$defs/node-{use}", **(_needed(node_class) if whole else {})},
            }
            for use, node_class in classes.items()
        ],
    }


def _needed(node_class: type[Node]) -> Schema:
    """What can't be left out: keys without a default, ports that are not optional."""
    required = [name for name, (_, default) in config_keys(node_class).items() if default is REQUIRED]
    ports = {
        key: {"required": names}
        for key, declared in (("inputs", node_class.inputs), ("outputs", node_class.outputs))
        if (names := [name for name, port in declared.items() if not port.optional])
    }
    return {"required": [*required, *ports], "properties": ports}


def attribute_docs(node_class: type[Node]) -> dict[str, str]:
    """The strings below a class's attributes, which Python itself throws away."""
    found: dict[str, str] = {}
    for base in reversed(node_class.__mro__):
        if base is object:
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):  # no source, as in a console
            continue
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for attribute, text in itertools.pairwise(statements):
            if (
                isinstance(attribute, ast.AnnAssign)
                and isinstance(attribute.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[attribute.target.id] = re.sub(r"\s+", " ", text.value.value).strip()
    return found


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
