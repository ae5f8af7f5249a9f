"""Interleaved rounds: in each, every contestant runs once, so that what the machine does meanwhile meets all of them.

A disturbed run is repeated at once, twice at most. If it is disturbed still, that contestant's pairs of this round are
dropped, and a round more is made, up to half as many again. If there are too few complete rounds after that, the least
disturbed ones are completed by their disturbed runs, and the output says how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fabric.bench.case import Case, Options
from fabric.bench.job import Contestant, Job
from fabric.bench.process import RunFailed
from fabric.bench.single import Measured, measure

REPEATS = 2
_PILOT_RECORDS = 4_000
_QUICK_RECORDS = 3_000
_SHORT = 0.25
"""The share of a run's time below which a first run is made again, longer."""
Measure = Callable[[Job, tuple[list[int], list[int]]], Measured]
Say = Callable[[str], None]


@dataclass(slots=True)
class Runs:
    """What one contestant did in one case. ``kept`` has one for each round, None where all were disturbed."""

    contestant: Contestant
    count: int = 0
    kept: list[Measured | None] = field(default_factory=list)
    disturbed: list[tuple[int, Measured]] = field(default_factory=list)
    """By round, all of them."""
    failure: str = ""

    @property
    def dropped(self) -> int:
        return len(self.disturbed)

    @property
    def filled(self) -> int:
        """Rounds for which a disturbed run stands."""
        return sum(1 for run in self.kept if run is not None and run.disturbed)

    @property
    def good(self) -> list[Measured]:
        return [run for run in self.kept if run is not None]

    def least_disturbed(self, number: int) -> Measured:
        """Of the runs of a round that was dropped."""
        return min((run for at, run in self.disturbed if at == number), key=lambda run: run.others)


def complete(racing: Sequence[Runs]) -> list[int]:
    """The rounds in which everybody has a run."""
    return [number for number, kept in enumerate(zip(*(runs.kept for runs in racing), strict=True)) if None not in kept]


def fill(racing: Sequence[Runs], wanted: int) -> None:
    """Complete the rounds that were disturbed least, until there are as many as wanted: whole rounds, so that there are
    pairs."""
    done = set(complete(racing))
    lacking = {
        number: [runs for runs in racing if runs.kept[number] is None]
        for number in range(len(racing[0].kept) if racing else 0)
        if number not in done
    }
    worst = {number: max(each.least_disturbed(number).others for each in lacks) for number, lacks in lacking.items()}
    for number in sorted(worst, key=worst.__getitem__)[: max(0, wanted - len(done))]:
        for runs in lacking[number]:
            runs.kept[number] = runs.least_disturbed(number)


def race(
    case: Case,
    entered: Sequence[Contestant],
    options: Options,
    allowed: Sequence[int],
    say: Say = lambda text: None,
    measure: Measure = measure,
) -> list[Runs]:
    """All rounds of one case. A contestant that fails once is out, with the reason."""
    runners = [Runs(contestant) for contestant in entered]
    cpus = case.cpus(allowed)
    for runs in runners:
        try:
            runs.count = _count(case, runs.contestant, options, cpus, measure)
        except RunFailed as error:
            runs.failure = str(error)
    most = options.rounds + (0 if options.quick else (options.rounds + 1) // 2)
    number = 0
    while number < most:
        racing = [runs for runs in runners if not runs.failure]
        if not racing or (number >= options.rounds and len(complete(racing)) >= options.rounds):
            break
        for runs in racing:
            say(f"{case.program}, {case.title}: round {number + 1} of {options.rounds}, {runs.contestant.name}")
            try:
                _one(case, runs, number, cpus, measure, 0 if options.quick else REPEATS)
            except RunFailed as error:
                runs.failure = str(error)
        number += 1
    fill([runs for runs in runners if not runs.failure], options.rounds)
    return runners


def _one(
    case: Case, runs: Runs, number: int, cpus: tuple[list[int], list[int]], measure: Measure, repeats: int
) -> None:
    runs.kept.append(None)
    for _ in range(1 + repeats):
        made = measure(case.job(runs.contestant, runs.count, number), cpus)
        if not made.disturbed:
            runs.kept[number] = made
            return
        runs.disturbed.append((number, made))


def _count(
    case: Case, contestant: Contestant, options: Options, cpus: tuple[list[int], list[int]], measure: Measure
) -> int:
    """Records of a run, so that it takes about as long as asked for: from the rate, or from that of a short run before."""
    step = case.per_message
    if case.is_latency:
        count = max(200, int(case.rate * options.seconds))
    elif options.quick:
        count = _QUICK_RECORDS
    else:
        pilot = max(_PILOT_RECORDS, 2 * case.channels) * (8 if step > 1 else 1)
        rate = measure(case.job(contestant, pilot // step * step, 0), cpus).rate
        if pilot < rate * options.seconds * _SHORT:  # over before it was under way: what it says is too low
            longer = min(case.most(), int(rate * options.seconds * _SHORT))
            rate = max(rate, measure(case.job(contestant, longer // step * step, 0), cpus).rate)
        count = max(pilot, int(rate * options.seconds))
    return max(step, min(case.most(), count) // step * step)
