"""Line arbitration the slow and obvious way, message by message; and random histories to try it on.

The oracle is told which numbering each packet is of; the machine has to find out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

LINES = ("A", "B")
REORDER_NS = 50
STALE_NS = 400
WINDOW = 12
"""Of histories whose numbers restart under one session."""


@dataclass(frozen=True)
class Plan:
    """What a history is made of; ``seed`` decides the rest, so that printing a plan is enough to see it again."""

    seed: int
    epochs: int = 1
    messages: int = 40
    sessions: bool = True
    """Each restart has a new session; without, numbers just go back."""
    drop: float = 0.1
    duplicate: float = 0.1
    delay: int = 20
    """A packet may come this much later than the one before it was sent."""
    skew: int = 5
    """How far line B is behind line A."""
    silences: int = 0
    """Times that a line brings nothing for a while."""
    heartbeat: float = 0.1


class Arrival(NamedTuple):
    time: int
    line: str
    epoch: int
    first: int
    count: int


def history(plan: Plan) -> list[Arrival]:
    """Where only the numbers tell a restart, lines keep order, both are heard before the first restart and never lost,
    and bring the first and last packet of each numbering: without that nobody could say where a packet belongs."""
    dice = random.Random(plan.seed)
    sent: list[tuple[int, int, int]] = []  # when, epoch, number
    clock = 1000
    for epoch in range(plan.epochs):
        for number in range(1, plan.messages + 1):
            clock += dice.choice((0, 1, 1, 2, 5, 30))
            sent.append((clock, epoch, number))
    arrivals: list[Arrival] = []
    for line in LINES:
        quiet = [
            (begin, begin + dice.randint(20, 900)) for begin in dice.choices(range(1000, clock + 1), k=plan.silences)
        ]
        late = plan.skew if line == "B" else 0
        drop = plan.drop if plan.sessions else min(plan.drop, 0.3)
        at, floor = 0, 0
        if not plan.sessions:
            arrivals.append(Arrival(999, line, 0, 1, 0))
        while at < len(sent):
            count = min(dice.randint(1, 5), len(sent) - at, plan.messages - sent[at][2] + 1)
            when, epoch, first = sent[at + count - 1][0], sent[at][1], sent[at][2]
            at += count
            edge = not plan.sessions and (first == 1 or first + count - 1 == plan.messages)
            come = when + late + dice.randint(0, plan.delay)
            if edge or not plan.sessions:
                come = floor = max(come, floor + 1)  # lines keep order where only the numbers tell a restart
            if edge or not (dice.random() < drop or any(begin <= when < end for begin, end in quiet)):
                arrivals.append(Arrival(come, line, epoch, first, count))
                if dice.random() < plan.duplicate:
                    more = dice.randint(0, 3 * REORDER_NS) if plan.sessions else 0
                    arrivals.append(Arrival(come + more, line, epoch, first, count))
            if dice.random() < plan.heartbeat and not any(begin <= when < end for begin, end in quiet):
                arrivals.append(Arrival(come, line, epoch, first + count, 0))
    arrivals.sort(key=lambda arrival: arrival.time)
    return arrivals


@dataclass
class Epoch:
    got: dict[int, str] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    next: int = 1
    highest: int = 0
    brought: dict[str, set[int]] = field(default_factory=dict)
    begin: dict[str, int] = field(default_factory=dict)
    place: dict[str, int] = field(default_factory=dict)


class Oracle:
    """``told``: ("message", epoch, number, line), ("gap", epoch, number) and ("restart", epoch) in order."""

    def __init__(self, began: int) -> None:
        self.told: list[tuple[object, ...]] = []
        self.heard = dict.fromkeys(LINES, began)
        self.epochs: dict[int, Epoch] = {}
        self.open: list[int] = []
        self.opened = 0
        self.at: dict[str, int] = {}
        self.late = dict.fromkeys(LINES, 0)
        self.old = dict.fromkeys(LINES, 0)

    def arrive(self, now: int, line: str, number: int, first: int, count: int) -> None:
        self.settle(now)
        self.heard[line] = now
        if number not in self.epochs:
            self.epochs[number] = Epoch()
            self.open.append(number)
            self.opened = now
            if len(self.open) > 2:
                self.close()
        if number not in self.open:
            self.old[line] += count
            return
        self.at[line] = max(number, self.at.get(line, 0))
        epoch = self.epochs[number]
        epoch.begin.setdefault(line, first)
        epoch.place[line] = max(epoch.place.get(line, 0), first + count)
        for missing in range(epoch.highest + 1, first):
            epoch.seen[missing] = now
        epoch.highest = max(epoch.highest, first + count - 1)
        for sequence in range(first, first + count):
            epoch.brought.setdefault(line, set()).add(sequence)
            if sequence in epoch.lost:
                epoch.lost.discard(sequence)
                self.late[line] += 1
            elif sequence >= epoch.next:
                epoch.got.setdefault(sequence, line)
        self.settle(now)

    def settle(self, now: int) -> None:
        alive = [line for line in LINES if now - self.heard[line] < STALE_NS]
        while self.open:
            number, newest = self.open[0], self.open[-1]
            epoch = self.epochs[number]
            behind = alive if number == newest else [line for line in alive if self.at.get(line) != newest]
            over = number != newest and (not behind or now - self.opened >= REORDER_NS)
            while epoch.next <= epoch.highest:
                passed = bool(behind) and all(epoch.place.get(line, 0) > epoch.next for line in behind)
                if epoch.next in epoch.got:
                    self.deliver(number)
                elif over or passed or now - epoch.seen[epoch.next] >= REORDER_NS:
                    self.give_up(number)
                else:
                    return
            if not over:
                return
            self.close()

    def deliver(self, number: int) -> None:
        epoch = self.epochs[number]
        self.told.append(("message", number, epoch.next, epoch.got[epoch.next]))
        epoch.next += 1

    def give_up(self, number: int) -> None:
        epoch = self.epochs[number]
        self.told.append(("gap", number, epoch.next))
        epoch.lost.add(epoch.next)
        epoch.next += 1

    def close(self) -> None:
        number = self.open.pop(0)
        epoch = self.epochs[number]
        while epoch.next <= epoch.highest:
            (self.deliver if epoch.next in epoch.got else self.give_up)(number)
        self.told.append(("restart", self.open[0]))

    def lacked(self, line: str) -> int:
        return sum(
            epoch.place[line]
            - epoch.begin[line]
            - len({n for n in epoch.brought.get(line, ()) if n >= epoch.begin[line]})
            for epoch in self.epochs.values()
            if line in epoch.place
        )


def plans(seed: int) -> Iterator[Plan]:
    """Plans for ever, from a seed."""
    dice = random.Random(seed)
    while True:
        sessions = dice.random() < 0.7
        yield Plan(
            seed=dice.getrandbits(32),
            epochs=dice.randint(1, 3),
            messages=dice.randint(1, 60) if sessions else dice.randint(30, 60),
            sessions=sessions,
            drop=dice.choice((0.0, 0.05, 0.3, 0.6)),
            duplicate=dice.choice((0.0, 0.1, 0.4)),
            delay=dice.choice((0, 5, 60, 200)),
            skew=dice.choice((0, 3, 40, 150)),
            silences=dice.choice((0, 0, 1, 2)) if sessions else 0,
            heartbeat=dice.choice((0.0, 0.1, 0.4)),
        )
