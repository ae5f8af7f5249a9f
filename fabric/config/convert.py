"""From a TOML value to the type that a key declares: one way for the fabric's keys and those of nodes."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from fabric.config.references import look_up, no_literal, parse_text
from fabric.config.source import Keys, Source, is_reference
from fabric.location import Location
from fabric.secret import Secret
from fabric.units import Bytes, Duration

_EXAMPLES: dict[Any, str] = {Duration: "100ms", Bytes: "512MiB"}
_WANT_TEXT = (str, Path, Location, Secret, Duration, Bytes)
_NAMES: dict[Any, str] = {
    str: "a string", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table",
    Path: "a string", Location: "a string",
}  # fmt: skip


def convert(source: Source, value: Any, kind: Any, *path: str) -> Any:
    """References are looked up; relative paths start where the value was written. Raises ConfigError."""
    places: list[str] = []
    resolved = _resolve(source, value, kind, path, places)
    if places and not mentions_secret(kind):
        source.resolved[path] = (resolved, ", ".join(places))
    base = source.origin(*path).base
    plain = _strip(kind)
    if get_origin(plain) is Literal and resolved not in get_args(plain):
        raise source.error(f"is {resolved!r}, not one of {', '.join(map(repr, get_args(plain)))}", *path)
    if plain in _EXAMPLES and not isinstance(resolved, str):
        raise source.error(
            f"is {resolved!r}, not a string with a unit", *path, remedy=f"for example {_EXAMPLES[plain]!r}"
        )
    if plain in (Path, Location) and not isinstance(resolved, str):
        raise source.error(f"is {resolved!r}, not a string", *path)

    def custom(wanted: type, given: Any) -> Any:
        if wanted is Secret:
            if isinstance(given, Secret):
                return given
            raise ValueError("is a secret that is written out")
        if not isinstance(given, str):
            raise ValueError(f"is {given!r}, not a string")
        if wanted is Location:
            return Location(given).resolved(base)
        return (base / given).resolve() if wanted is Path else wanted(given)

    try:
        return msgspec.convert(resolved, kind, strict=True, dec_hook=custom)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at ")
        inner = place.strip("`").removeprefix("$").replace("[...]", "").strip(".")
        if text.startswith("Expected"):
            text = text.lower().replace("`", "")
        raise source.error(text, *path, *filter(None, inner.split("."))) from None


def mentions_secret(kind: Any) -> bool:
    """Is there a secret in the type, at any depth?"""
    return kind is Secret or any(mentions_secret(each) for each in get_args(kind))


def _resolve(source: Source, value: Any, kind: Any, path: Keys, places: list[str]) -> Any:
    """The value with all references replaced by what they lead to."""
    if is_reference(value):
        found = look_up(source, value, *path)
        places.append(found.place)
        if _holds(kind, Secret):
            if not found.is_text:
                raise no_literal(source, *path, "default")
            return Secret(found.value)
        if not found.is_text or _wants_text(kind):
            return found.value
        return parse_text(source, found, _named(kind), *path)
    if _holds(kind, Secret) and value is not None:
        raise no_literal(source, *path)
    plain = _strip(kind)
    arguments = get_args(plain)
    if isinstance(value, list):
        item = arguments[0] if get_origin(plain) in (list, tuple, set, frozenset) and arguments else _item_of(plain)
        return [_resolve(source, each, item, path, places) for each in value]
    if isinstance(value, dict):
        item = arguments[1] if get_origin(plain) is dict else Any
        return {name: _resolve(source, each, item, (*path, name), places) for name, each in value.items()}
    return value


def _item_of(kind: Any) -> Any:
    """Of a union that holds a list: the list's items."""
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            if get_origin(member) is list:
                return get_args(member)[0]
    return Any


def _strip(kind: Any) -> Any:
    """Without Annotated, and ``X`` for ``X | None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        members = [each for each in get_args(kind) if each is not NoneType]
        if len(members) == 1:
            return _strip(members[0])
    return kind


def _members(kind: Any) -> tuple[Any, ...]:
    plain = _strip(kind)
    return tuple(map(_strip, get_args(plain))) if get_origin(plain) in (Union, UnionType) else (plain,)


def _holds(kind: Any, wanted: Any) -> bool:
    return wanted in _members(kind)


def _wants_text(kind: Any) -> bool:
    """Is a text from the environment taken as it is?"""
    return any(
        member is Any
        or member in _WANT_TEXT
        or (get_origin(member) is Literal and all(isinstance(each, str) for each in get_args(member)))
        for member in _members(kind)
    )


def _named(kind: Any) -> str:
    return " or ".join(_NAMES.get(get_origin(member) or member, str(member)) for member in _members(kind))
