"""A whole ``fabric bench``: who takes part, every case of every program, and what is left of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fabric.bench import host
from fabric.bench.case import Options
from fabric.bench.disturbance import RULE
from fabric.bench.job import Contestant
from fabric.bench.output import program_text, result_plain, result_text
from fabric.bench.programs import program
from fabric.bench.registry import contestants, missing
from fabric.bench.results import Result, result_of
from fabric.bench.rounds import race
from fabric.bench.single import sweep

Say = Callable[[str], Any]
SCHEMA = 1


@dataclass(slots=True)
class Outcome:
    options: Options
    facts: dict[str, Any]
    absent: dict[str, str]
    """Peers that could not take part, and why."""
    results: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Cases that this machine can't run, and why."""

    @property
    def failed(self) -> bool:
        return any(result.failures for result in self.results)

    def plain(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "host": self.facts,
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "quick": self.options.quick,
            "absent": self.absent,
            "left_out": self.left_out,
            "cases": [result_plain(result) for result in self.results],
        }

    def page(self) -> str:
        from fabric.bench.page import render

        return render(self.results, self.facts, self.absent)


def run(names: Sequence[str], options: Options, say: Say, progress: Say) -> Outcome:
    """``say`` is told finished text, ``progress`` what is being done."""
    sweep()
    allowed = host.allowed_cpus()
    entered, absent = _present(options)
    outcome = Outcome(options, host.facts([*sys.orig_argv[1:]], allowed), absent)
    say(_head(outcome.facts))
    for name in names:
        say(program_text(name))
        for case in program(name).cases(options):
            if why := case.lacks(allowed):
                outcome.left_out[f"{name}: {case.title}"] = why
                say(f"\n{name}: {case.title}\n  left out: {why}")
                continue
            taking = [each for each in entered if case.takes(each)]
            result = result_of(case, race(case, taking, options, allowed, progress))
            progress("")
            outcome.results.append(result)
            say(result_text(result))
    say("\n" + "\n".join([RULE, "ratio: above 1 ours is better; the median of pairs, each of one round"]))
    for peer, why in absent.items():
        say(f"left out: {peer}: {why}")
    return outcome


def _present(options: Options) -> tuple[list[Contestant], dict[str, str]]:
    present, absent = [], {}
    for contestant in contestants().values():
        if contestant.name not in options.only if options.only else contestant.optional and not options.peers:
            continue
        if why := missing(contestant):
            absent[contestant.name] = why
        else:
            present.append(contestant)
    return present, absent


def _head(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, governor {facts['governor']}, "
        f"load {facts['load'][0]:.2f}; Python {facts['python']}, pyzmq {facts['pyzmq']}, libzmq {facts['libzmq']}"
    )
