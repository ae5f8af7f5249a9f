"""The page: a percentile plot for each latency case, a table for each other one. One file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabric.bench.output import result_text
from fabric.bench.plot import percentile_plot
from fabric.bench.results import Result
from fabric.report.markup import Markup, tag
from fabric.report.style import style

_PRE = "pre{overflow-x:auto;font:12px/1.45 ui-monospace,Menlo,Consolas,monospace;color:var(--ink)}"


def render(results: Sequence[Result], facts: dict[str, Any], absent: dict[str, str]) -> str:
    """The whole page."""
    shown = [tag("div", tag("dt", key), tag("dd", str(value))) for key, value in facts.items()]
    body = [
        tag("header", tag("h1", "fabric bench"), tag("dl", *shown, class_="facts")),
        *(_section(result) for result in results),
    ]
    if absent:
        body.append(tag("footer", *(tag("p", f"{name}: {why}", class_="note") for name, why in absent.items())))
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", "fabric bench"),
            tag("style", Markup(style() + _PRE)),
        ),
        tag("body", tag("main", *body)),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _section(result: Result) -> Markup:
    case = result.case
    parts = [tag("h2", f"{case.program}: {case.title}")]
    if case.is_latency and result.rows:
        curves = {f"{row.contestant.name} ({row.idle})": row.curve for row in result.rows}
        parts.append(percentile_plot("Latency from the intended time of sending, all rounds together", curves))
    parts.append(tag("pre", result_text(result).strip("\n")))
    return tag("section", *parts)
