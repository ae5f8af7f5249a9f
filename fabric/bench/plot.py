"""The percentile plot: latency against how rare it is, one line a contestant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fabric.report.figure import figure, line, words
from fabric.report.markup import Markup, path_of, tag
from fabric.report.scales import Linear, Log, decades, show_tick, show_time

Curve = Sequence[tuple[float, int]]
"""Percent and ns."""

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1130.0, 420.0, 60.0, 250.0, 14.0, 30.0
_LEGEND_LINE = 16.0
COLOURS = 6
"""Of the page's style; with the dashes of a line they tell 24 contestants apart."""
_DASHES = (None, "6 3", "2 3", "9 3 2 3")


def percentile_plot(title: str, curves: Mapping[str, Curve]) -> Markup:
    """A figure; ``curves`` by contestant. Each nine takes the same width."""
    shown = {name: curve for name, curve in curves.items() if curve}
    nines = max((_nines(curve[-1][0]) for curve in shown.values()), default=1.0)
    ticks = [percent for percent in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999) if _nines(percent) <= nines]
    values = [max(1, value) for curve in shown.values() for _, value in curve] or [1, 10]
    heights = decades(min(values), max(values))
    height = max(_HEIGHT, _TOP + _BOTTOM + _LEGEND_LINE * len(shown))
    x = Linear(0.0, nines, _LEFT, _WIDTH - _RIGHT)
    y = Log(heights[0], heights[-1], height - _BOTTOM, _TOP)
    parts: list[Markup] = []
    for value in heights:
        parts.append(line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "grid"))
        parts.append(words(_LEFT - 6, y(value) + 4, show_tick(value), anchor="end", kind="soft"))
    for percent in ticks:
        at = x(_nines(percent))
        parts.append(line(at, _TOP, at, height - _BOTTOM, "grid"))
        parts.append(words(at, height - _BOTTOM + 16, f"{percent:g} %", anchor="middle", kind="soft"))
    for number, (name, curve) in enumerate(shown.items()):
        kind, dash = f"line s{number % COLOURS}", _DASHES[number // COLOURS % len(_DASHES)]
        told = tag("title", f"{name}: p50 {show_time(_at(curve, 50.0))}, p99 {show_time(_at(curve, 99.0))}")
        points = path_of((x(_nines(percent)), y(value)) for percent, value in curve)
        parts.append(tag("path", told, d=points, class_=kind, stroke_dasharray=dash))
        middle = _TOP + 8 + number * _LEGEND_LINE
        left = _WIDTH - _RIGHT + 16
        parts.append(tag("path", d=path_of([(left, middle), (left + 26, middle)]), class_=kind, stroke_dasharray=dash))
        parts.append(words(left + 32, middle + 4, name, most=_RIGHT - 52))
    described = "Latency by percentile, on logarithmic scales: " + "; ".join(
        f"{name} p50 {show_time(_at(curve, 50.0))}, p99 {show_time(_at(curve, 99.0))}" for name, curve in shown.items()
    )
    return figure(title, described, _WIDTH, height, parts, wide=True)


def _nines(percent: float) -> float:
    """0 for 0 %, 1 for 90 %, 2 for 99 %."""
    return -math.log10(max(1e-12, 1.0 - percent / 100.0))


def _at(curve: Curve, percent: float) -> int:
    """The value of the first point at or above a percentile."""
    return next((value for at, value in curve if at >= percent - 1e-9), curve[-1][1])
