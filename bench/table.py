"""`python bench/table.py` (`make bench`): every goal of the hot path beside what this machine does, in one table.

Runs the programs of ``fabric bench`` that have goals, 15 interleaved pairs each, and the measurements of this folder that
have no peer in pairs; takes the better part of an hour, on a machine that does nothing else. ``--keep DIR`` keeps what each
printed, ``--from DIR`` makes the table of what was kept. A goal is met if the lower end of the ratio's 95 % interval
reaches it; MEDIAN: only the median does.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fabric.bench.goals import GOALS  # noqa: E402

PROGRAMS = ("latency", "throughput", "python-send", "throughput-batch", "asyncio", "fanout")
SCRIPTS: dict[str, list[str]] = {
    "disk": ["bench/disk.py"],
    "readers": ["bench/readers_cost.py"],
    "channels": ["bench/many_channels.py"],
    "gil": ["bench/beside_a_busy_thread.py"],
    "ticks": ["bench/tick_to_risk.py", "--rates", "500", "--idle", "block/spin/yield,spin"],
    "recovery": ["bench/recovery.py"],
    "takeover": ["bench/takeover.py"],
}
Row = tuple[str, str, str, str]
"""What, goal, measured, verdict."""


def run_all(folder: Path, rounds: int, seconds: float) -> None:
    for name in PROGRAMS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rate = ["--rate", "2000"] if name in ("latency", "asyncio") else []
        only = [word for contestant in contestants_of(name) for word in ("--only", contestant)]
        command = [sys.executable, "-m", "fabric.cli.main", "bench", name, *only, *rate]
        command += ["--rounds", str(rounds), "--seconds", str(seconds), "--json", str(folder / f"{name}.json")]
        keep(folder / f"{name}.txt", command)
    for name, command in SCRIPTS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        keep(folder / f"{name}.txt", [sys.executable, *command])


def contestants_of(program: str) -> list[str]:
    """Those that a goal names."""
    return sorted({name for of, _, ours, peer in GOALS if of == program for name in (ours, peer)})


def keep(file: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    file.write_text(done.stdout + (f"\nexit code {done.returncode}\n{done.stderr}" if done.returncode else ""))


def ratios(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for name in PROGRAMS:
        file = folder / f"{name}.json"
        if not file.exists():
            rows.append((name, "", "was not measured", ""))
            continue
        for case in json.loads(file.read_text())["cases"]:
            for ratio in case["ratios"]:
                if ratio["goal"] is None:
                    continue
                goal = ratio["goal"]
                verdict = "met" if ratio["low"] >= goal else "MEDIAN" if ratio["median"] >= goal else "MISSED"
                what = f"{name}, {case['case']}: {ratio['ours']} beside {ratio['peer']}"
                measured = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
                rows.append((what, f">= {goal:.2f}", measured, verdict))
            rows += tails(name, case)
    return rows


def tails(name: str, case: dict[str, Any]) -> list[Row]:
    """p99 of blocking readers over sockets: medians over rounds."""
    if name != "latency" or not case["case"].startswith("same-cpu"):
        return []
    by_name = {row["name"]: row for row in case["contestants"]}
    found = []
    for transport in ("ipc", "tcp"):
        ours, peer = by_name.get(f"ours {transport}"), by_name.get(f"pyzmq {transport}")
        if ours and peer:
            ratio = peer["latency_ns"]["99"] / ours["latency_ns"]["99"]
            what = f"{name}, {case['case']}, p99: ours {transport} beside pyzmq {transport}"
            found.append((what, f">= {1 / 1.15:.2f}", f"{ratio:.2f}", "met" if ratio >= 1 / 1.15 else "MISSED"))
    return found


def numbers(folder: Path) -> list[Row]:
    """Of the scripts: a pattern for the figure, the goal, and what is made of several figures."""
    wanted: tuple[tuple[str, str, str, str, float, Callable[[list[float]], float]], ...] = (
        ("disk", "a minute on disk: records/s beside raw pyzmq ipc", r"ratio ([\d.]+)", ">=", 3.0, median),
        ("readers", "instructions of a publisher for each further reader, %", r"costs ([\d.]+)%", "<=", 2.0, max),
        ("channels", "cost of a record, 1 to 1,000 channels, local", r"local: .* ratio ([\d.]+)", "<=", 1.5, median),
        ("channels", "cost of a record, 1 to 1,000 channels, ipc", r"ipc: .* ratio ([\d.]+)", "<=", 1.5, median),
        (
            "channels",
            "cost of a record, 10 to 10,000 instruments",
            r"instruments: .* ratio ([\d.]+)",
            "<=",
            1.5,
            median,
        ),
        (
            "gil",
            "beside a busy thread, until in the client's memory, p50 to idle",
            r"ratio ([\d.]+)",
            "<=",
            1.3,
            median,
        ),
        # Of the ways of waiting that it tries.
        ("ticks", "tick to risk, p50, us", r"feed>risk taken\s+[\d,]+\s+([\d.,]+)", "<=", 60.0, min),
        (
            "recovery",
            "late joiner, 5,000 instruments, ipc: LIVE after ms",
            r"ipc: .* after ([\d,]+) ms",
            "<=",
            2000.0,
            max,
        ),
        ("recovery", "replay over ipc, M records/s", r"ipc: .* ([\d.]+) M records/s", ">=", 2.0, median),
    )
    rows: list[Row] = []
    for name, what, pattern, sign, goal, of_several in wanted:
        file = folder / f"{name}.txt"
        text = file.read_text() if file.exists() else ""
        found = [float(each.replace(",", "")) for each in re.findall(pattern, text)]
        if not found:
            rows.append((what, f"{sign} {goal:g}", "was not measured", ""))
            continue
        figure = of_several(found)
        met = figure >= goal if sign == ">=" else figure <= goal
        rows.append((what, f"{sign} {goal:g}", f"{figure:g}", "met" if met else "MISSED"))
    return rows


def takeovers(folder: Path) -> list[Row]:
    """Without a goal: reported."""
    file = folder / "takeover.txt"
    found = (
        re.findall(r"takeover, (.*): median ([\d,.]+) ms, max ([\d,.]+) ms", file.read_text()) if file.exists() else []
    )
    rows = [(f"takeover, {case}, ms: median (max)", "", f"{median} ({most})", "") for case, median, most in found]
    return rows or [("takeover, ms", "", "was not measured", "")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--from", dest="made", type=Path)
    arguments = parser.parse_args()
    folder = arguments.made or arguments.keep or Path(tempfile.mkdtemp(prefix="bench-table-"))
    if arguments.made is None:
        folder.mkdir(parents=True, exist_ok=True)
        run_all(folder, arguments.rounds, arguments.seconds)
    rows = [("", "goal", "measured", ""), *ratios(folder), *numbers(folder), *takeovers(folder)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
