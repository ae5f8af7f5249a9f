"""When what is done to which process: from the actions of a config and a seed to a list of moments. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from fabric.config.topology import Action


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """One thing that is done. Times in nanoseconds from the start of the sources; ``for_ns`` 0: done at once."""

    at_ns: int
    action: str
    do: str
    node: str
    for_ns: int


def schedule(actions: Iterable[Action], seconds: float, seed: int) -> list[Moment]:
    """All moments of a run that begin within ``seconds``, in order. Each action has draws of its own, so that another
    action more or less leaves the others as they were."""
    end_ns = int(seconds * 1e9)
    moments: list[Moment] = []
    for action in actions:
        source = random.Random(f"{seed}/{action.name}")
        due_ns = action.at_ns
        while due_ns < end_ns:
            late_ns, node = int(source.random() * action.jitter_ns), source.choice(action.nodes)
            if due_ns + late_ns < end_ns:
                moments.append(Moment(due_ns + late_ns, action.name, action.do, node, action.for_ns))
            if not action.every_ns:
                break
            due_ns += action.every_ns
    return sorted(moments)
