"""`python bench/tick_to_risk.py`: how long a quote takes from the simulated feed through pricing to the risk node.

    feed  ──log──▶  pricing  ──log──▶  risk        three processes, logs in memory, mapped

Runs `fabric up` on a config of its own for each rate and way of waiting, with the nodes pinned as it says, and reads the
nodes' pages at the beginning and the end of the time that counts. A node's stamps are those of its cycle's begin, before it
has read its inputs: "taken" is the time at which a node had the record in hand, from the begin of the feed's cycle (so the
feed's own work counts), and "call" how long its cycle took from there until all was committed and published.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt

from fabric.bench.process import interrupt
from fabric.log.reader import LogReader
from fabric.rundir import RunDirectory, latest_run
from fabric.runtime.page import PATHS, NodePage
from native.histogram import Histogram

ROOT = Path(__file__).resolve().parents[1]
NODES = ("feed", "pricing", "risk")
HOPS = (
    ("feed call", "feed", "call"),
    ("feed>pricing taken", "pricing", "feed>pricing"),
    ("pricing call", "pricing", "call"),
    ("pricing>risk taken", "risk", "pricing>risk"),
    ("risk call", "risk", "call"),
    ("feed>risk taken", "risk", "feed>risk"),
)
CONFIG = """
fabric = "ticks"
data_dir = "{data_dir}"

[nodes.feed]
use = "feed.simulated"
outputs = {{ instrument = "t.instrument", quote = "t.quote", trade = "t.trade" }}
records_per_second = {rate}
future_share = {future_share}
idle = "{feed_idle}"
{feed_cpus}

[nodes.pricing]
use = "pricing"
inputs = {{ instrument = "t.instrument", quote = "t.quote" }}
outputs = {{ greeks = "t.greeks" }}
idle = "{pricing_idle}"
{pricing_cpus}

