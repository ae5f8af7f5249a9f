"""HTML and SVG by construction: text is escaped where an element is made, so nothing that a channel, symbol or error is
called can become part of the page's structure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = {"meta", "br"}


class Markup(str):
    """Text that is markup already; plain ``str`` is not."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """An element. Children that are no Markup are escaped; attributes always are. None leaves an attribute out;
    ``class_`` stands for class, and ``_`` in other names for ``-``."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else number(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    head = " ".join(parts)
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """One after another; what is no Markup is escaped."""
    return Markup("".join(each if isinstance(each, Markup) else escape(each, quote=False) for each in children))


def number(value: float) -> str:
    """A length, as short as it can be at two decimals: "12", "12.5", "-0.25"."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def path_of(points: Iterable[tuple[float, float]]) -> str:
    """The ``d`` of a line through points."""
    parts = [f"{number(x)} {number(y)}" for x, y in points]
    return "M" + "L".join(parts) if parts else ""
