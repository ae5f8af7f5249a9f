"""The page: what happened in a run, as one HTML file that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from fabric.report.gaps import gaps
from fabric.report.latency import latency
from fabric.report.lines import lines
from fabric.report.markup import Markup, join, tag
from fabric.report.sections import Heatmap, Item, Lines, Section, Table, make_sections
from fabric.report.style import style
from fabric.report.tables import framed, heatmap, show, table
from fabric.report.view import RunView
from fabric.supervise.summary import verdict
from fabric.supervise.view import subscriber_totals
from fabric.units import format_bytes

_READER_COUNTS = ("received", "missed", "recovered", "skipped", "lost")


def render(view: RunView, sections: Sequence[Section] | None = None) -> str:
    """The whole page, always the same for the same run. ``sections``: what nodes add; by default, all registered."""
    report = view.report
    name = str(report["fabric"])
    body = [
        _head(view, name),
        _section("Channels", _channels(report)),
        _section("Gaps and recoveries", gaps(view.timelines(), view.lives(), view.started_ns, view.last_ns())),
        _section("Latency", latency(report, view.histograms())),
        _section("Nodes", table(_nodes(view))),
        *(_added(each) for each in (make_sections(view) if sections is None else sections)),
    ]
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"{name}: run of {_when(view.started_ns)}"),
            tag("style", Markup(style())),
        ),
        tag("body", tag("main", *body)),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _section(title: str, *content: Markup) -> Markup:
    return tag("section", tag("h2", title), *content)


# The head


def _head(view: RunView, name: str) -> Markup:
    report, totals = view.report, subscriber_totals(view.report)
    fine = not report.get("failure") and not totals["lost"]
    word = "Nothing lost." if fine else "Failed." if report.get("failure") else "Records were lost."
    facts = {
        "Run": view.path.resolve().name,
        "Fault injected": report.get("fault") or "none",
        "Verified": report.get("verification", {}).get("line", ""),
        "Host": _host(view.manifest),
        "Software": _software(view.manifest),
    }
    shown = [tag("div", tag("dt", key), tag("dd", str(value))) for key, value in facts.items() if value]
    return tag(
        "header",
        tag("h1", name, tag("span", f"{_when(view.started_ns)}, {report['seconds']:.1f} s")),
        tag("p", tag("b", word), verdict(report), class_="verdict" if fine else "verdict bad"),
        tag("dl", *shown, class_="facts"),
    )


def _when(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ns / 1e9)) if at_ns else "an unknown time"


def _host(manifest: dict[str, Any]) -> str:
    cores = f"{manifest['cores']} cores" if manifest.get("cores") else ""
    return ", ".join(
        part
        for part in (manifest.get("processor", ""), cores, manifest.get("machine", ""), manifest.get("system", ""))
        if part
    )


def _software(manifest: dict[str, Any]) -> str:
    names = {"version": "fabric", "python": "Python", "numpy": "numpy", "pyzmq": "pyzmq"}
    return ", ".join(f"{name} {manifest[key]}" for key, name in names.items() if manifest.get(key))


# Channels and nodes


def _channels(report: dict[str, Any]) -> Markup:
    """A row for each reader; a channel with several has its name once, over all of them."""
    header = ["channel", "published", "reader", "path", *_READER_COUNTS, "state"]
    numbers = {"published", *_READER_COUNTS}
    head = tag("tr", *(tag("th", name, scope="col", class_="n" if name in numbers else None) for name in header))
    rows = []
    for name, entry in report["channels"].items():
        readers = list(entry["subscribers"].items()) or [("", None)]
        span = str(len(readers)) if len(readers) > 1 else None
        for position, (reader, counts) in enumerate(readers):
            cells = [] if position else [
                tag("th", name, scope="rowgroup" if span else "row", rowspan=span),
                tag("td", show(entry["published"], ",d"), class_="n", rowspan=span),
            ]  # fmt: skip
            cells += [tag("td", reader), tag("td", counts["path"] if counts else "")]
            for key in _READER_COUNTS:
                kind = "" if counts is None else " z" if not counts[key] else " alert" if key == "lost" else ""
                cells.append(tag("td", show(counts[key], ",d") if counts else "", class_=f"n{kind}"))
            rows.append(tag("tr", *cells, tag("td", counts["state"] if counts else "")))
    note = (
        "missed: sent live and not received; recovered: of those, delivered after all; skipped: a snapshot stands in."
    )
    return framed("", [tag("thead", head), tag("tbody", *rows)], note)


def _nodes(view: RunView) -> Table:
    kinds = view.manifest.get("nodes", {})
    rows = [
        [name, kinds.get(name, ""), entry["cycles"], entry["cycles_made_again"], entry["restarts"],
         entry.get("takeovers", 0), entry["errors"], entry["cpu_seconds"], format_bytes(entry["peak_rss_bytes"])]
        for name, entry in view.report["nodes"].items()
    ]  # fmt: skip
    header = [
        "node",
        "what it is",
        "cycles",
        "made again",
        "restarts",
        "takeovers",
        "errors",
        "CPU seconds",
        "peak memory",
    ]
    return Table("", header, rows, ["", "", ",d", ",d", "d", "d", "d", ",.1f", ">"])


# What nodes add

_DRAWN: dict[type[Any], tuple[Callable[[Any], Markup], str]] = {
    Lines: (lines, "charts"),
    Heatmap: (heatmap, "tables"),
    Table: (table, "tables"),
}


def _added(section: Section) -> Markup:
    content = [tag("p", section.note, class_="note")] if section.note else []
    for kind, items in groupby(section.items, type):
        draw, arranged = _DRAWN.get(kind, (_unknown, "tables"))
        content.append(tag("div", *(_drawn(draw, item) for item in items), class_=arranged))
    return _section(section.title, join(content))


def _drawn(draw: Callable[[Any], Markup], item: Item) -> Markup:
    """One item; its data come from somebody's node, and a mistake in them costs this item only."""
    try:
        return draw(item)
    except Exception as error:
        title = item.title if isinstance(item, Table | Heatmap | Lines) else "An item"
        return tag("p", f"{title}: could not be drawn: {error!r}", class_="note")


def _unknown(item: Any) -> Markup:
    raise TypeError(f"{type(item).__name__} is no Table, Heatmap or Lines")
