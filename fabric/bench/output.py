"""The tables that people read, and the JSON that programs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fabric.bench.programs import topology
from fabric.bench.results import Comparison, Result, Row
from fabric.units import format_ns


def program_text(name: str) -> str:
    """The program's topology, under its name."""
    return f"\n{name}\n\n" + "\n".join(f"  {line}".rstrip() for line in topology(name).splitlines())


def result_text(result: Result) -> str:
    """One case: its rows, then ours beside the others."""
    lines = [f"\n{result.case.program}: {result.case.title}"]
    lines += aligned(_rows(result)) if result.rows else ["  nothing was measured"]
    if result.comparisons:
        table = [_COMPARED, *map(_compared, result.comparisons)]
        goals = any(each.goal is not None for each in result.comparisons)
        lines += ["", *aligned(table if goals else [row[:-1] for row in table])]
    notes = [note for row in result.rows if (note := _note(row))]
    flows = dict.fromkeys(row.contestant.flow for row in result.rows) if not result.case.is_latency else {}
    for flow in flows:
        who = ", ".join(row.contestant.name for row in result.rows if row.contestant.flow == flow)
        notes.append(f"flow control of {who}: {flow}")
    notes += [f"FAILED {why}" for why in result.failures.values()]
    return "\n".join([*lines, *(f"  {note}" for note in notes)])


_COMPARED = ["ours", "beside", "ratio", "95 % interval", "pairs", "goal"]


def _rows(result: Result) -> list[list[str]]:
    if result.case.is_latency:
        head = ["contestant", "idle", "p50", "p90", "p99", "p99.9", "from send p50", "rate/s", "CPU us/record"]
        return [head, *(_latency_row(row) for row in result.rows)]
    head = ["contestant", "idle", "records/s", "CPU us/record", "records", "rounds"]
    return [
        head,
        *(
            [
                row.contestant.name,
                row.idle,
                f"{row.rate:,.0f}",
                f"{row.cpu_us:.2f}",
                f"{row.records:,}",
                f"{row.rounds}",
            ]
            for row in result.rows
        ),
    ]


def _latency_row(row: Row) -> list[str]:
    shown = [format_ns(row.latency_ns[name]) for name in ("50", "90", "99", "99.9")]
    from_send = format_ns(row.from_send_ns["50"])
    return [row.contestant.name, row.idle, *shown, from_send, f"{row.rate:,.0f}", f"{row.cpu_us:.1f}"]


def _compared(each: Comparison) -> list[str]:
    goal = "" if each.goal is None else f"{each.goal:g} {'met' if each.met else 'MISSED'}"
    ratio = each.ratio
    return [each.ours, each.peer, f"{ratio.median:.2f}", f"{ratio.low:.2f} - {ratio.high:.2f}", f"{ratio.pairs}", goal]


def _note(row: Row) -> str:
    if row.filled:
        return f"{row.contestant.name}: disturbed in {row.filled} of {row.rounds} rounds"
    return f"{row.contestant.name}: {row.dropped} disturbed runs were repeated" if row.dropped else ""


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, and every other column of numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = [column for column in range(len(rows[0])) if all(_numeric(row[column]) for row in rows[1:])]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit() or not cell


def result_plain(result: Result) -> dict[str, Any]:
    """One case as plain data; no NaN, which JSON does not have."""
    case = result.case
    return {
        "program": case.program,
        "case": case.title,
        "topology": topology(case.program),
        "kind": case.kind,
        "pins": case.pins,
        "rate": case.rate or None,
        "size_bytes": case.size_bytes,
        "per_message": case.per_message,
        "channels": case.channels,
        "readers": case.readers,
        "contestants": [_row_plain(row) for row in result.rows],
        "ratios": [
            {"ours": each.ours, "peer": each.peer, **each.ratio.plain(), "goal": each.goal, "met": each.met}
            for each in result.comparisons
        ],
        "failures": result.failures,
    }


def _row_plain(row: Row) -> dict[str, Any]:
    return {
        "name": row.contestant.name,
        "transport": row.contestant.transport,
        "idle": row.idle,
        "flow": row.contestant.flow,
        "records": row.records,
        "rounds": row.rounds,
        "repeated": row.dropped,
        "disturbed": row.filled,
        "verified": True,  # a run that was not is a failure
        "rate": row.rate,
        "cpu_us": row.cpu_us,
        "latency_ns": _finite(row.latency_ns),
        "from_send_ns": _finite(row.from_send_ns),
        "curve": row.curve,
        "runs": row.runs,
    }


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
