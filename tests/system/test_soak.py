"""Long runs: kills at random moments while packets are dropped (`make soak`)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.soak]
SECONDS = 120


@pytest.mark.timeout(SECONDS * 3)
def test_two_minutes_of_kills_and_dropped_packets(up: Any, waiting: Callable[..., Any]) -> None:
    seed = int(os.environ.get("FABRIC_SEED", "0")) or random.randrange(1, 10**6)
    print(f"FABRIC_SEED={seed}")
    source = random.Random(seed)
    fabric = up(
        "demo", "--for", f"{SECONDS}s", "--fault", f"drop=0.02,seed={seed}",
        "--set", "nodes.feed.records_per_second=1000",
    )  # fmt: skip
    kills = dict.fromkeys(("feed", "pricing", "risk"), 0)
    end = time.monotonic() + SECONDS - 15
    while time.monotonic() < end:
        node = source.choice(list(kills))
        begun = fabric.count(node, "cycles")
        more = source.randint(1, 2000)
        waiting(
            lambda node=node, begun=begun, more=more: fabric.count(node, "cycles") > begun + more, f"{node} at work"
        )
        pid = fabric.kill(node)
        kills[node] += 1
        waiting(lambda node=node, pid=pid: fabric.count(node, "pid") != pid, f"{node} again")
    report = fabric.report(SECONDS)
    assert {name: entry["restarts"] for name, entry in report["nodes"].items()} == kills
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert (counts["lost"], counts["skipped"]) == (0, 0), (name, reader)
            assert counts["received"] == channel["published"], (name, reader)
            assert counts["missed"] == counts["recovered"], (name, reader)
