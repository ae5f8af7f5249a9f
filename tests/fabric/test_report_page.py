"""The page of a run that is made by hand: escaping, structure, sections of one's own, files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.cli.main import run_cli
from fabric.log import LogOptions, LogWriter
from fabric.records import RecordType, record
from fabric.report import Heatmap, Lines, RunView, Section, Series, Table
from fabric.report.markup import Markup, tag
from fabric.report.page import render
from fabric.report.sections import make_sections
from fabric.runtime.page import NodePage
from fabric.runtime.timeline import Timeline
from fabric.supervise.lives import Lives

ROOT = Path(__file__).resolve().parents[2]
BEGAN = 1_700_000_000 * 10**9
EVIL = '<script>alert("x")</script>&\'"><img src=x onerror=y>'
VOID = {"meta"}


class Checked(HTMLParser):
    """Every element closed in order; what it saw."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.attributes += attributes
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def counts(**values: Any) -> dict[str, Any]:
    names = ("received", "gaps", "missed", "recovered", "skipped", "lost", "duplicates")
    return {**dict.fromkeys(names, 0), "path": "ipc", "state": "LIVE", **values}


def latency(**values: int) -> dict[str, int]:
    names = ("mean_ns", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns")
    return {**dict.fromkeys(names, 20_000), "count": 2, **values}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunView]:
    """A run directory with one reader of one channel, both of any name, as far as the page reads it."""

    def make(channel: str = "c", node: str = "n", **more: Any) -> RunView:
        run = tmp_path / "run"
        (run / "nodes" / "n").mkdir(parents=True)
        manifest = {"fabric": "f", "started_ns": BEGAN, "nodes": {node: channel}, "channels": {}, "processor": channel}
        (run / "run.json").write_text(json.dumps(manifest))
        entry = {
            "restarts": 1,
            "errors": 0,
            "cpu_seconds": 1.25,
            "peak_rss_bytes": 3 << 20,
            "cycles": 1234,
            "cycles_made_again": 0,
        }
        reader = counts(received=4321, missed=17, recovered=16, lost=1)
        report = {
            "fabric": "f", "ended": "stopped", "seconds": 2.0, "run": "/home/somebody/run", "fault": "", "failure": "",
            "sources": {}, "nodes": {node: entry}, "hops": {f"{node}>n": latency()}, "calls": {"n": latency(max_ns=30_000)},
            "channels": {channel: {"published": 4321, "subscribers": {node: reader}}},
            **more,
        }  # fmt: skip
        (run / "report.json").write_text(json.dumps(report))
        page = NodePage(run / "nodes" / "n" / "page", ["state"], [f"{node}>n", "call"])
        for histogram in page.histograms.values():
            histogram.record(20_000)
            histogram.record(30_000)
        timeline = Timeline(run / "nodes" / "n" / "timeline", [("p", channel)])
        timeline.start_from([(0,) * 5])
        timeline.note(BEGAN + 10**9, [(3, 17, 16, 0, 1)], [2])
        times = iter((BEGAN, BEGAN + 10**9, BEGAN + 1_250_000_000, BEGAN + 2 * 10**9))
        lives = Lives(run, lambda: next(times))
        lives.started(node)
        lives.ended(node, "killed by SIGKILL")
        lives.started(node)
        lives.ended(node, channel)
        return RunView(run)

    return make


def test_the_page_has_every_section_with_its_figures(make_run: Callable[..., RunView]) -> None:
    page = Checked(render(make_run(), []))
    for heading in ("Channels", "Gaps and recoveries", "Latency", "Nodes"):
        assert heading in page.text
    assert "f stopped after 2.0 s: 4,321 records published, 17 missed, 16 recovered, 0 skipped, 1 lost" in page.text
    assert "Records were lost." in page.text
    for figure in ("4,321", "1,234", "3.0 MiB", "20.0 µs", "30.0 µs", "1.00 s", "250.0 ms", "killed by SIGKILL"):
        assert f"\n{figure}\n" in f"\n{page.text}", figure
    assert "2023-11-14 22:13:20 UTC, 2.0 s" in page.text
    assert "somebody" not in page.text
    assert page.tags.count("svg") == page.tags.count("desc") == page.tags.count("figcaption") == 3
    described = [value for name, value in page.attributes if name == "aria-label"]
    assert any(value and "n reading c: 17 missed, 16 recovered, 1 lost" in value for value in described)


