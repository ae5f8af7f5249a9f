"""The frame of every chart: a caption that people see, and the same with a description for those who can't see it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fabric.report.markup import Markup, join, number, tag

CHARACTER = 6.1
"""About the width of a character of a chart's text at its usual size, in the chart's units."""


def figure(
    title: str, description: str, width: float, height: float, children: Iterable[str], *, wide: bool = False
) -> Markup:
    """``wide``: on a narrow screen it keeps its size and can be scrolled, instead of shrinking below legibility."""
    drawing = tag(
        "svg",
        tag("desc", description),
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=f"{title}. {description}",
    )
    caption = tag("figcaption", title)
    if wide:
        drawing = tag("div", drawing, class_="scroll", tabindex="0")
    return tag("figure", caption, drawing, class_="wide" if wide else None)


def words(
    x: float, y: float, content: str, *, anchor: str = "start", kind: str | None = None, most: float = math.inf
) -> Markup:
    """Text at a place; what would be longer than ``most`` is cut, and told whole when pointed at."""
    room = max(1, int(min(most / CHARACTER, 10_000)))
    if len(content) > room:
        shown = join([content[: room - 1] + "…", tag("title", content)])
    else:
        shown = join([content])
    return tag("text", shown, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("path", d=f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", class_=kind)


def box(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    """A filled rectangle; ``title`` shows when it is pointed at."""
    inside = [tag("title", title)] if title else []
    return tag("rect", *inside, x=x, y=y, width=width, height=height, class_=kind)


def boxes(rectangles: Iterable[tuple[float, float, float, float]], kind: str) -> list[Markup]:
    """Many rectangles (x, y, width, height) as one path: a tenth of the bytes. Nothing for none."""
    parts = [
        f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}z"
        for x, y, width, height in rectangles
    ]
    return [tag("path", d="".join(parts), class_=kind)] if parts else []
