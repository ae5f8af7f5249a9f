"""`python bench/where_time_goes.py PROGRAM`: a program of `fabric bench` with every contestant's threads under `perf`.

    [ sender process ] ─── as in the program ───▶ [ receiver process ]
            └──────────────── perf record ────────────────┘

Prints for each thread what a record costs it, in microseconds of processor time, by what the thread was doing, and its costliest
functions. With `--pids` any running processes are sampled instead, such as the nodes of `fabric up`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fabric.bench.case import Case, Options
from fabric.bench.job import Job
from fabric.bench.process import RunFailed
from fabric.bench.profiler import Profile, missing, read, sampled
from fabric.bench.programs import MODULES, program
from fabric.bench.registry import contestants
from fabric.bench.registry import missing as absent
from fabric.bench.rounds import Runs, race
from fabric.bench.single import Measured, measure

SMALLEST = 0.02
"""The share of a thread's time below which something is "other"."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", choices=list(MODULES), default="throughput")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this contestant; may be repeated")
    parser.add_argument("--case", default="", metavar="TEXT", help="only cases with this in their title")
    parser.add_argument("--rounds", type=int, default=3, help="runs (3); the first is not counted")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--functions", type=int, default=0, metavar="N", help="also the N costliest of each thread")
    parser.add_argument("--pids", default="", metavar="P,P", help="sample these processes for --seconds")
    asked = parser.parse_args()
    if why := missing():
        print(f"where_time_goes: {why}", file=sys.stderr)
        return 2
    if asked.pids:
        return running(asked)
    entered = [each for each in contestants().values() if not asked.only or each.name in asked.only]
    if unknown := set(asked.only) - {each.name for each in entered}:
        print(f"where_time_goes: no contestant {', '.join(sorted(unknown))}; there are:", *contestants(), sep="\n  ")
        return 2
    options = Options(rounds=max(2, asked.rounds), seconds=asked.seconds, only=tuple(asked.only))
    for case in program(asked.program).cases(options):
        if asked.case in case.title:
            for contestant in entered:
                if case.takes(contestant) and not absent(contestant):
                    one(case, contestant.name, options, asked.functions)
    return 0


def one(case: Case, name: str, options: Options, functions: int) -> None:
    """One contestant in one case: a few runs, sampled."""
    profile, records = Profile(), 0

    def watched(job: Job, cpus: tuple[list[int], list[int]]) -> Measured:
        nonlocal records
        found: dict[int, str] = {}
        with tempfile.TemporaryDirectory(prefix="fabric-perf-") as directory:
            data = Path(directory) / "perf.data"

            def watch(roles: Mapping[int, str]) -> AbstractContextManager[None]:
                found.update(roles)
                return sampled(roles, data)

            made = measure(job, cpus, watch)
            if job.seed:  # not the first, nor those that only find out how many records make a second
                profile.merge(read(data, found))
                records += job.count
        return made

    runs: list[Runs] = race(case, [contestants()[name]], options, sorted(os.sched_getaffinity(0)), measure=watched)
    print(f"\n{case.program}, {case.title}: {name}")
    if runs[0].failure:
        print("  FAILED:", runs[0].failure)
        return
    good = runs[0].good
    middle = sorted(good, key=lambda each: each.rate)[len(good) // 2]
    print(f"  {middle.rate:,.0f} records/s, {middle.cpu_us:.2f} us of processor time a record")
    table(profile, records, "us a record", functions)


def running(asked: argparse.Namespace) -> int:
    """Processes that somebody else has started."""
    roles = {}
    for pid in map(int, asked.pids.split(",")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            print(f"where_time_goes: there is no process {pid}", file=sys.stderr)
            return 2
        roles[pid] = f"{pid} {' '.join(words)[-40:]}"
    with tempfile.TemporaryDirectory(prefix="fabric-perf-") as directory:
        data = Path(directory) / "perf.data"
        with sampled(roles, data):
            time.sleep(asked.seconds)
        profile = read(data, roles)
    table(profile, asked.seconds * 1e4, "% of a CPU", asked.functions)
    return 0


def table(profile: Profile, count: float, unit: str, functions: int) -> None:
    for thread in profile.threads:
        doing, total = profile.doing[thread], profile.doing[thread].total()
        each = {what: profile.seconds(thread, what) * 1e6 / count for what in doing}
        shown = [what for what, samples in doing.most_common() if samples >= SMALLEST * total]
        rest = sum(each.values()) - sum(each[what] for what in shown)
        parts = [f"{what} {each[what]:.2f}" for what in shown] + ([f"other {rest:.2f}"] if rest else [])
        print(f"  {' '.join(thread):28} {sum(each.values()):7.2f} {unit}: {', '.join(parts)}")
        for symbol, samples in profile.symbols[thread].most_common(functions):
            print(f"      {samples / total:6.1%}  {symbol}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunFailed as error:
        sys.exit(f"where_time_goes: {error}")