def test_no_name_becomes_markup(make_run: Callable[..., RunView]) -> None:
    tables = [
        Table(EVIL, [EVIL], [[EVIL]], note=EVIL),
        Heatmap(EVIL, [EVIL], [EVIL], [[1.0]], row_label=EVIL, note=EVIL),
        Lines(EVIL, [Series(EVIL, [1], [2]), Series(EVIL, [1], [2])], EVIL, EVIL),
    ]
    view = make_run(channel="C", node="N")
    plain = Checked(render(view, [Section("S", tables, "note")])).tags
    for path in (view.path / "report.json", view.path / "run.json", view.path / "lives"):
        evil = json.dumps(EVIL)[1:-1].replace("\\", r"\\")
        path.write_text(re.sub(r'"[CN](>n)?"', rf'"{evil}\1"', path.read_text()))
    written = render(RunView(view.path), [Section(EVIL, tables, EVIL)])
    assert "<script" not in written
    assert "<img" not in written
    page = Checked(written)
    # Hops whose histogram is not found any more lose their chart, and nothing else changes.
    assert set(page.tags) <= set(plain)
    assert page.text.count(EVIL) > 20


def test_tag_escapes_all_but_markup() -> None:
    assert tag("p", "<", Markup("<b>"), title='"<&') == '<p title="&quot;&lt;&amp;">&lt;<b></p>'
    assert tag("path", stroke_width=1.504, class_="a", id=None) == '<path stroke-width="1.5" class="a"></path>'


def test_the_page_needs_nothing_else_and_is_the_same_again(make_run: Callable[..., RunView]) -> None:
    view = make_run()
    page = render(view, [])
    assert page == render(RunView(view.path), [])
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<img|src=|href=", page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "prefers-color-scheme:dark" in page


def test_a_run_of_which_nothing_is_left_but_the_report(make_run: Callable[..., RunView]) -> None:
    view = make_run()
    (view.path / "lives").unlink()
    for name in ("timeline", "page"):
        (view.path / "nodes" / "n" / name).unlink()
    text = Checked(render(view)).text
    assert "No node of this run kept a timeline." in text
    assert "20.0 µs" in text


def test_sections_that_fail_take_nothing_with_them(make_run: Callable[..., RunView]) -> None:
    view = make_run()

    def works(run: RunView) -> list[Section]:
        return [Section("Good", [Table("T", ["a"], [["x"]])])]

    def breaks(run: RunView) -> list[Section]:
        raise KeyError("iv")

    def missing() -> Any:
        raise ImportError("no such module")

    sections = make_sections(view, {"a": missing, "b": lambda: breaks, "c": lambda: works})
    assert [section.title for section in sections] == ["a", "b", "Good"]
    odd: list[Any] = [Table("Odd", ["a"], [[1.0]], ["nonsense"]), "no item at all", Table("T", ["a"], [["y"]])]
    text = Checked(render(view, [*sections, Section("Mixed", odd)])).text
    assert "This section could not be made: KeyError('iv')" in text
    assert "no such module" in text
    assert "Odd: could not be drawn" in text
    assert "An item: could not be drawn: TypeError('str is no Table, Heatmap or Lines')" in text
    assert text.rstrip().endswith("T\na\ny")


