"""The table of transitions in ARCHITECTURE.md says exactly what the subscription machine does: every transition that is seen
in random histories stands there, and each that stands there is seen."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from fabric.protocol.requests import Reply, Status
from fabric.protocol.subscription import Subscription
from fabric.protocol.types import Limits, Start, State

ARCHITECTURE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"
HISTORIES = 20_000
LIMITS = Limits(max_held_records=20, max_queued_records=30, max_request_records=10)
PAUSES_NS = (0, 0, 1_000_000, 1_000_000_000, 40_000_000_000)
METHODS = ("on_data", "on_heartbeat", "on_reply", "on_time", "on_log", "on_log_begins")
REPLIES = {
    Status.INFO: "INFO",
    Status.DATA: "replayed DATA",
    Status.UNAVAILABLE: "UNAVAILABLE",
    Status.SNAPSHOT: "SNAPSHOT",
    Status.NO_IMAGE: "NO_IMAGE",
    Status.UNKNOWN_SESSION: "UNKNOWN_SESSION",
    Status.UNKNOWN_CHANNEL: "refusal",
    Status.BAD_REQUEST: "refusal",
}
Transition = tuple[str, str, str]
"""State before, input, state after."""


def input_of(method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    if method == "on_reply":
        return REPLIES[arguments[0].status]
    if method == "on_heartbeat":
        return "END" if named["end"] else "HEARTBEAT"
    return {"on_data": "DATA", "on_time": "time", "on_log": "log", "on_log_begins": "log"}[method]


def random_history(random: Random) -> None:
    """Inputs in any order, of three sessions, from a publisher and a log server that say whatever comes into their heads."""
    sessions = [(epoch << 32) | epoch for epoch in (1, 2, 3)]
    base = sessions[random.choice((0, 0, 0, 1))]
    starts = [Start.live(), Start.first(), Start.snapshot(), Start.at(3, base), Start.resync(3, base), Start.time(1)]
    machine = Subscription(1, random.choice(starts), LIMITS, schema=5, jitter=random.random)
    machine.mapped = random.random() < 0.2
    image = random.choice(("none", "last"))
    now_ns = 0
    for _ in range(random.randrange(5, 40)):
        now_ns += random.choice(PAUSES_NS)
        machine.on_time(now_ns)  # what is due by then is due to time, not to what comes next
        one_input(machine, random, random.choice([machine.session or base] * 6 + sessions), image, now_ns)


def one_input(machine: Subscription, random: Random, session: int, image: str, now_ns: int) -> None:
    first = random.choice((machine.seen + 1, machine.delivered + 1, random.randrange(1, 20)))
    records = np.arange(random.randrange(1, 5))
    what = random.random()
    if what < 0.3:
        machine.on_data(session, first, records, now_ns)
    elif what < 0.4:
        machine.on_heartbeat(session, first, now_ns, end=random.random() < 0.3)
    elif what < 0.5:
        machine.on_time(now_ns)
    elif what < 0.55 and machine.mapped and machine.plain:
        machine.on_log_begins(machine.seen + random.randrange(1, 4), now_ns)
    elif what < 0.6 and machine.mapped and (wanted := machine.wanted()) is not None:
        machine.on_log(wanted[0], np.arange(wanted[1] - wanted[0] + 1), now_ns)
    elif what < 0.9:
        machine.on_reply(*reply(machine, random, session, first, records, image, now_ns))
    else:
        while machine.take() is not None:
            pass


def reply(
    machine: Subscription, random: Random, session: int, first: int, records: Any, image: str, now_ns: int
) -> tuple[Any, ...]:
    """An answer to what was asked last, or to something long ago."""
    request = machine.requests[-1].id if machine.requests else 0
    status = random.choice(list(REPLIES))
    extra = {"schema": random.choice((5, 5, 5, 6)), "image": image, "at": first} if status == Status.INFO else {}
    parent = session - ((1 << 32) | 1) if session >> 32 > 1 else 0
    following, state = first + len(records), random.choice((1, 1, 2, 3))
    answer = Reply(
        request, status, 1, session, 1, random.randrange(1, 12), following, state, parent, random.randrange(12), 1, 1,
        extra,
    )  # fmt: skip
    carries = status in (Status.DATA, Status.SNAPSHOT)
    return (answer, now_ns, first, records) if carries else (answer, now_ns)


def recording(method: str, found: set[Transition], nested: list[bool]) -> Callable[..., Any]:
    original = getattr(Subscription, method)

    @functools.wraps(original)
    def recorded(self: Subscription, *arguments: Any, **named: Any) -> Any:
        if nested:  # an input that lets time pass as well is one input
            return original(self, *arguments, **named)
        nested.append(True)
        before = str(self.state)
        try:
            return original(self, *arguments, **named)
        finally:
            nested.clear()
            found.add((before, input_of(method, arguments, named), str(self.state)))

    return recorded


def run_histories(count: int) -> set[Transition]:
    found: set[Transition] = set()
    nested: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        for method in METHODS:
            patch.setattr(Subscription, method, recording(method, found, nested))
        for seed in range(count):
            random_history(Random(seed))
    return found


@pytest.fixture(scope="module")
def seen() -> set[Transition]:
    return run_histories(HISTORIES)


def written() -> set[Transition]:
    """The table: a row for each state, a column for each input, and in the cells the states that may follow."""
    text = ARCHITECTURE.read_text()
    match = re.search(r"^\| from \\ input \|.*?(?=\n\n)", text, re.S | re.M)
    assert match, r"ARCHITECTURE.md has no table that begins with `| from \ input |`"
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match.group().splitlines()]
    return {
        (row[0], name, after.strip())
        for row in rows
        for name, cell in zip(head[1:], row[1:], strict=True)
        for after in cell.split(",")
        if after.strip()
    }


def test_the_table_names_every_state() -> None:
    assert {before for before, _, _ in written()} == {str(state) for state in State if state != State.CLOSED}


def test_no_transition_is_undocumented(seen: set[Transition]) -> None:
    assert sorted(seen - written()) == []


def test_every_documented_transition_is_seen(seen: set[Transition]) -> None:
    missing = sorted(written() - seen)
    assert not missing, missing
