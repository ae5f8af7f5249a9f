"""What a section of the page is made of: charts and tables as data. Knows nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fabric.report.view import RunView

ENTRY_POINTS = "fabric.report_sections"
Cell = str | int | float | None
"""None is left empty; a number is formatted as its column says."""


@dataclass(slots=True)
class Table:
    """A table. ``formats``: for each column a format spec for its numbers, such as ",.2f"; "" or none: as they are; ">": text
    that stands to the right, as numbers do."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    formats: Sequence[str] = ()
    note: str = ""


@dataclass(slots=True)
class Heatmap:
    """Numbers in a grid, coloured by their sign and size: 0 is the middle of the palette, the largest absolute value its
    end. ``values`` has one row for each of ``rows``; NaN is no value. ``format`` is a format spec."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    format: str = ",.0f"
    row_label: str = ""
    column_label: str = ""
    note: str = ""


@dataclass(slots=True)
class Series:
    """Points of one line, in the order of ``x``; where ``low`` and ``high`` are given, whiskers. NaN: no point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(slots=True)
class Lines:
    """Lines over a common x axis. Formats are format specs of the ticks; ranges (lowest, highest) are of the data unless
    given, and give charts side by side the same axes."""

    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""
    x_format: str = "g"
    y_format: str = "g"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    description: str = ""
    """What it shows, in words, for those who can't see it."""


Item = Table | Heatmap | Lines


@dataclass(slots=True)
class Section:
    """One heading of the page, and what stands under it. Charts of a kind that follow one another stand side by side."""

    title: str
    items: Sequence[Item] = field(default_factory=list)
    note: str = ""


SectionMaker = Callable[["RunView"], Sequence[Section]]


def registered() -> dict[str, Callable[[], SectionMaker]]:
    """By name, how to load each callable of the entry-point group; in alphabetical order."""
    return {entry.name: entry.load for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name)}


def make_sections(run: RunView, makers: dict[str, Callable[[], SectionMaker]] | None = None) -> list[Section]:
    """The sections that nodes add. One that fails becomes a section that says so: it takes nothing else with it."""
    sections: list[Section] = []
    for name, load in (registered() if makers is None else makers).items():
        try:
            sections += load()(run)
        except Exception as error:
            sections.append(Section(name, note=f"This section could not be made: {error!r}"))
    return sections
