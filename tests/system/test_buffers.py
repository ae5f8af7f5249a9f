"""What ARCHITECTURE.md says of buffers: each has a bound, and a gauge that stands in the report of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.log import LogReader

pytestmark = pytest.mark.system

ARCHITECTURE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"
IN_THE_PROGRAM = ("subscription.behind", "service.repeated", "nodes.*.connection", "rungs")
"""Of a client's own, or only where there is such a thing."""


def gauges() -> list[str]:
    """The report's keys that the table names."""
    text = ARCHITECTURE.read_text()
    match = re.search(r"^\| buffer \|.*?(?=\n\n)", text, re.S | re.M)
    assert match, "ARCHITECTURE.md has no table that begins with `| buffer |`"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match.group().splitlines()[2:]]
    assert all((row[1] and row[2]) or row[0] == "holes" for row in rows), "a buffer without a bound, or what sets it"
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[3])]


def values(report: Any, path: str) -> list[Any]:
    """What stands at a path; ``*`` is any name."""
    found = [report]
    for part in path.split("."):
        inner = []
        for each in found:
            assert isinstance(each, dict), path
            inner += list(each.values()) if part == "*" else [each[part]]
        found = inner
    return found


@pytest.mark.timeout(120)
def test_every_gauge_of_the_table_is_in_a_report(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo", "--set", 'archive.channels=["demo.quote"]', "--fault", "drop=0.02,seed=3")
    archived = waiting(lambda: LogReader(fabric.run.parent / "archive" / "demo.quote"), "the archive's log")
    waiting(lambda: archived.next > 3000, "records in the archive")
    waiting(lambda: (fabric.run / "archive.json").exists() and (fabric.run / "log-server.json").exists(), "gauges")
    fabric.stop()
    report = fabric.report()
    named = [name for name in gauges() if not name.endswith(IN_THE_PROGRAM)]
    assert len(named) >= 15
    for name in named:
        assert values(report, name), name
    readers = [each for channel in report["channels"].values() for each in channel["subscribers"].values()]
    for reader in readers:
        for name, gauge in reader["buffers"].items():
            assert 0 <= gauge["now"] <= gauge["most"], (name, gauge)
    assert max(reader["buffers"]["holes"]["most"] for reader in readers) > 0, "packets were dropped on purpose"
    assert report["log_server"]["requests"] > 0
    assert max(node["staged_most"] for node in report["nodes"].values()) > 0
