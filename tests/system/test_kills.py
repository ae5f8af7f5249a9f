"""kill -9 of each node in the middle of a run: restarted, nothing lost, no input priced twice or not at all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.cli.main import run_cli
from fabric.log import open_log
from fabric.records import Records
from fabric.runtime.journal import Cycle, Kind, read_cycles
from nodes.pricing import Pricing

pytestmark = pytest.mark.system


def whole(path: Any) -> Records:
    log = open_log(path)
    return np.concatenate([view for _, view in log.read_range(log.base, log.next - 1)])


class Kept:
    def __init__(self) -> None:
        self.parts: list[Records] = []

    def write(self, records: Records, now_ns: int) -> None:
        self.parts.append(records.copy())


def price_again(instruments: Records, quotes: Records) -> Records:
    """What an undisturbed pricing node makes of these records."""
    node = Pricing("again", inputs={"instrument": "i", "quote": "q"}, outputs={"greeks": "g"})
    kept = Kept()
    node.output_ports["greeks"].sink = kept
    node.on_start()
    node.on_records(node.instrument, instruments, 0)
    node.on_records(node.quote, quotes, 0)
    node.greeks.flush(0)
    return np.concatenate(kept.parts)


def test_every_node_killed_once(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo", "--set", "nodes.feed.records_per_second=2000")
    for node in ("feed", "pricing", "risk", "pricing"):
        waiting(lambda node=node: fabric.count(node, "cycles") > 300, f"{node} at work")
        pid = fabric.kill(node)
        waiting(lambda node=node, pid=pid: fabric.count(node, "pid") != pid, f"{node} again")
        before = fabric.count(node, "cycles")
        waiting(lambda node=node, before=before: fabric.count(node, "cycles") > before + 50, f"{node} going on")
    fabric.stop()
    report = fabric.report()
    assert {name: node["restarts"] for name, node in report["nodes"].items()} == {"feed": 1, "pricing": 2, "risk": 1}
    assert all(node["errors"] == 0 for node in report["nodes"].values())
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert counts["lost"] == counts["skipped"] == 0, (name, reader)
            assert counts["received"] == channel["published"], (name, reader)
            assert counts["missed"] == counts["recovered"], (name, reader)
    quotes = whole(fabric.log("demo.quote"))
    assert len(quotes) == report["channels"]["demo.quote"]["published"]
    assert len(quotes) > 1000
    # The journal: every quote given to pricing exactly once, in order.
    position = 0
    for cycle in read_cycles(open_log(fabric.log("@pricing")), 1):
        if isinstance(cycle, Cycle):
            for entry in cycle.entries:
                if entry.kind == Kind.DATA and entry.port == 1:
                    assert entry.first == position + 1
                    position += entry.count
    assert position == len(quotes)
    # Every node makes its calls again, over all its lives, with the same records.
    for node in report["nodes"]:
        assert run_cli(["play", str(fabric.run), "--node", node, "--verify"]) == 0, node
    # And what it published is what an undisturbed node would have.
    greeks, expected = whole(fabric.log("demo.greeks")), price_again(whole(fabric.log("demo.instrument")), quotes)
    assert len(greeks) == len(expected)
    for name in expected.dtype.names or ():
        if name != "ts_publish_ns":
            assert np.array_equal(greeks[name], expected[name], equal_nan=expected[name].dtype.kind == "f"), name


def test_a_killed_feed_under_dropped_packets_still_loses_nothing(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo", "--fault", "drop=0.05,seed=11", "--set", "nodes.feed.records_per_second=1000")
    for _ in range(2):
        begun = fabric.count("feed", "cycles")
        waiting(lambda begun=begun: fabric.count("feed", "cycles") > begun + 300, "the feed at work")
        pid = fabric.kill("feed")
        waiting(lambda pid=pid: fabric.count("feed", "pid") != pid, "the feed again")
    fabric.stop()
    report = fabric.report()
    assert report["nodes"]["feed"]["restarts"] == 2
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])


def test_a_fresh_start_accounts_for_what_it_passes_over(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up(
        "demo", "--set", "nodes.feed.records_per_second=1000", "--set", "nodes.pricing.resume=fresh"
    )  # fmt: skip
    waiting(lambda: fabric.count("pricing", "cycles") > 300, "pricing at work")
    pid = fabric.kill("pricing")
    waiting(lambda: fabric.count("pricing", "pid") != pid, "pricing again")
    fabric.stop()
    report = fabric.report()
    for name in ("demo.instrument", "demo.quote"):
        published, counts = report["channels"][name]["published"], report["channels"][name]["subscribers"]["pricing"]
        assert counts["received"] + counts["skipped"] + counts["lost"] == published, name
    quotes = report["channels"]["demo.quote"]["subscribers"]["pricing"]
    assert quotes["skipped"] > 0
    assert quotes["snapshot_records"] > 200


def test_a_node_that_is_dead_at_the_stop_still_takes_in_what_it_owes(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo")
    waiting(lambda: fabric.count("risk", "cycles") > 300, "risk at work")
    fabric.kill("pricing")
    fabric.stop()  # in its restart's backoff
    report = fabric.report()
    assert (report["ended"], report["failure"], report["nodes"]["pricing"]["restarts"]) == ("stopped", "", 1)
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])


def test_a_finite_run_ends_done_with_timers_and_a_node_stopped_from_outside(
    up: Any, waiting: Callable[..., Any]
) -> None:
    fabric = up(
        "demo", "--until-done", "--set", "nodes.feed.records=8000", "--set", "nodes.feed.records_per_second=2000",
        "--set", "nodes.risk.grid_interval=100ms",
    )  # fmt: skip
    waiting(lambda: fabric.count("pricing", "cycles") > 100, "pricing at work")
    pid = fabric.count("pricing", "pid")
    os.kill(pid, signal.SIGTERM)  # somebody else's orderly stop is not ours: the node is started again
    report = fabric.report()
    assert (report["ended"], report["nodes"]["pricing"]["restarts"]) == ("done", 1)
    assert all(node["errors"] == 0 for node in report["nodes"].values())
    assert sum(report["sources"]["feed"]["records"][kind] for kind in ("quote", "underlying", "trade")) == 8000
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])
    grid = whole(fabric.log("demo.grid"))
    # Its cycle's time was read before the last greeks were taken in, where the timer was due in that very cycle.
    a_cycle_ns = 20_000_000
    last_ns = whole(fabric.log("demo.greeks"))["ts_publish_ns"][-1]
    assert grid["ts_publish_ns"][-1] >= last_ns - a_cycle_ns, "the last state's grid"


def test_no_orphan_when_the_supervisor_is_killed(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo")
    nodes = ("feed", "pricing", "risk")
    waiting(lambda: all(fabric.count(node, "cycles") > 10 for node in nodes), "all at work")
    pids = [fabric.count(node, "pid") for node in nodes]
    fabric.process.kill()
    fabric.process.wait()

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    waiting(lambda: all(gone(pid) for pid in pids), "no process left", timeout=10)


def test_ctrl_c_stops_from_the_feed_down_with_everything_delivered(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("demo")
    waiting(lambda: fabric.count("risk", "cycles") > 50, "risk at work")
    fabric.stop()
    report = fabric.report()
    assert report["ended"] == "stopped"
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])


def test_a_second_up_of_the_same_fabric_is_refused(up: Any, waiting: Callable[..., Any], tmp_path: Any) -> None:
    fabric = up("demo")
    waiting(lambda: fabric.count("risk", "cycles") > 0, "risk at work")
    config = "configs/demo.toml"
    assert run_cli(["up", config, "--set", f"data_dir={fabric.data_dir}", "--for", "1s"]) == 2
    assert fabric.process.poll() is None


BROKEN = """
from fabric import Input, Node, Output, record
OUT = record("out", value="f8")
class Broken(Node):
    quote = Input("quote")
    out = Output(OUT)
    def on_records(self, channel, records, now_ns):
        raise RuntimeError("this node is broken")
"""


def test_a_node_that_always_fails_is_given_up_and_said_so(up: Any, tmp_path: Any) -> None:
    (tmp_path / "broken_node.py").write_text(BROKEN)
    config = tmp_path / "broken.toml"
    config.write_text(
        'fabric = "broken"\n[nodes.feed]\nuse = "feed.simulated"\n'
        'outputs = { instrument = "b.instrument", quote = "b.quote" }\n'
        '[nodes.bad]\nuse = "broken_node:Broken"\ninputs = { quote = "b.quote" }\noutputs = { out = "b.out" }\n'
    )
    fabric = up(config)
    assert fabric.wait() == 1
    assert "this node is broken" in fabric.output
    assert "bad ended with exit code 1, 5 times within 30 s" in fabric.output
