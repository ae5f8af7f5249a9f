"""Tests of the node, without sockets, files or waiting."""

from __future__ import annotations

import pytest
from trend import Trend

from fabric.records import find_record
from fabric.testing import LossyLine, check_restart, make_records, packets, random_records, run_node

GREEKS = find_record("greeks")


def make() -> Trend:
    return Trend("trend", config={"alpha": 0.5}, inputs={"greeks": "g"}, outputs={"trend": "t"})


def test_the_average_follows() -> None:
    greeks = make_records(GREEKS, [{"instrument": 1, "iv": iv} for iv in (0.4, 0.6, 0.6)])
    trend = run_node(make(), [("greeks", greeks)])["trend"]
    assert trend["average"].tolist() == pytest.approx([0.4, 0.4, 0.5])
    assert trend["deviation"].tolist() == pytest.approx([0.0, 0.2, 0.1])
    assert trend["samples"].tolist() == [1, 2, 3]
    assert trend["ts_event_ns"].tolist() == greeks["ts_event_ns"].tolist()


def test_a_restart_at_any_moment_changes_nothing() -> None:
    parts = packets(random_records(GREEKS, 100, seed=1), seed=1)
    assert check_restart(make, [("greeks", part) for part in parts]) == len(parts) - 1


def test_a_bad_line_changes_nothing() -> None:
    parts = packets(random_records(GREEKS, 200, seed=2), seed=2)
    line = LossyLine(GREEKS, seed=3, drop=0.2, duplicate=0.1, reorder=0.2)
    found = run_node(make(), line.carry("greeks", parts))["trend"]
    expected = run_node(make(), [("greeks", part) for part in parts])["trend"]
    assert found["average"].tolist() == expected["average"].tolist()
    assert line.counters.recovered == line.counters.missed > 0


def test_what_is_lost_for_good_is_counted() -> None:
    parts = packets(random_records(GREEKS, 200, seed=4), seed=4)
    line = LossyLine(GREEKS, seed=5, drop=0.3, retain=1)
    node = make()
    run_node(node, line.carry("greeks", parts))
    assert node.report()["lost"] == line.counters.lost > 0
