"""Long runs: kills at random moments while packets are dropped; ten minutes at full rate (`make soak`)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.log.reader import LogReader
from native.histogram import Histogram

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


STEADY_SECONDS = int(os.environ.get("FABRIC_STEADY_SECONDS", "600"))
STEADY_RATE = 200_000
STEADY_FEED_RATE = float(os.environ.get("FABRIC_STEADY_FEED_RATE", "90000"))
"""Quotes a second; with the greeks that they cause more than ``STEADY_RATE`` records flow."""
STEADY_BURST = 64
"""One by one they would keep a processor busy with calls for single quotes: it is what the machine can do, not what is slow, that
such a run would measure."""
WARM_UP_SECONDS = 60
MOST_LOG_GROWTH_BYTES = 9 << 20
"""A segment, which is mapped once more for the moment in which retention folds it into the image."""


@pytest.mark.timeout(STEADY_SECONDS * 2 + 120)
def test_ten_minutes_at_full_rate_are_as_good_as_the_first(up: Any, waiting: Callable[..., Any]) -> None:
    """Memory flat, nothing missing, latency of the last minute like that of the first.

    Memory without the pages of logs that a process has mapped: those fill up to a segment and begin again with the next
    one, which for risk's log takes a minute. They may not reach higher in the second half of the run than in the first.
    """
    nodes = ("feed", "pricing", "risk")
    fabric = up(
        "demo", "--for", f"{STEADY_SECONDS + WARM_UP_SECONDS}s",
        "--set", f"nodes.feed.records_per_second={STEADY_FEED_RATE}", "--set", f"nodes.feed.burst={STEADY_BURST}",
    )  # fmt: skip
    waiting(lambda: fabric.count("risk", "cycles") > 0, "risk at work")
    time.sleep(WARM_UP_SECONDS)
    pids = {node: fabric.count(node, "pid") for node in nodes}
    before = counted(fabric)
    begun_s = time.monotonic()
    minutes: list[float] = []
    own: dict[str, list[tuple[float, int]]] = {node: [] for node in nodes}
    logs: dict[str, list[int]] = {node: [] for node in nodes}
    marks = hop_words(fabric)
    next_minute_s = begun_s + 60
    while (now_s := time.monotonic()) < begun_s + STEADY_SECONDS - 5:
        for node, pid in pids.items():
            resident = rss_bytes(pid)
            own[node].append((now_s - begun_s, resident["VmRSS"] - resident["RssShmem"]))
            logs[node].append(resident["RssShmem"])
        if now_s >= next_minute_s:
            fresh = hop_words(fabric)
            minutes.append(p99_between(marks, fresh))
            marks, next_minute_s = fresh, next_minute_s + 60
        time.sleep(1.0)
    published = {name: (count - before[name]) / (time.monotonic() - begun_s) for name, count in counted(fabric).items()}
    slopes = {node: slope_per_minute(points) for node, points in own.items()}
    half = len(logs["risk"]) // 2
    most = {node: (max(each[:half]), max(each[half:])) for node, each in logs.items()}
    report = fabric.report(120)
    total = sum(published.values())
    print(f"records/s {total:,.0f} { ({name: round(rate) for name, rate in published.items()}) }")
    print(f"RSS without logs, bytes a minute { ({node: round(slope) for node, slope in slopes.items()}) }")
    print(
        f"mapped logs, MB at most, first and second half { ({node: (a >> 20, b >> 20) for node, (a, b) in most.items()}) }"
    )
    print(f"feed to risk, p99 of each minute, us {[round(each / 1e3) for each in minutes]}")
    assert total >= STEADY_RATE
    assert all(slope < 1_000_000 for slope in slopes.values()), slopes
    assert all(after <= before + MOST_LOG_GROWTH_BYTES for before, after in most.values()), most
    assert minutes[-1] <= 1.5 * minutes[0], minutes
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert (counts["lost"], counts["skipped"]) == (0, 0), (name, reader)
            assert counts["missed"] == counts["recovered"], (name, reader)
    assert {entry["restarts"] for entry in report["nodes"].values()} == {0}


def counted(fabric: Any) -> dict[str, int]:
    """Records published so far, by channel."""
    return {name: LogReader(fabric.log(name)).next - 1 for name in ("demo.quote", "demo.greeks", "demo.risk")}


def rss_bytes(pid: int) -> dict[str, int]:
    """VmRSS, and RssShmem: of it, files in memory, where the logs are."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {
        name: int(size.split()[0]) << 10
        for name, _, size in (line.partition(":") for line in lines)
        if "RSS" in name.upper()
    }


def hop_words(fabric: Any) -> Any:
    return fabric.page("risk").histogram_words("feed>risk")


def p99_between(before: Any, after: Any) -> float:
    fresh = after - before
    fresh[2:4] = after[2:4]  # the extremes are those since the start
    return float(Histogram(bytearray(fresh.tobytes())).percentile_ns(99))


def slope_per_minute(points: list[tuple[float, int]]) -> float:
    """Of the line through the points with the least squares, in bytes."""
    seconds, values = np.array(points, float).T
    return float(np.polyfit(seconds, values, 1)[0]) * 60
