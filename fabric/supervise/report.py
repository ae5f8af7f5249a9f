"""What a run did, from its logs and shared pages: the dict behind ``--report`` and the tables at the end."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from fabric.config.plan import Plan
from fabric.errors import LogError
from fabric.log.holes import load_holes
from fabric.log.reader import LogReader
from fabric.log.sessions import sessions
from fabric.protocol.channellines import line_name
from fabric.rundir import RunDirectory
from fabric.runtime.gauges import BREAKER_STATES, LINE_STATES, STATES, hops_of
from fabric.runtime.page import INPUT_BUFFERS, LINE_COUNTERS, PATHS, RUNG_COUNTERS, NodePage
from fabric.supervise.children import Child
from fabric.transport.publisher import DROPPED_ON_PURPOSE, FAULT_COUNTERS, HEARTBEATS, PACKETS, REFUSED_CLIENTS
from fabric.transport.syncserver import STANDBY_JOINS, STANDBY_LOST
from native.histogram import Histogram

_ACCOUNTS = (
    "received", "gaps", "missed", "recovered", "skipped", "lost", "duplicates", "replayed", "snapshot_records", "refused",
    "overflow",
)  # fmt: skip


def open_pages(plan: Plan, run: RunDirectory) -> dict[str, NodePage]:
    """The shared pages that exist by now."""
    pages = {}
    for name in plan.nodes:
        with contextlib.suppress(OSError, ValueError):
            pages[name] = NodePage.open(run.node(name) / "page")
    return pages


def build_report(
    plan: Plan, run: RunDirectory, children: dict[str, Child], *, ended: str, seconds: float, fault: str = ""
) -> dict[str, Any]:
    """The report (shape: docs/report.md)."""
    pages = open_pages(plan, run)
    report: dict[str, Any] = {
        "fabric": plan.topology.fabric,
        "ended": ended,
        "seconds": round(seconds, 3),
        "run": str(run.path),
        "fault": fault,
        "sources": {},
        "channels": _channels(plan, run, pages, fault=bool(fault)),
        "hops": _hops(plan, pages),
        "calls": {
            name: summary for name, page in pages.items() if (summary := summarise(page.histograms["call"]))["count"]
        },
        "nodes": {},
    }
    report["log_server"] = run.gauges("log-server")
    if plan.topology.archive is not None:
        report["archive"] = _archive(plan, run)
    sources = set(plan.sources())
    for name in plan.nodes:
        child, page = children.get(name), pages.get(name)
        section: dict[str, Any] = {
            "restarts": child.restarts if child else 0,
            "hangs": child.hangs if child else 0,
            "takeovers": page.get("takeovers") if page else 0,
            "takeover_ns": page.get("takeover_ns") if page else 0,
            "errors": page.get("errors") if page else 0,
            "cpu_seconds": round(child.cpu_seconds, 3) if child else 0.0,
            "peak_rss_bytes": child.peak_rss_bytes if child else 0,
            "cycles": page.get("cycles") if page else 0,
            "cycles_made_again": page.get("rerun_cycles") if page else 0,
            "staged_most": page.get("staged_most") if page else 0,
            "gc_pauses": page.get("gc_pauses") if page else 0,
            "gc_seconds": round(page.get("gc_ns") / 1e9, 6) if page else 0.0,
            "gc_longest_ns": page.get("gc_longest_ns") if page else 0,
        }
        own: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            own = json.loads((run.node(name) / "report.json").read_bytes())
        report.update(own.pop("top", {}))
        section.update(own)
        report["nodes"][name] = section
        if name in sources:
            report["sources"][name] = own
    return report


def _channels(plan: Plan, run: RunDirectory, pages: dict[str, NodePage], *, fault: bool) -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for name in plan.topology.channels:
        entry: dict[str, Any] = {"published": 0, "session": 0, "last_sequence": 0, "subscribers": {}}
        with contextlib.suppress(LogError):
            log = LogReader(run.channel_log(name))
            control = log.control
            entry.update(
                published=log.next - log.base,
                session=log.session,
                last_sequence=log.next - 1,
                first_available=log.first_available,
                packets=control.counter(PACKETS),
                heartbeats=control.counter(HEARTBEATS),
                dropped_on_purpose=control.counter(DROPPED_ON_PURPOSE),
                refused_clients=control.counter(REFUSED_CLIENTS),
            )
            if (writer := plan.topology.writer(name)) is not None and writer.sync:
                entry["standby"] = {"joins": control.counter(STANDBY_JOINS), "lost": control.counter(STANDBY_LOST)}
            if fault:
                entry["faults"] = {each.name.lower(): control.counter(at) for each, at in FAULT_COUNTERS.items()}
        for node, port in plan.readers(name):
            page = pages.get(node)
            if page is None:
                continue
            path = PATHS[page.get(f"in.{port}.path")] or plan.topology.data_endpoint_of(name).partition(":")[0]
            counts: dict[str, Any] = {"path": path}
            counts.update({field: page.get(f"in.{port}.{field}") for field in _ACCOUNTS})
            counts["state"] = STATES[page.get(f"in.{port}.state")]
            counts["buffers"] = {each: _buffer(page, f"in.{port}.{each}") for each in INPUT_BUFFERS}
            if len(lines := plan.topology.lines_of(name)) > 1:
                counts["lines"] = {line_name(n): _line(page, f"in.{port}.{line_name(n)}") for n in range(len(lines))}
            if len(rungs := plan.topology.rungs_of(name)) > 1:
                counts["rungs"] = {rung.name: _rung(page, f"in.{port}.{rung.name}") for rung in rungs}
            # By node; a node that reads the channel at several inputs has one entry for each.
            several = sum(other == node for other, _ in plan.readers(name)) > 1
            entry["subscribers"][f"{node}.{port}" if several else node] = counts
        channels[name] = entry
    return channels


def _buffer(page: NodePage, name: str) -> dict[str, int]:
    return {"now": page.get(name), "most": page.get(f"{name}_most")}


def _line(page: NodePage, prefix: str) -> dict[str, Any]:
    counts: dict[str, Any] = {name: page.get(f"{prefix}.{name}") for name in LINE_COUNTERS}
    counts["state"] = LINE_STATES[counts["state"]]
    return counts


def _rung(page: NodePage, prefix: str) -> dict[str, Any]:
    counts: dict[str, Any] = {name: page.get(f"{prefix}.{name}") for name in RUNG_COUNTERS}
    counts["state"] = BREAKER_STATES[counts["state"]]
    return counts


def _archive(plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """What the archive has of each channel's newest session there."""
    section = plan.topology.archive
    found: dict[str, Any] = {}
    buffers = run.gauges("archive")
    for name in section.channels if section is not None else ():
        assert section is not None
        with contextlib.suppress(LogError):
            log = LogReader(section.directory / name)
            holes = load_holes(log.directory)
            ranges = [each for each in holes.ranges if each[1] >= log.first_available] if holes is not None else []
            found[name] = {
                "session": log.session,
                "first_available": log.first_available,
                "last_sequence": log.next - 1,
                "holes": len(ranges),
                "missing": sum(last - max(first, log.first_available) + 1 for first, last in ranges),
                "sessions": len(sessions(section.directory / name)),
                "buffers": buffers.get(name, {}),
            }
    return found


def _hops(plan: Plan, pages: dict[str, NodePage]) -> dict[str, Any]:
    hops: dict[str, Any] = {}
    for name in plan.upstream_first():
        for pairs in hops_of(plan, name).values():
            for hop, _ in pairs:
                if name in pages and hop in pages[name].histograms:
                    hops[hop] = summarise(pages[name].histograms[hop])
    return hops


def summarise(histogram: Histogram) -> dict[str, Any]:
    """Count, mean and percentiles in nanoseconds."""
    return {
        "count": histogram.count,
        "mean_ns": round(histogram.mean_ns),
        "p50_ns": histogram.percentile_ns(50),
        "p90_ns": histogram.percentile_ns(90),
        "p99_ns": histogram.percentile_ns(99),
        "p999_ns": histogram.percentile_ns(99.9),
        "max_ns": histogram.max_ns,
    }
