"""The page of real runs: every section, with the figures of the JSON report, and the timeline of losses and kills."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.cli.main import run_cli
from fabric.report import RunView
from fabric.report.scales import show_time
from fabric.supervise.summary import verdict

pytestmark = pytest.mark.system
SECTIONS = ["Channels", "Gaps and recoveries", "Latency", "Nodes", "Risk", "Implied volatility (demo.greeks)"]


class Page(HTMLParser):
    """Headings, captions, rows of cells, and descriptions of drawings."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.captions: list[str] = []
        self.rows: list[list[str]] = []
        self.described: list[str] = []
        self._inside = ""
        self.feed(content)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = name
        if name == "tr":
            self.rows.append([])
        elif name in ("td", "th"):
            self.rows[-1].append("")
        elif name == "svg":
            self.described.append(dict(attributes)["aria-label"] or "")

    def handle_endtag(self, name: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "h2":
            self.headings.append(data)
        elif self._inside in ("caption", "figcaption"):
            self.captions.append(data)
        elif self._inside in ("td", "th"):
            self.rows[-1][-1] += data


def totals(view: RunView) -> dict[tuple[str, str], dict[str, int]]:
    """What the timelines say of each input, over the whole run."""
    return {
        (node, channel): {name: int(bins[name].sum()) for name in ("gaps", "missed", "recovered", "skipped", "lost")}
        for node, timeline in view.timelines().items()
        for (_, channel), bins in zip(timeline.inputs, timeline.bins, strict=True)
    }


def check_totals(view: RunView) -> None:
    said = totals(view)
    assert said.keys() == {
        (reader, name) for name, channel in view.report["channels"].items() for reader in channel["subscribers"]
    }
    for (reader, channel), counts in said.items():
        reported = view.report["channels"][channel]["subscribers"][reader]
        assert counts == {name: reported[name] for name in counts}, (reader, channel)


def test_the_demos_page_has_what_its_report_says(up: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    faults = ("--fault", "drop=0.03,seed=7", "--set", "nodes.feed.records=12000")
    fabric = up("demo", "--until-done", *faults, "--report", str(file))
    report = fabric.report()
    content = file.read_text(encoding="utf-8")
    assert len(content) < 300_000
    assert "://" not in content
    page = Page(content)
    assert page.headings == SECTIONS
    assert verdict(report) in content
    assert "drop=0.03,seed=7" in content

    rows = [row for row in page.rows if row]
    for name, channel in report["channels"].items():
        readers = list(channel["subscribers"].items())
        start = rows.index(next(row for row in rows if row[0] == name))
        assert rows[start][1] == f"{channel['published']:,}"
        for position, (reader, counts) in enumerate(readers):
            row = rows[start + position][0 if position else 2 :]
            numbers = [f"{counts[key]:,}" for key in ("received", "missed", "recovered", "skipped", "lost")]
            assert row == [reader, counts["path"], *numbers, counts["state"]], (name, reader)
    for hop, entry in report["hops"].items():
        times = [show_time(entry[f"{key}_ns"]) for key in ("mean", "p50", "p90", "p99", "p999", "max")]
        assert [hop, f"{entry['count']:,}", *times] in rows
        assert any(f"{hop}: {entry['count']:,} measured" in each for each in page.described)
    for node, entry in report["nodes"].items():
        row = [row for row in rows if row[0] == node and len(row) == 9][-1]
        assert row[2:8] == [f"{entry['cycles']:,}", "0", "0", "0", "0", f"{entry['cpu_seconds']:.1f}"]

    quote = report["channels"]["demo.quote"]["subscribers"]["pricing"]
    assert quote["missed"] > 0, "nothing was dropped: this run shows nothing"
    (lanes,) = [each for each in page.described if each.startswith("Missed and recovered")]
    assert f"pricing reading demo.quote: {quote['missed']:,} missed, {quote['recovered']:,} recovered, 0 lost" in lanes
    view = RunView(fabric.run)
    check_totals(view)
    bins = view.timelines()["pricing"].bins["missed"]
    assert np.count_nonzero(bins) > 3, "spread over time"

    for underlying, values in report["nodes"]["risk"]["by_underlying"].items():
        assert f"{underlying}: P&L by spot and volatility" in page.captions
        (row,) = [row for row in rows if row[0] == underlying and len(row) == 13]
        shown = f"{values['value']:,.0f} {values['delta']:,.2f} {values['worst_pnl']:,.0f}".replace("-", "−").split()
        assert [row[1], row[2], row[7]] == shown
        assert any(row[7] in cells[1:] for cells in rows if len(cells) == 4), "the worst cell of the grid"
        assert sum(caption.startswith(f"{underlying}, ") for caption in page.captions) == 4, "a smile an expiry"
    breaches = report["nodes"]["risk"]["breaches"]
    assert sum(row[-1] == "crossed" for row in rows) == breaches > 0

    again = tmp_path / "again.html"
    assert run_cli(["report", str(fabric.run), "--to", str(again)]) == 0
    assert again.read_text(encoding="utf-8") == content


def test_kills_and_what_they_cost_are_on_the_timeline(up: Any, waiting: Callable[..., Any], tmp_path: Path) -> None:
    fabric = up("demo", "--fault", "drop=0.02,seed=3", "--set", "nodes.feed.records_per_second=2000")
    waiting(lambda: fabric.count("pricing", "cycles") > 300, "pricing at work")
    pid = fabric.kill("pricing")
    waiting(lambda: fabric.count("pricing", "pid") != pid, "pricing again")
    before = fabric.count("pricing", "cycles")
    waiting(lambda: fabric.count("pricing", "cycles") > before + 100, "pricing going on")
    unfinished = tmp_path / "now.json"
    assert run_cli(["report", str(fabric.run), "--to", str(unfinished)]) == 0, "a run that still goes on"
    said = json.loads(unfinished.read_text())
    assert (said["ended"], said["nodes"]["pricing"]["restarts"]) == ("unfinished", 1)
    fabric.process.terminate()
    report = fabric.report()
    assert report["nodes"]["pricing"]["restarts"] == 1
    view = RunView(fabric.run)
    check_totals(view)
    first, second = view.lives()["pricing"]
    assert first.how == "killed by SIGKILL"
    assert first.started_ns < first.ended_ns < second.started_ns < second.ended_ns
    timeline = view.timelines()["pricing"]
    (quiet,) = np.flatnonzero(np.diff((timeline.bins["states"][1] == 0).astype(int)) == 1)
    stopped_ns = timeline.began_ns + (int(quiet) + 1) * timeline.width_ns
    assert abs(stopped_ns - first.ended_ns) < 3 * timeline.width_ns, "nobody looks from the kill on"
    assert timeline.bins["states"][1][-1], "read to its end"
    assert run_cli(["report", str(fabric.run), "--to", str(tmp_path / "k.html")]) == 0
    assert "killed by SIGKILL" in (tmp_path / "k.html").read_text()
