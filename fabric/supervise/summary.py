"""The short report at the end of a run: what flowed, what was dropped, recovered and lost, how long each hop took."""

from __future__ import annotations

import sys
from typing import Any

from fabric.supervise.view import subscriber_totals
from fabric.units import format_bytes, format_ns

_RISK_MEASURES = ("value", "delta", "gamma", "vega", "theta")


def print_summary(report: dict[str, Any]) -> None:
    """Tables (rich where it is installed, else aligned text), then the verdict in one line."""
    print()
    for title, header, rows in tables(report):
        if rows:
            _print_table(title, header, rows)
    print(verdict(report))


def tables(report: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of each section."""
    flows = []
    for name, entry in report["channels"].items():
        readers = list(entry["subscribers"].items()) or [("", None)]
        for position, (node, counts) in enumerate(readers):
            head = [name, f"{entry['published']:,}"] if position == 0 else ["", ""]
            names = ("received", "missed", "recovered", "skipped", "lost")
            numbers = [f"{counts[key]:,}" for key in names] if counts else [""] * len(names)
            flows.append([*head, node, counts["path"] if counts else "", *numbers, counts["state"] if counts else ""])
    hops = [
        [hop, f"{entry['count']:,}", *(format_ns(entry[key]) for key in ("p50_ns", "p90_ns", "p99_ns", "max_ns"))]
        for hop, entry in report["hops"].items()
        if entry["count"]
    ]
    nodes = [
        [name, f"{entry['cycles']:,}", str(entry["restarts"]), str(entry["errors"]), f"{entry['cpu_seconds']:.1f} s",
         format_bytes(entry["peak_rss_bytes"]), format_ns(entry.get("gc_longest_ns", 0)), _takeovers(entry)]
        for name, entry in report["nodes"].items()
    ]  # fmt: skip
    risks = [
        [underlying, *(f"{values.get(measure, float('nan')):,.2f}" for measure in _RISK_MEASURES)]
        for node in report["nodes"].values()
        for underlying, values in (node.get("by_underlying") or {}).items()
    ]
    venue = [
        [name, f"{entry['count']:,}", f"{entry['median_relative']:.1e}"]
        for name, entry in report.get("venue_check", {}).items()
        if entry["count"]
    ]
    flow_header = [
        "channel",
        "published",
        "reader",
        "path",
        "received",
        "missed",
        "recovered",
        "skipped",
        "lost",
        "state",
    ]
    return [
        ("Nodes", ["node", "cycles", "restarts", "errors", "cpu", "memory", "longest gc", "takeovers"], nodes),
        ("Risk by underlying", ["underlying", *_RISK_MEASURES], risks),
        ("Our greeks against the venue's", ["measure", "compared", "median relative difference"], venue),
        ("What flowed", flow_header, flows),
        ("Latency by hop", ["hop", "records", "p50", "p90", "p99", "max"], hops),
    ]


def _takeovers(entry: dict[str, Any]) -> str:
    count = entry.get("takeovers", 0)
    return f"{count}, the last in {format_ns(entry['takeover_ns'])}" if count else "0"


def verdict(report: dict[str, Any]) -> str:
    """One line: the accounts of the run."""
    totals = subscriber_totals(report)
    published = sum(entry["published"] for entry in report["channels"].values())
    dropped = sum(entry.get("dropped_on_purpose", 0) for entry in report["channels"].values())
    injected = f"{dropped:,} packets dropped on purpose, " if report["fault"] else ""
    line = (
        f"{report['fabric']} {report['ended']} after {report['seconds']:.1f} s: {published:,} records published, "
        f"{injected}{totals['missed']:,} missed, {totals['recovered']:,} recovered, {totals['skipped']:,} skipped, "
        f"{totals['lost']:,} lost"
    )
    return line + (f"; {report['failure']}" if report.get("failure") else "")


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        print(title)
        for row in (header, *rows):
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print()
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in header:
        left = name in ("channel", "reader", "path", "state", "hop", "node", "underlying", "measure")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print()