def test_charts_of_odd_data(make_run: Callable[..., RunView]) -> None:
    nan = math.nan
    odd = [
        Lines("none", []),
        Lines("empty", [Series("s", [], [])]),
        Lines("one", [Series("s", [1.0], [5.0], [nan], [nan])]),
        Lines("nan", [Series("s", [1.0, nan, 3.0], [nan, 2.0, nan])]),
        Lines("same", [Series("s", [1.0, 2.0], [5.0, 5.0], [4.0, nan], [6.0, math.inf])]),
        Heatmap("flat", ["r"], ["c"], [[0.0]]),
        Heatmap("nan", ["r"], ["c", "d"], [[nan, -1.0]]),
    ]
    written = render(make_run(), [Section("Odd", odd)])
    assert "could not be drawn" not in written
    drawn = re.findall(r' (?:d|x|y|x1|width|height)="([^"]*)"', written)
    assert drawn
    assert not [each for each in drawn if "nan" in each or "inf" in each]
    assert '<td class="n o">–</td><td class="n n6">−1</td>' in written


SKEW = record("skew", image="last", put_iv="f8", call_iv="f8")


def write_log(run: Path, channel: str, kind: RecordType, records: Any) -> None:
    writer = LogWriter(run / "logs" / channel, channel, 1, kind, LogOptions(segment_bytes=64 * kind.size), now_ns=BEGAN)
    records["flags"][-1] |= 1
    writer.write(records, BEGAN)
    writer.close()
    manifest = json.loads((run / "run.json").read_text())
    manifest["channels"][channel] = kind.describe()
    (run / "run.json").write_text(json.dumps(manifest))


def test_the_documented_section(make_run: Callable[..., RunView], tmp_path: Path) -> None:
    """The sample of docs/report.md, as it is printed there."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"<!-- sample: sections\.py -->\n```python\n(.*?)```", text, re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(sample, "sections.py", "exec"), space)
    view = make_run()
    assert space["skew"](view) == []
    times = BEGAN + np.arange(4) * 10**9
    write_log(
        view.path,
        "d.skew",
        SKEW,
        SKEW.build(ts_event_ns=times, put_iv=[0.8, 0.7, 0.6, 0.5], call_iv=0.4, instrument=[1, 2, 1, 2]),
    )
    (section,) = space["skew"](RunView(view.path))
    chart, table = section.items
    assert [list(series.y) for series in chart.series] == [[0.8, 0.7, 0.6, 0.5], [0.4] * 4]
    assert list(chart.series[0].x) == [0.0, 1.0, 2.0, 3.0]
    assert table.rows == [[1, 0.6, 0.4], [2, 0.5, 0.4]]
    page = Checked(render(view, [section]))
    assert "Skew (d.skew)" in page.text
    assert "50.0%" in page.text
    assert any(
        value and "put: 4 points from 50% to 80%" in value for name, value in page.attributes if name == "aria-label"
    )


def test_records_of_a_log_that_is_gone_are_none(make_run: Callable[..., RunView]) -> None:
    view = make_run()
    assert len(view.image("d.skew")) == len(view.newest("d.skew", 5)) == 0
    write_log(view.path, "d.skew", SKEW, SKEW.build(instrument=np.arange(150), put_iv=np.arange(150.0)))
    again = RunView(view.path)
    assert again.channels("skew") == ["d.skew"]
    assert again.newest("d.skew", 90)["put_iv"].tolist() == list(range(60, 150)), "across segments"
    assert len(again.image("d.skew")) == 150


def test_fabric_report_writes_by_the_names_end(
    make_run: Callable[..., RunView], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = make_run()
    files = [tmp_path / name for name in ("a.html", "b.json", "c.HTM")]
    arguments = [part for file in files for part in ("--to", str(file))]
    assert run_cli(["report", str(view.path), *arguments]) == 0
    assert json.loads(files[1].read_text()) == view.report
    assert files[0].read_text() == files[2].read_text() == render(view)
    for wrong, said in (
        (["report", str(tmp_path), "--to", str(files[0])], "is not a run directory"),
        (["report", str(view.path), "--to", str(tmp_path)], "is a folder"),
        (["report", str(view.path), "--to", str(tmp_path / "no" / "a.html")], "there is no folder"),
        (["report", str(view.path)], "--to"),
    ):
        assert run_cli(wrong) == 2
        assert said in capsys.readouterr().err
