"""What the market's nodes add to the page: smiles, the grid, exposures and breaches, from a run's logs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.log import LogOptions, LogWriter
from fabric.records import RecordType
from fabric.report import Heatmap, Lines, RunView, Section, Table
from fabric.report.page import render
from nodes.records import BREACH, GREEKS, GRID, INSTRUMENT, RISK, Kind
from nodes.report import risk, smile, venue_check

NOW = 1_700_000_000 * 10**9
DAY_NS = 86_400 * 10**9
NEAR, FAR = NOW + 7 * DAY_NS, NOW + 30 * DAY_NS
CHANNELS = {
    "m.instrument": INSTRUMENT,
    "x.instrument": INSTRUMENT,
    "m.greeks": GREEKS,
    "m.risk": RISK,
    "m.grid": GRID,
    "m.breach": BREACH,
}


class Run:
    """A run directory to write records into."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        channels = {name: kind.describe() for name, kind in CHANNELS.items()}
        (path / "run.json").write_text(json.dumps({"fabric": "m", "started_ns": NOW, "channels": channels}))
        nodes = {"pricing": {"inputs": {"instrument": "m.instrument"}, "outputs": {"greeks": "m.greeks"}}}
        (path / "config.json").write_text(json.dumps({"values": {"nodes": nodes}}))

    def write(self, channel: str, **columns: Any) -> None:
        kind: RecordType = CHANNELS[channel]
        records = kind.build(**columns)
        records["flags"][-1] |= 1
        writer = LogWriter(
            self.path / "logs" / channel, channel, 1, kind, LogOptions(segment_bytes=64 * kind.size), now_ns=NOW
        )
        writer.write(records, NOW + 10**9)
        writer.close()

    def view(self, **report: Any) -> RunView:
        nothing = {"fabric": "m", "ended": "stopped", "seconds": 1.0, "fault": "", "channels": {}, "nodes": {}}
        return RunView(self.path, {**nothing, **report})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def options(run: Run) -> None:
    """Calls and puts at 80, 100 and 120 of two expiries, a future, and another venue's definition of one of their ids."""
    strikes = np.tile([80.0, 100.0, 120.0], 4)
    run.write(
        "m.instrument", instrument=np.arange(13), strike=[*strikes, 0.0], underlying=b"BTC",
        expiry_ns=[NEAR] * 6 + [FAR] * 6 + [NEAR], kind=[*([Kind.CALL] * 3 + [Kind.PUT] * 3) * 2, Kind.FUTURE],
    )  # fmt: skip
    run.write("x.instrument", instrument=[1], strike=[1.0], underlying=[b"X"], expiry_ns=[1], kind=[Kind.CALL])


def test_smiles_are_of_the_options_out_of_the_money_by_expiry(run: Run) -> None:
    options(run)
    iv = np.round(0.5 + np.arange(12) / 100, 2)
    for vol in (iv + 1.0, iv):  # the last record counts
        run.write(
            "m.greeks",
            instrument=np.arange(12),
            iv=vol,
            bid_iv=vol - 0.01,
            ask_iv=vol + 0.02,
            forward=100.0,
            ts_event_ns=NOW,
        )
    (section,) = smile(run.view())
    near, far = section.items
    assert isinstance(near, Lines)
    assert isinstance(far, Lines)
    assert (near.title, far.title) == ("BTC, 21 Nov 2023 (7.0 days)", "BTC, 14 Dec 2023 (30.0 days)")
    (points,) = near.series
    # Below the forward the put (4th of its expiry), at it and above it the calls.
    assert np.allclose(points.x, [math.log(0.8), 0.0, math.log(1.2)])
    assert list(points.y) == [0.53, 0.51, 0.52]
    assert np.allclose(points.low, [0.52, 0.50, 0.51])
    assert np.allclose(points.high, [0.55, 0.53, 0.54])
    assert list(far.series[0].y) == [0.59, 0.57, 0.58]
    assert (near.x_range, near.y_range) == (far.x_range, far.y_range)
    assert near.y_label == "forward 100, at the money 51.0%"
    assert "3 options; 51.0% at ln(strike / forward) = +0.000, from 51.0% to 53.0%." in near.description
    assert "could not be drawn" not in render(run.view(), [section])