[nodes.risk]
use = "risk"
inputs = {{ instrument = "t.instrument", greeks = "t.greeks" }}
outputs = {{ risk = "t.risk", breach = "t.breach" }}
positions = "{positions}"
idle = "{risk_idle}"
{risk_cpus}
"""


def each_of(idle: str) -> list[str]:
    """How feed, pricing and risk wait: "spin" means that the feed sleeps until its next quote is due."""
    return idle.split("/") if "/" in idle else ["block", idle, idle]


def write_config(folder: Path, rate: float, idle: str, arguments: argparse.Namespace) -> Path:
    waits = dict(zip(NODES, each_of(idle), strict=True))
    pins = dict(zip(NODES, arguments.cpus.split("/"), strict=True)) if arguments.cpus else {}
    text = CONFIG.format(
        data_dir=folder / "data",
        rate=float(rate),
        future_share=arguments.future_share,
        positions=ROOT / "configs" / "demo-positions.csv",
        **{f"{name}_idle": wait for name, wait in waits.items()},
        **{f"{name}_cpus": f"cpus = [{pins[name]}]" if pins.get(name) else "" for name in NODES},
    )
    path = folder / "ticks.toml"
    path.write_text(text)
    return path


def words_of(run: RunDirectory) -> dict[tuple[str, str], npt.NDArray[np.uint64]]:
    """All histograms of all pages, as they stand."""
    found = {}
    for node in NODES:
        page = NodePage.open(run.node(node) / "page")
        for name in page.histograms:
            found[node, name] = page.histogram_words(name)
    return found


def between(before: npt.NDArray[np.uint64], after: npt.NDArray[np.uint64]) -> Histogram:
    fresh = after - before
    fresh[2:4] = after[2:4]  # the extremes are those since the start
    return Histogram(bytearray(fresh.tobytes()))


def line(name: str, count: int, values: tuple[float, float, float]) -> None:
    print(f"  {name:24} {count:>9,}" + "".join(f" {value / 1e3:>9,.1f}" for value in values))


def cpu_ns(run: RunDirectory) -> dict[str, int]:
    return {node: NodePage.open(run.node(node) / "page").get("cpu_ns") for node in NODES}


def told_path(run: RunDirectory) -> str:
    """How pricing's quotes and risk's greeks came."""
    ports = (("pricing", "quote"), ("risk", "greeks"))
    paths = {PATHS[NodePage.open(run.node(node) / "page").get(f"in.{port}.path")] for node, port in ports}
    return ", ".join(sorted(paths))


def whole(run: RunDirectory, began_ns: int, ended_ns: int) -> None:
    """By the records of the risk log: each total is published once a batch of greeks that matters to a position."""
    log = LogReader(run.channel_log("t.risk"))
    parts = [part for _, part in log.read_range(log.first_available, log.next - 1)]
    records = np.concatenate(parts)
    chosen = (
        (records["ts_publish_ns"] > began_ns) & (records["ts_publish_ns"] < ended_ns) & (records["underlying"] == b"")
    )
    records = records[chosen & (records["ts_origin_ns"] > 0)]
    if not len(records):
        print("  nothing was published by risk")
        return
    took = records["ts_publish_ns"] - records["ts_origin_ns"]
    line("quote > its risk record", len(records), tuple(np.percentile(took, (50, 90, 99))))


def measure(rate: float, idle: str, arguments: argparse.Namespace) -> bool:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    output = (folder / "output").open("wb")
    command = [sys.executable, "-m", "fabric.cli.main", "up", str(write_config(folder, rate, idle, arguments))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        run = None
        deadline = time.monotonic() + 30
        while run is None or not (run.path / "go").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                print((folder / "output").read_text(errors="replace"), file=sys.stderr)
                return False
            time.sleep(0.1)
            with contextlib.suppress(Exception):  # not there yet
                run = latest_run(folder / "data" / "ticks")
        time.sleep(arguments.warm_up)
        before, used, began_ns = words_of(run), cpu_ns(run), time.time_ns()
        time.sleep(arguments.seconds)
        after, used_then, ended_ns = words_of(run), cpu_ns(run), time.time_ns()
        path = told_path(run)
        print(f"\n{rate:,.0f} records/s, feed/pricing/risk wait by {'/'.join(each_of(idle))}, path {path}")
        print(f"  {'us':24} {'records':>9} {'p50':>9} {'p90':>9} {'p99':>9}")
        for name, node, hop in HOPS:
            histogram = between(before[node, hop], after[node, hop])
            points = tuple(float(histogram.percentile_ns(point)) for point in (50, 90, 99))
            line(name, histogram.count, (points[0], points[1], points[2]))
        whole(run, began_ns, ended_ns)
        seconds = (ended_ns - began_ns) / 1e9
        spent = {node: (used_then[node] - used[node]) / 1e9 / seconds for node in NODES}
        print("  cpu " + ", ".join(f"{node} {share:.0%}" for node, share in spent.items()), flush=True)
        return path == "local"
    finally:
        interrupt(process, 20)
        output.close()
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="500,2000", help="records a second, separated by commas")
    parser.add_argument(
        "--idle",
        default="block,block/spin/yield,spin",
        help="of pricing and risk, or of feed/pricing/risk, each in turn",
    )
    parser.add_argument("--cpus", default="1/0/1", help="of feed/pricing/risk; empty: not pinned")
    parser.add_argument("--future-share", type=float, default=0.05, help="of the records: each moves a whole chain")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    arguments = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cpus, Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}"
    )
    pinned = f"pinned to cpus {arguments.cpus}" if arguments.cpus else "not pinned"
    print(f"feed/pricing/risk {pinned}; the supervisor and the log server are not")
    good = True
    for idle in arguments.idle.split(","):
        for rate in arguments.rates.split(","):
            good = measure(float(rate), idle, arguments) and good
    print("\nall records came from mapped logs" if good else "\nNOT all records came from mapped logs")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
