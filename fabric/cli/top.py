"""``fabric top``: a running fabric, live: channels, rates, gaps, recoveries, latency by hop, nodes' CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fabric.cli.options import duration, json_option
from fabric.config.load import load_topology
from fabric.config.saved import SAVED
from fabric.errors import ConfigError
from fabric.rundir import RunDirectory, latest_run
from fabric.units import format_bytes, format_ns

if TYPE_CHECKING:
    from rich.console import Group

_AT_REST = ("NEW", "STOPPED", "FAILED")
_TEXT = ("channel", "reader", "path", "state", "hop", "node")


@click.command()
@click.argument("where", required=False, metavar="[CONFIG|RUN_DIR]")
@click.option("--every", "every_text", default="1s", show_default=True, help="Look this often.")
@click.option("--for", "for_text", metavar="DURATION", help="End after, e.g., 20s.")
@click.option("--once", is_flag=True, help="Look for one interval, print it, end.")
@click.option("--plain", is_flag=True, help="Plain text, also on a terminal.")
@json_option
def top(where: str | None, every_text: str, for_text: str | None, once: bool, plain: bool, as_json: bool) -> None:
    """Watch the newest run of CONFIG, or RUN_DIR, until Ctrl-C. It asks nothing of the running processes."""
    from fabric.supervise.observe import Observer

    every_s = duration(every_text, "--every") / 1e9
    if every_s < 0.05:
        raise ConfigError("is less than 50ms", key="--every")
    end_s = time.monotonic() + duration(for_text, "--for") / 1e9 if for_text else None
    observer = Observer(_run(where))
    observer.look()
    stop = threading.Event()
    live = sys.stdout.isatty() and not (plain or once or as_json) and importlib.util.find_spec("rich") is not None
    with _screen() if live else contextlib.nullcontext() as screen:
        while end_s is None or time.monotonic() < end_s:
            stop.wait(every_s if end_s is None else min(every_s, max(0.0, end_s - time.monotonic())))
            seen = observer.look()
            if as_json:
                click.echo(json.dumps(seen))
            elif screen is not None:
                screen.update(_drawn(seen), refresh=True)
            else:
                click.echo(_text(seen))
            if once:
                return


def _run(where: str | None) -> RunDirectory:
    if where is not None and (Path(where) / SAVED).exists():
        return RunDirectory(Path(where).resolve())
    return latest_run(load_topology(where).directory)


def tables(seen: dict[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """(header, rows) of channels, hops and nodes."""
    channels = []
    for name, entry in seen["channels"].items():
        readers = list(entry["subscribers"].items()) or [("", None)]
        for position, (reader, counts) in enumerate(readers):
            head = (
                [name, f"{entry['published']:,}", f"{entry['records_per_second']:,.0f}"] if not position else [""] * 3
            )
            tail = [""] * 8
            if counts is not None:
                state = counts["state"] + (" (ended)" if seen["ended"] else " STALE" if counts["stale"] else "")
                lost = [line for line, each in counts.get("lines", {}).items() if each["state"] == "LOST"]
                state += f" (line {', '.join(lost)} LOST)" if lost and not seen["ended"] else ""
                silent = [rung for rung, each in counts.get("rungs", {}).items() if each["state"] != "CLOSED"]
                state += f" ({', '.join(silent)} NO ANSWER)" if silent and not seen["ended"] else ""
                if counts.get("progress") and not seen["ended"]:
                    state += f" ({_progress(counts['progress'])})"
                behind = "?" if counts["behind"] is None else f"{counts['behind']:,}"
                names = ("gaps", "missed", "recovered", "skipped", "lost")
                tail = [counts["path"], state, behind, *(f"{counts[each]:,}" for each in names)]
            channels.append([*head, reader, *tail])
    hops = [
        [hop, f"{entry['recent']['count']:,}", *(format_ns(entry["recent"][each]) for each in ("p50_ns", "p99_ns", "p999_ns")),
         format_ns(entry["p99_ns"]), format_ns(entry["max_ns"])]
        for hop, entry in seen["hops"].items()
        if entry["count"]
    ]  # fmt: skip
    nodes = [
        [
            name,
            entry["state"] + ("" if entry["alive"] or entry["state"] in _AT_REST else " (gone)"),
            str(entry["pid"] or ""),
            f"{entry['cpu']:.0%}",
            format_bytes(entry["rss_bytes"]),
            f"{entry['cycles_per_second']:,.0f}",
            str(entry["errors"]),
            str(entry["standby_pid"] or ""),
            str(entry["takeovers"] or ""),
        ]
        for name, entry in seen["nodes"].items()
    ]
    return [
        (["channel", "records", "rec/s", "reader", "path", "state", "behind", "gaps", "missed", "recovered", "skipped",
          "lost"], channels),
        (["hop", "recent", "p50", "p99", "p99.9", "p99 of all", "max of all"], hops),
        (["node", "state", "pid", "cpu", "memory", "cycles/s", "errors", "standby", "takeovers"], nodes),
    ]  # fmt: skip


def _progress(progress: dict[str, Any]) -> str:
    """12%, 1,200,000/s, 7s left"""
    parts = [f"{progress['share']:.0%}", f"{progress['rate']:,.0f}/s"]
    if progress["left_s"] is not None:
        parts.append(f"{progress['left_s']:,.0f}s left")
    return ", ".join(parts)


def _title(seen: dict[str, Any]) -> str:
    return f"{seen['fabric']}  {seen['run']}{'  run ended' if seen['ended'] else ''}"


def _text(seen: dict[str, Any]) -> str:
    lines = [_title(seen)]
    for header, rows in tables(seen):
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in (header, *rows):
            cells = [
                cell.ljust(width) if name in _TEXT else cell.rjust(width)
                for name, cell, width in zip(header, row, widths, strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    return "\n".join(lines)


def _screen() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(), screen=True, auto_refresh=False)


def _drawn(seen: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(f"{_title(seen)}  (Ctrl-C ends)", style="bold")]
    for header, rows in tables(seen):
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in header:
            table.add_column(name, justify="left" if name in _TEXT else "right", no_wrap=True)
        for row in rows:
            bad = any(
                word in cell for cell in row for word in ("STALE", "RECOVERING", "LOST", "NO ANSWER", "gone", "FAILED")
            )
            table.add_row(*row, style="yellow" if bad else None)
        parts += [table, Text("")]
    return Group(*parts)
