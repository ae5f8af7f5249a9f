"""A standby goes on for a node that is killed, in the same session: every record once and in order, and no restart."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fabric.bench.ports import free_endpoints
from fabric.cli.main import run_cli
from fabric.log import open_log
from fabric.records import Records
from fabric.runtime.journal import Cycle, Kind, read_cycles
from fabric.runtime.standby import standby_pid

pytestmark = pytest.mark.system

STANDBY = ("--set", "nodes.pricing.standby=true", "--set", "nodes.feed.standby=true")


def whole(path: Any) -> Records:
    log = open_log(path)
    return np.concatenate([view for _, view in log.read_range(log.base, log.next - 1)])


def kill_and_see_its_standby_go_on(fabric: Any, node: str, waiting: Callable[..., Any], number: int) -> int:
    """kill -9 of the node's process once another one stands by; returns the pid of the one that goes on."""
    primary = fabric.count(node, "pid")

    def ready() -> int:
        pid = standby_pid(fabric.run / "nodes" / node)
        return pid if pid not in (0, primary) and fabric.count(node, "takeovers") == number - 1 else 0

    standby = waiting(ready, f"a standby of {node}")
    os.kill(primary, signal.SIGKILL)
    waiting(lambda: fabric.count(node, "takeovers") == number, f"takeover {number} of {node}")
    assert fabric.count(node, "pid") == standby, "the one that stood by is the node"
    return int(standby)


@pytest.mark.timeout(120)
def test_standbys_take_over_under_load(up: Any, waiting: Callable[..., Any], capsys: Any) -> None:
    listen = f'channels."demo.quote".listen="{free_endpoints(1)[0]}"'  # taken over as well
    fabric = up("demo", "--set", "nodes.feed.records_per_second=2000", "--set", listen, *STANDBY)
    took_ns = []
    for number, node in ((1, "pricing"), (1, "feed"), (2, "pricing"), (2, "feed")):
        before = fabric.count(node, "cycles")
        waiting(lambda node=node, before=before: fabric.count(node, "cycles") > before + 200, f"{node} at work")
        kill_and_see_its_standby_go_on(fabric, node, waiting, number)
        took_ns.append((node, fabric.count(node, "takeover_ns")))
        before = fabric.count(node, "cycles")
        waiting(lambda node=node, before=before: fabric.count(node, "cycles") > before + 50, f"{node} going on")
    fabric.stop()
    report = fabric.report()
    with capsys.disabled():
        print("\n" + ", ".join(f"{node} taken over in {took / 1e6:.1f} ms" for node, took in took_ns))
    for name, (restarts, takeovers) in {"feed": (0, 2), "pricing": (0, 2), "risk": (0, 0)}.items():
        told = report["nodes"][name]
        assert (told["restarts"], told["takeovers"], told["errors"]) == (restarts, takeovers, 0), name
    assert report["nodes"]["pricing"]["takeover_ns"] == took_ns[2][1]
    for name, channel in report["channels"].items():
        log = open_log(fabric.log(name))
        assert len(list(fabric.log(name).glob("?" * 16))) == 1, "one session through all lives"
        assert log.next - 1 == channel["published"]
        for reader, counts in channel["subscribers"].items():
            assert (counts["received"], counts["lost"], counts["skipped"]) == (channel["published"], 0, 0), (
                name,
                reader,
            )
            assert counts["missed"] == counts["recovered"], (name, reader)
    # Each quote was given to pricing once, in order; and what both published follows from what they were given.
    given = [
        (entry.first, entry.count)
        for cycle in read_cycles(open_log(fabric.log("@pricing")), 1)
        if isinstance(cycle, Cycle)
        for entry in cycle.entries
        if entry.kind == Kind.DATA and entry.port == 1
    ]
    assert given[0][0] == 1
    assert all(first + count == following for (first, count), (following, _) in pairwise(given))
    assert sum(count for _, count in given) == len(whole(fabric.log("demo.quote"))) > 1000
    for node in ("feed", "pricing", "risk"):
        assert run_cli(["play", str(fabric.run), "--node", node, "--verify"]) == 0, node


def test_a_standby_that_dies_is_replaced_and_one_that_waits_ends_with_the_run(
    up: Any, waiting: Callable[..., Any]
) -> None:
    fabric = up("demo", "--set", "nodes.risk.standby=true")
    at = fabric.run / "nodes" / "risk"
    first = waiting(lambda: standby_pid(at), "a standby")
    os.kill(first, signal.SIGKILL)
    second = waiting(lambda: (pid := standby_pid(at)) != first and pid, "another standby")
    primary = fabric.count("risk", "pid")
    assert primary not in (first, second)
    fabric.stop()
    report = fabric.report()
    assert (report["nodes"]["risk"]["restarts"], report["nodes"]["risk"]["takeovers"]) == (0, 0)
    assert standby_pid(at) == 0
    for pid in (first, second, primary):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
