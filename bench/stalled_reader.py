"""`python bench/stalled_reader.py`: what one reader that stops for 10 s costs its publisher and the other readers.

    publisher ── 50,000 records/s ──┬──▶ healthy reader     latency of each record, from ts_publish_ns to its own code
       (CPU a record)               └──▶ stalled reader     reads 2 s, is stopped (SIGSTOP) or sleeps for 10 s, reads on

Three processes. Each pair of runs is one without the stalled reader and one with it, in turns; both are measured over the
same 10 s, the stall. The figures are medians over the pairs. Then the stalled reader recovers: the time from its going on
until it has read all that had been published by then, while the publisher goes on at the same rate. Both readers check the
sequence and content of every record, up to the last one; one that is missing or there twice ends the benchmark with an error.
Run it on an idle machine: with three busy processes, whatever else runs is in the figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import fabric
from fabric.bench.ports import free_endpoints
from fabric.log.writer import LogOptions

TICK = fabric.record("stalled_tick", image="last", value="u8", a="f8", b="f8", c="f8")
LEAD_S, TAIL_S = 2.0, 4.0
TICK_S = 0.001
WAIT_S = 60.0
Endpoints = tuple[str, str]


def publish(folder: Path, endpoints: Endpoints, rate: int, told: Connection) -> None:
    """Sends each millisecond what is due, one record a call, until told to end. Tells its CPU time and count by the clock."""
    options = LogOptions(retain_bytes=1 << 30, segment_bytes=16 << 20)
    with fabric.publish(
        "ticks", TICK, listen=endpoints[0], replay=endpoints[1], log_dir=folder / "log", options=options
    ) as out:
        told.send("ready")
        told.recv()
        samples: list[tuple[float, float, int]] = []
        began_s, sent, late = time.monotonic(), 0, 0
        while not told.poll():
            now_s = time.monotonic()
            due = int((now_s - began_s) * rate)
            late = max(late, due - sent)
            while sent < due:
                sent += 1
                out.send(instrument=sent % 100, value=sent)
            if not samples or now_s - samples[-1][0] >= 0.1:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                samples.append((now_s, usage.ru_utime + usage.ru_stime, sent))
            time.sleep(max(0.0, TICK_S - (time.monotonic() - now_s)))
        out.end()
        told.recv()
        told.send((samples, sent, late))
        told.recv()  # its log server answers until the readers are through


def read(endpoints: Endpoints, path: str, stall_s: float, told: Connection) -> None:
    """Reads and checks all there is. With ``stall_s`` it sleeps for as long when it is told to."""
    arrivals: list[tuple[float, np.ndarray[Any, Any]]] = []
    with fabric.subscribe(
        "ticks", data=endpoints[0], replay=endpoints[1], path=path, start="live", record=TICK
    ) as ticks:
        ticks.wait_live(WAIT_S)
        told.send("ready")
        following = 1
        for batch in ticks:
            now_ns = time.time_ns()
            values = batch.records["value"]
            expected = np.arange(following, following + len(values), dtype=np.uint64)
            if batch.first != following or not np.array_equal(values, expected):
                raise SystemExit(f"not what comes after {following - 1}: {batch}")
            following += len(values)
            ages_ns = now_ns - batch.records["ts_publish_ns"]
            arrivals.append((time.monotonic(), ages_ns))
            if told.poll():
                told.recv()
                arrivals.clear()
                time.sleep(stall_s)
        counters = ticks.counters
        assert counters.lost == counters.skipped == counters.conflated == 0, counters
        at_s = np.repeat([at for at, _ in arrivals], [len(ages) for _, ages in arrivals])
        told.send((following - 1, counters.replayed, at_s, np.concatenate([ages for _, ages in arrivals])))


def endpoints_of(path: str, folder: Path) -> Endpoints:
    if path != "tcp":
        return f"ipc://{folder}/data", f"ipc://{folder}/replay"
    live, replay = free_endpoints(2)
    return live, replay


class Process:
    def __init__(self, target: Any, *arguments: Any) -> None:
        self.told, theirs = multiprocessing.get_context("spawn").Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=target, args=(*arguments, theirs), daemon=True
        )
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        if not self.told.poll(WAIT_S):
            raise SystemExit(f"{self.process} says nothing")
        return self.told.recv()

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def run(path: str, rate: int, stall_s: float, how: str) -> dict[str, float]:
    """One run; ``how`` is "none", "stop" or "sleep"."""
    folder = Path(tempfile.mkdtemp(prefix="zmf-stalled-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    processes: list[Process] = []
    try:
        endpoints = endpoints_of(path, folder)
        publisher = Process(publish, folder, endpoints, rate)
        processes.append(publisher)
        assert publisher.hear() == "ready"
        healthy = Process(read, endpoints, path, 0.0)
        processes.append(healthy)
        stalled = None
        if how != "none":
            stalled = Process(read, endpoints, path, stall_s)
            processes.append(stalled)
        for each in processes[1:]:
            assert each.hear() == "ready"
        publisher.told.send("go")
        time.sleep(LEAD_S)
        begin_s = time.monotonic()
        if stalled is not None and how == "stop":
            os.kill(stalled.process.pid or 0, signal.SIGSTOP)
        elif stalled is not None:
            stalled.told.send("stall")
        time.sleep(stall_s)
        end_s = time.monotonic()
        if stalled is not None and how == "stop":
            os.kill(stalled.process.pid or 0, signal.SIGCONT)
        time.sleep(TAIL_S)
        publisher.told.send("end")
        samples, sent, late = publisher.hear()
        found = {"late_records": float(late)}
        for name, reader in (("healthy", healthy), ("stalled", stalled)):
            if reader is None:
                continue
            last, replayed, at_s, ages_ns = reader.hear()
            if last != sent:
                raise SystemExit(f"the {name} reader had {last} of {sent} records")
            if name == "healthy":
                found |= latency(ages_ns[(begin_s <= at_s) & (at_s < end_s)], "")
                found |= latency(ages_ns[(end_s <= at_s) & (at_s < end_s + TAIL_S)], "after_")
            else:
                newer = np.flatnonzero(at_s - ages_ns / 1e9 >= end_s)
                found |= {"recovery_s": float(at_s[newer[0]]) - end_s, "replayed": float(replayed)}
        publisher.told.send("bye")
        return found | cpu(samples, begin_s, end_s)
    finally:
        for each in processes:
            each.end()
        shutil.rmtree(folder, ignore_errors=True)


def latency(ages_ns: np.ndarray[Any, Any], prefix: str) -> dict[str, float]:
    p50_ns, p99_ns = np.percentile(ages_ns, (50, 99))
    return {f"{prefix}p50_us": float(p50_ns) / 1000, f"{prefix}p99_us": float(p99_ns) / 1000}


def cpu(samples: list[tuple[float, float, int]], begin_s: float, end_s: float) -> dict[str, float]:
    within = [each for each in samples if begin_s <= each[0] <= end_s]
    (_, cpu_s, first), (_, cpu_end_s, last) = within[0], within[-1]
    return {
        "publisher_us": (cpu_end_s - cpu_s) * 1e6 / (last - first),
        "rate": (last - first) / (within[-1][0] - within[0][0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", default="local,ipc,tcp")
    parser.add_argument(
        "--how", default="stop", choices=("stop", "sleep"), help="SIGSTOP its process, or only stop reading"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rate", type=int, default=50_000, help="records a second")
    parser.add_argument("--stall", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()
    for path in arguments.paths.split(","):
        without: list[dict[str, float]] = []
        beside: list[dict[str, float]] = []
        for pair in range(arguments.pairs):
            order = ((without, "none"), (beside, arguments.how))
            for kept, how in order if pair % 2 == 0 else reversed(order):
                kept.append(run(path, arguments.rate, arguments.stall, how))
                shown = {name: round(value, 3) for name, value in kept[-1].items()}
                print(f"  {path} pair {pair + 1} {how:5} {shown}", flush=True)
        print(
            f"{path}, {arguments.rate} records/s, {arguments.how} for {arguments.stall} s, {arguments.pairs} pairs: medians"
        )
        for name in ("publisher_us", "p50_us", "p99_us"):
            alone = statistics.median(each[name] for each in without)
            both = statistics.median(each[name] for each in beside)
            ratio = statistics.median(b[name] / a[name] - 1 for a, b in zip(without, beside, strict=True))
            print(
                f"  {name:14} without {alone:9.2f}   with {both:9.2f}   median of the pairs' differences {ratio:+.1%}"
            )
        for name in ("recovery_s", "after_p50_us", "after_p99_us", "replayed"):
            print(f"  {name:14} {statistics.median(each[name] for each in beside):12.3f}")


if __name__ == "__main__":
    main()