def test_an_option_far_from_the_money_is_not_called_at_it(run: Run) -> None:
    options(run)
    run.write("m.greeks", instrument=[2, 12, 99], iv=0.9, forward=[60.0, 100.0, 100.0], ts_event_ns=NOW)
    (chart,) = smile(run.view())[0].items
    assert isinstance(chart, Lines)
    assert chart.y_label == "forward 60"


def test_only_the_nearest_expiries_are_shown_and_the_rest_is_told(run: Run) -> None:
    run.write(
        "m.instrument",
        instrument=np.arange(20),
        strike=100.0,
        underlying=b"BTC",
        expiry_ns=NEAR + np.arange(20) * DAY_NS,
        kind=Kind.CALL,
    )
    run.write("m.greeks", instrument=np.arange(20), iv=0.5, forward=100.0, ts_event_ns=NOW)
    (section,) = smile(run.view())
    assert len(section.items) == 8
    assert "12 later expiries are not shown" in section.note


def test_the_grid_is_that_of_each_underlying_and_the_total_last(run: Run) -> None:
    spot, vol = [-0.1, 0.0, 0.1], [-0.05, 0.0]
    for name, scale in ((b"ETH", 1.0), (b"", 3.0), (b"BTC", 2.0)):
        cells = [(row, column) for row in range(3) for column in range(2)]
        run.write(
            "m.grid", underlying=name, row=[r for r, _ in cells], column=[c for _, c in cells],
            spot_move=[spot[r] for r, _ in cells],
            vol_move=[vol[c] for _, c in cells],
            pnl=[scale * (10 * r - c) for r, c in cells],
        )  # fmt: skip
    (section,) = risk(run.view())
    maps = [item for item in section.items if isinstance(item, Heatmap)]
    assert [item.title.partition(":")[0] for item in maps] == ["BTC", "ETH", "total"]
    assert (maps[0].rows, maps[0].columns) == (["−10 %", "0 %", "+10 %"], ["−5 pt", "0 pt"])
    assert maps[0].values == [[0.0, -2.0], [20.0, 18.0], [40.0, 38.0]]
    assert maps[2].values[2] == [60.0, 57.0]


def test_exposures_and_breaches(run: Run) -> None:
    run.write(
        "m.risk", underlying=[b"ETH", b"BTC", b""], delta=[1.5, 2.5, 4.0], vega=[-10.0, 20.0, 10.0], positions=[2, 3, 5]
    )
    run.write(
        "m.breach",
        underlying=[b"BTC", b""],
        measure=[b"vega", b"delta"],
        value=[-41.5, 3.0],
        limit=[40.0, 4.0],
        active=[1, 0],
    )
    (section,) = risk(run.view())
    exposures, breaches = section.items
    assert isinstance(exposures, Table)
    assert isinstance(breaches, Table)
    assert [row[0] for row in exposures.rows] == ["BTC", "ETH", "total"]
    columns = list(exposures.header)
    assert [row[columns.index("vega")] for row in exposures.rows] == [20.0, -10.0, 10.0]
    assert [row[columns.index("positions")] for row in exposures.rows] == [3, 2, 5]
    assert breaches.rows == [
        ["1.00 s", "BTC", "vega", -41.5, 40.0, "crossed"],
        ["1.00 s", "total", "delta", 3.0, 4.0, "kept again"],
    ]


def test_a_run_without_any_of_it_has_no_such_sections(run: Run) -> None:
    view = run.view()
    nothing: list[Section] = []
    assert smile(view) == risk(view) == venue_check(view) == nothing
    measured = run.view(
        venue_check={"delta": {"count": 5, "median_relative": 1.5e-4}, "vega": {"count": 0, "median_relative": None}}
    )
    (section,) = venue_check(measured)
    (table,) = section.items
    assert isinstance(table, Table)
    assert table.rows == [["delta", 5, "1.5e-04"]]
