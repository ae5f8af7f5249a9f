"""Tables and heat maps: real tables, so that they can be read aloud, copied, printed and scrolled."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fabric.report.markup import Markup, join, tag
from fabric.report.sections import Cell, Heatmap, Table

LEVELS = 6
"""Steps of the palette on either side of 0 (fabric/report/style.py has the colours)."""
_ABSENT = "–"


def show(value: Cell, spec: str = "") -> str:
    """A cell's text: numbers by a format spec, with a true minus sign; nothing for None, a dash for NaN."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return _ABSENT if math.isnan(value) else "∞" if value > 0 else "−∞"
    return format(value, spec).replace("-", "−")


def table(item: Table) -> Markup:
    """Columns of numbers stand to the right; a 0 is fainter than what is to be noticed."""
    specs = [*item.formats, *[""] * len(item.header)]
    numeric = [specs[column] == ">" or _numeric(item.rows, column) for column in range(len(item.header))]
    head = [
        tag("th", name, scope="col", class_="n" if right else None)
        for name, right in zip(item.header, numeric, strict=True)
    ]
    body = []
    for row in item.rows:
        cells = []
        for column, value in enumerate(row):
            text = show(value, specs[column])
            kinds = [*(["n"] if numeric[column] else []), *(["z"] if value == 0 else [])]
            kind = " ".join(kinds) or None
            cells.append(tag("td", text, class_=kind) if column else tag("th", text, scope="row", class_=kind))
        body.append(tag("tr", *cells))
    return framed(item.title, [tag("thead", tag("tr", *head)), tag("tbody", *body)], item.note)


def heatmap(item: Heatmap) -> Markup:
    """The numbers themselves, on a colour for sign and size."""
    known = [abs(value) for row in item.values for value in row if math.isfinite(value)]
    largest = max(known, default=0.0)
    corner = " ".join(part for part in (_arrow(item.row_label, "↓"), _arrow(item.column_label, "→")) if part)
    head = tag(
        "tr",
        tag("th", corner, scope="col", class_="corner"),
        *(tag("th", name, scope="col", class_="n") for name in item.columns),
    )
    body = []
    for name, row in zip(item.rows, item.values, strict=True):
        cells = [tag("td", show(value, item.format), class_=f"n {level(value, largest)}") for value in row]
        body.append(tag("tr", tag("th", name, scope="row", class_="n"), *cells))
    return framed(item.title, [tag("thead", head), tag("tbody", *body)], item.note, kind="heat")


def _arrow(label: str, arrow: str) -> str:
    return f"{label} {arrow}" if label else ""


def level(value: float, largest: float) -> str:
    """The palette's step for a value: "p6" is the largest gain, "n6" the largest loss, "o" about nothing."""
    if not math.isfinite(value) or largest <= 0:
        return "o"
    steps = min(LEVELS, round(LEVELS * abs(value) / largest))
    return f"{'p' if value > 0 else 'n'}{steps}" if steps else "o"


def framed(title: str, parts: Sequence[Markup], note: str = "", kind: str | None = None) -> Markup:
    """A table with its caption, in a frame that can be scrolled where the screen is too narrow for it."""
    caption = [tag("caption", title)] if title else []
    inside = tag("div", tag("table", *caption, *parts, class_=kind), class_="scroll", tabindex="0")
    return tag("div", join([inside, tag("p", note, class_="note")]) if note else inside, class_="table")


def _numeric(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    values = [row[column] for row in rows if row[column] is not None]
    return bool(values) and all(not isinstance(value, str) for value in values)
