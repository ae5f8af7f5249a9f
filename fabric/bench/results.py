"""From runs to rows: medians over rounds, and ours beside each peer, pair by pair."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from fabric.bench.case import Case
from fabric.bench.goals import goal_of
from fabric.bench.job import Contestant
from fabric.bench.rounds import Runs
from fabric.bench.single import Measured
from fabric.bench.statistics import Ratio, histogram_of, percentiles, ratio_of_pairs
from native.histogram import BYTES, Histogram

_PLACE = {"local": ("local", "ipc"), "ipc": ("ipc", "local"), "tcp": ("tcp",), "process": ("process",)}
"""By a peer's transport: that of ours which it is compared with, the first that there is."""


@dataclass(slots=True)
class Row:
    """One contestant in one case. Times in ns; every figure is the median over rounds."""

    contestant: Contestant
    idle: str
    records: int
    rounds: int
    dropped: int
    """Runs that were disturbed and repeated."""
    filled: int
    """Rounds for which a disturbed run stands, because no other was to be had."""
    rate: float
    cpu_us: float
    latency_ns: dict[str, float]
    from_send_ns: dict[str, float]
    curve: list[tuple[float, int]]
    """Percent and ns, of all rounds together."""
    runs: list[dict[str, Any]]


@dataclass(slots=True)
class Comparison:
    ours: str
    peer: str
    ratio: Ratio
    goal: float | None

    @property
    def met(self) -> bool | None:
        """The interval's lower end is what counts."""
        return None if self.goal is None else self.ratio.low >= self.goal


@dataclass(slots=True)
class Result:
    case: Case
    rows: list[Row]
    comparisons: list[Comparison]
    failures: dict[str, str]


def result_of(case: Case, runners: list[Runs]) -> Result:
    done = [runs for runs in runners if not runs.failure and runs.good]
    rows = [_row(case, runs) for runs in done]
    comparisons = []
    for ours, peer in _pairs([runs.contestant for runs in done]) if case.judged else []:
        ratio = _ratio(case, _named(done, ours), _named(done, peer))
        if ratio is not None:
            comparisons.append(Comparison(ours, peer, ratio, goal_of(case.program, case.title, ours, peer)))
    failures = {runs.contestant.name: runs.failure for runs in runners if runs.failure}
    return Result(case, rows, comparisons, failures)


def _named(runners: list[Runs], name: str) -> Runs:
    return next(runs for runs in runners if runs.contestant.name == name)


def _pairs(present: list[Contestant]) -> list[tuple[str, str]]:
    """Each peer beside ours over the same transport in the same kind of loop; ours local beside plain ipc as well."""
    pairs = []
    for peer in present:
        if peer.ours:
            continue
        for native in (False, True):
            own = {
                each.transport: each.name
                for each in present
                if each.ours and each.loop == peer.loop and each.name.startswith("ours native") == native
            }
            chosen = next((own[place] for place in _PLACE[peer.transport] if place in own), None)
            if chosen is not None:
                pairs.append((chosen, peer.name))
            if peer.transport == "ipc" and "local" in own:
                pairs.append((own["local"], peer.name))
    return sorted(dict.fromkeys(pairs))


def _ratio(case: Case, ours: Runs, peer: Runs) -> Ratio | None:
    """Over the rounds in which both have a run."""
    both = [(a, b) for a, b in zip(ours.kept, peer.kept, strict=False) if a is not None and b is not None]
    if not both:
        return None
    own, theirs = [_figure(case, a) for a, _ in both], [_figure(case, b) for _, b in both]
    return ratio_of_pairs(theirs, own) if case.is_latency else ratio_of_pairs(own, theirs)


def _figure(case: Case, run: Measured) -> float:
    if not case.is_latency:
        return run.rate
    return percentiles(run.from_send_ns if case.pins == "same-cpu" else run.latencies_ns)["50"]


def _row(case: Case, runs: Runs) -> Row:
    good = runs.good
    latency = [percentiles(run.latencies_ns) for run in good] if case.is_latency else []
    from_send = [percentiles(run.from_send_ns) for run in good] if case.is_latency else []
    histogram = Histogram(bytearray(BYTES))
    for run in good:
        histogram_of(run.latencies_ns, histogram)
    plain = [
        {**run.plain(), **({"latency_ns": found} if found else {})}
        for run, found in zip(good, latency or [{}] * len(good), strict=True)
    ]
    return Row(
        runs.contestant,
        case.idle_of(runs.contestant),
        runs.count,
        len(good),
        runs.dropped,
        runs.filled,
        statistics.median(run.rate for run in good),
        statistics.median(run.cpu_us for run in good),
        _medians(latency),
        _medians(from_send),
        curve_of(histogram),
        plain,
    )


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in (rounds[0] if rounds else {})}


def curve_of(histogram: Histogram) -> list[tuple[float, int]]:
    """Percentiles as dense as there are values to tell them: 50 steps for each nine."""
    points = []
    share, count = 1.0, histogram.count
    while count and share * count >= 1.0:
        points.append((100.0 * (1.0 - share), histogram.percentile_ns(100.0 * (1.0 - share))))
        share /= 10.0**0.02
    return points
