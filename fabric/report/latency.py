"""Latency histograms under one another on one logarithmic axis, with percentiles marked, and the table of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fabric.report.buckets import Buckets, read_buckets, rebin
from fabric.report.figure import CHARACTER, boxes, figure, line, words
from fabric.report.markup import Markup, join, tag
from fabric.report.scales import Log, decades, show_count, show_tick, show_time
from fabric.report.sections import Table
from fabric.report.tables import table

PERCENTILES = (("p50_ns", "p50"), ("p90_ns", "p90"), ("p99_ns", "p99"), ("p999_ns", "p99.9"), ("max_ns", "max"))
_WIDTH, _LEFT, _RIGHT = 470.0, 2.0, 6.0
_NAME, _BARS, _MARKS = 18.0, 46.0, 20.0
_ROW = _NAME + _BARS + _MARKS
_AXIS = 20.0
_APART = 5.0
_IGNORED = 0.0005
"""The axis begins where this share of the records is reached: a few odd early ones would make it all left margin."""


def latency(report: Mapping[str, Any], words_of: Mapping[str, Any]) -> Markup:
    """Charts of hops and of calls on the same axis, and a table of both. Nothing measured: says so."""
    hops = {name: entry for name, entry in report.get("hops", {}).items() if entry["count"]}
    calls = {name: entry for name, entry in report.get("calls", {}).items() if entry["count"]}
    known = {name: read_buckets(words_of[name]) for name in hops if name in words_of}
    known |= {f"call {name}": read_buckets(words_of[f"call {name}"]) for name in calls if f"call {name}" in words_of}
    known = {name: buckets for name, buckets in known.items() if buckets.total}
    if not hops and not calls:
        return tag("p", "Nothing was measured.", class_="note")
    charts = []
    if known:
        axis = decades(min(_start(each) for each in known.values()), max(each.max_ns for each in known.values()))
        for title, entries, prefix in (
            ("Latency of records, by hop", hops, ""),
            ("Duration of calls, by node", calls, "call "),
        ):
            rows = {name: (entry, known[prefix + name]) for name, entry in entries.items() if prefix + name in known}
            if rows:
                charts.append(_chart(title, rows, axis, "calls" if prefix else "records"))
    return join([tag("div", *charts, class_="pair"), table(_table(hops, calls))])


def _start(buckets: Buckets) -> float:
    reached = buckets.counts.cumsum() >= _IGNORED * buckets.total
    return max(1.0, float(buckets.low_ns[int(reached.argmax())]))


def _chart(title: str, rows: Mapping[str, tuple[Mapping[str, Any], Buckets]], axis: list[float], what: str) -> Markup:
    height = _ROW * len(rows) + _AXIS
    across = Log(axis[0], axis[-1], _LEFT, _WIDTH - _RIGHT)
    inside: list[Markup] = []
    for tick in axis:
        inside.append(line(across(tick), 4, across(tick), height - _AXIS + 4, "grid"))
        inside.append(
            words(
                across(tick),
                height - 5,
                show_tick(tick),
                anchor="end" if tick == axis[-1] else "middle" if tick > axis[0] else "start",
            )
        )
    for minor in (low * factor for low in axis[:-1] for factor in range(2, 10)):
        x = across(minor)
        inside.append(line(x, height - _AXIS, x, height - _AXIS + 3, "axis"))
    said = []
    for place, (name, (entry, buckets)) in enumerate(rows.items()):
        inside += _row(name, what, entry, buckets, axis, across, place * _ROW)
        said.append(
            f"{name}: {show_count(entry['count'])} measured, median {show_time(entry['p50_ns'])}, "
            f"99 % within {show_time(entry['p99_ns'])}, largest {show_time(entry['max_ns'])}"
        )
    return figure(title, "; ".join(said) + ".", _WIDTH, height, inside)


def _row(
    name: str, what: str, entry: Mapping[str, Any], buckets: Buckets, axis: list[float], across: Log, top: float
) -> list[Markup]:
    floor = top + _NAME + _BARS
    edges, counts = rebin(buckets, axis[0], axis[-1])
    tallest = int(counts.max())
    bars = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:  # a pixel at least: the tail is what is looked for
            tall = max(1.0, _BARS * int(count) / tallest)
            bars.append((across(low), floor - tall, across(high) - across(low) - 0.6, tall))
    inside = [
        words(_LEFT, top + 13, name, kind="name", most=_WIDTH / 2),
        words(_WIDTH - _RIGHT, top + 13, f"{show_count(entry['count'])} {what}", anchor="end", kind="soft"),
        *boxes(bars, "bar"),
        line(_LEFT, floor, _WIDTH - _RIGHT, floor, "axis"),
    ]
    wide = [len(label) * CHARACTER for _, label in PERCENTILES]
    marks = [across(entry[key]) for key, _ in PERCENTILES]
    for (key, label), x, at, width in zip(PERCENTILES, marks, _spread(marks, wide), wide, strict=True):
        inside.append(line(x, floor - _BARS, x, floor + 4, "mark strong" if key == "p50_ns" else "mark"))
        inside.append(line(x, floor + 4, at + width / 2, floor + 7, "mark"))
        inside.append(words(at, floor + 16, label, kind="small"))
    return inside


def _spread(marks: list[float], wide: list[float]) -> list[float]:
    """Where labels of these widths begin: under their marks, in order, moved aside as far as they would overlap."""
    places: list[float] = []
    free = 0.0
    for x, width in zip(marks, wide, strict=True):
        places.append(max(free, x - width / 2))
        free = places[-1] + width + _APART
    free = _WIDTH
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], free - wide[i])
        free = places[i] - _APART
    return places


def _table(hops: Mapping[str, Any], calls: Mapping[str, Any]) -> Table:
    rows = []
    for kind, entries in (("", hops), ("call of ", calls)):
        for name, entry in entries.items():
            times = [show_time(entry[key]) for key in ("mean_ns", *(key for key, _ in PERCENTILES))]
            rows.append([kind + name, entry["count"], *times])
    header = ["hop, call", "measured", "mean", *(label for _, label in PERCENTILES)]
    return Table("", header, rows, ["", ",d", *[">"] * 6])
