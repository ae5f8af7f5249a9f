"""Lines over a common axis, with whiskers where a value has a low and a high one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fabric.report.figure import CHARACTER, figure, line, words
from fabric.report.markup import Markup, number, path_of, tag
from fabric.report.scales import Linear, linear_ticks
from fabric.report.sections import Lines, Series
from fabric.report.tables import show

WIDTH, HEIGHT = 290.0, 185.0
_RIGHT, _TOP, _BOTTOM = 8.0, 8.0, 34.0
_COLOURS = 6


def lines(item: Lines) -> Markup:
    """The chart. Points outside of a range that was given stand at its edge."""
    points = [_points(series) for series in item.series]
    low, high = item.y_range or _range([y for each in points for _, *ys in each for y in ys], margin=0.06)
    left, right = item.x_range or _range([x for each in points for x, *_ in each])
    names = [series.name for series in item.series] if len(item.series) > 1 else []
    y_ticks = [(tick, show(tick, item.y_format)) for tick in linear_ticks(low, high, 4)]
    margin = 13 + CHARACTER * max((len(text) for _, text in y_ticks), default=1)
    top = _TOP + (14 if item.y_label or names else 0)
    across = Linear(left, right, margin, WIDTH - _RIGHT)
    up = Linear(low, high, HEIGHT - _BOTTOM, top)
    inside: list[Markup] = []
    for tick, text in y_ticks:
        inside += [
            line(margin, up(tick), WIDTH - _RIGHT, up(tick), "grid"),
            words(margin - 5, up(tick) + 3.5, text, anchor="end"),
        ]
    for tick in linear_ticks(left, right, 5):
        inside.append(line(across(tick), up(low), across(tick), up(low) + 4, "axis"))
        inside.append(words(across(tick), up(low) + 15, show(tick, item.x_format), anchor="middle"))
    inside.append(line(margin, up(low), WIDTH - _RIGHT, up(low), "axis"))
    inside.append(words((margin + WIDTH - _RIGHT) / 2, HEIGHT - 4, item.x_label, anchor="middle", kind="soft"))
    inside.append(words(0, 10, item.y_label, kind="soft"))
    inside += _legend(names)
    for place, each in enumerate(points):
        inside += _series(each, across, up, low, high, f"s{place % _COLOURS}")
    return figure(item.title, item.description or _description(item, points), WIDTH, HEIGHT, inside)


def _points(series: Series) -> list[tuple[float, float, float, float]]:
    """(x, y, low, high) of what is known; without whiskers low and high are y."""
    whole = zip(
        series.x,
        series.y,
        series.low if len(series.low) else series.y,
        series.high if len(series.high) else series.y,
        strict=True,
    )
    known = [(float(x), float(y), float(low), float(high)) for x, y, low, high in whole]
    return [
        (x, y, low if math.isfinite(low) else y, high if math.isfinite(high) else y)
        for x, y, low, high in known
        if math.isfinite(x) and math.isfinite(y)
    ]


def _series(
    points: Sequence[tuple[float, float, float, float]], across: Linear, up: Linear, low: float, high: float, kind: str
) -> Iterable[Markup]:
    def height(value: float) -> float:
        return up(min(max(value, low), high))

    whiskers = "".join(
        f"M{number(across(x))} {number(height(bottom))}V{number(height(top))}"
        for x, _, bottom, top in points
        if top > bottom
    )
    if whiskers:
        yield tag("path", d=whiskers, class_=f"whisker {kind}")
    if len(points) > 1:
        yield tag("path", d=path_of((across(x), height(y)) for x, y, *_ in points), class_=f"line {kind}")
    dots = "".join(f"M{number(across(x))} {number(height(y))}h0" for x, y, *_ in points)
    if dots:
        yield tag("path", d=dots, class_=f"dot {kind}")


def _legend(names: Sequence[str]) -> Iterable[Markup]:
    x = WIDTH - _RIGHT - sum(len(name) * CHARACTER + 20 for name in names)
    for place, name in enumerate(names):
        yield line(x, 6, x + 10, 6, f"line s{place % _COLOURS}")
        yield words(x + 13, 10, name)
        x += len(name) * CHARACTER + 20


def _range(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    extra = (high - low) * margin or (abs(high) * 0.05 or 1.0) * (low == high)
    return low - extra, high + extra


def _description(item: Lines, points: Sequence[Sequence[tuple[float, float, float, float]]]) -> str:
    parts = []
    for series, known in zip(item.series, points, strict=True):
        if known:
            values = [y for _, y, *_ in known]
            lowest, highest = show(min(values), item.y_format), show(max(values), item.y_format)
            parts.append(f"{series.name}: {len(known)} points from {lowest} to {highest}")
    axes = " against ".join(part for part in (item.y_label, item.x_label) if part)
    return "; ".join([*([axes] if axes else []), *parts]) + "."
