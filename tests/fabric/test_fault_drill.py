"""The loop over the supervisor's children, with children that only note what is done to them, and a clock of the test's."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from fabric.config.load import load_topology
from fabric.config.plan import Plan, make_plan
from fabric.config.topology import Action, FaultSection
from fabric.fault.drill import DRAIN_DEADLINE_NS, Drill, Stage
from fabric.rundir import RunDirectory
from fabric.runtime.page import NodeState
from fabric.transport.faultpage import FaultPage
from fabric.transport.faults import FaultPlan

S = 10**9
DEMO = Path(__file__).parents[2] / "configs" / "demo.toml"


class Child:
    def __init__(self, pid: int) -> None:
        self.pid: int | None = pid
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.pid = None


class Machine:
    """A supervisor, its children and their pages, as a drill sees them."""

    def __init__(self, plan: Plan, run: Path, section: FaultSection, seconds: float) -> None:
        self.plan = plan
        self.run_directory = RunDirectory(run)
        self.fault: FaultPlan | None = section.plan
        names = [*plan.nodes, "log-server"]
        self.children = {name: Child(pid) for pid, name in enumerate(names, start=100)}
        self.pages: dict[str, dict[str, int]] = {name: self.page(name) for name in plan.nodes}
        self.stops = 0
        self.said: list[str] = []
        self.now_ns = 7 * S
        self.faults = FaultPage.create(run, list(plan.nodes))
        self.drill = Drill(section, seconds, lambda name, line: self.said.append(line), lambda: self.now_ns)

    def page(self, name: str) -> dict[str, int]:
        return {"pid": self.children[name].pid or 0, "state": NodeState.RUNNING}

    def stop(self) -> None:
        self.stops += 1

    def run(self, seconds: float) -> None:
        """Steps, twenty to a second."""
        for _ in range(round(seconds * 20)):
            self.now_ns += S // 20
            self.drill.step(self)  # type: ignore[arg-type]

    def begin(self) -> None:
        self.run_directory.gate.touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a Machine of the demo's nodes for these actions."""
    plan = make_plan(load_topology(DEMO))

    class Page(dict[str, int]):
        def get(self, name: str, default: Any = 0) -> Any:
            return super().get(name, 0)

    def make(*actions: Action, seconds: float = 10.0) -> Machine:
        made = Machine(plan, tmp_path, FaultSection(FaultPlan(drop=0.1), actions), seconds)
        pages = lambda plan, run: {name: Page(page) for name, page in made.pages.items()}  # noqa: E731
        monkeypatch.setattr("fabric.fault.drill.open_pages", pages)
        return made

    return make


def test_nothing_is_done_before_the_sources_start(machine: Any) -> None:
    made = machine(Action("a", "kill", ("feed",), S))
    made.run(5)
    assert made.drill.stage is Stage.WAITING
    assert made.children["feed"].signals == []
    made.begin()
    made.run(0.9)
    assert made.children["feed"].signals == []
    made.run(0.3)
    assert made.children["feed"].signals == [signal.SIGKILL]


def test_a_kill_waits_until_the_process_has_been_at_work(machine: Any) -> None:
    made = machine(Action("a", "kill", ("feed",), S, S))
    made.begin()
    made.run(2)
    assert made.children["feed"].signals == [signal.SIGKILL]
    made.run(3)  # nothing runs yet
    assert made.children["feed"].signals == [signal.SIGKILL]
    made.children["feed"].pid = 200
    made.run(1)
    assert made.children["feed"].signals == [signal.SIGKILL]  # its page is still that of the life before
    made.pages["feed"] = made.page("feed")
    made.run(1)
    assert made.children["feed"].signals == [signal.SIGKILL]
    made.run(0.5)
    assert made.children["feed"].signals == [signal.SIGKILL] * 2


def test_a_pause_ends_after_its_time_and_a_stall_is_one_of_the_log_server(machine: Any) -> None:
    made = machine(
        Action("p", "pause", ("risk",), 2 * S, for_ns=S), Action("s", "stall", ("log-server",), 2 * S, for_ns=S)
    )
    made.begin()
    made.run(2.5)
    assert made.children["risk"].signals == made.children["log-server"].signals == [signal.SIGSTOP]
    made.run(1)
    assert made.children["risk"].signals == made.children["log-server"].signals == [signal.SIGSTOP, signal.SIGCONT]


def test_one_that_was_killed_while_it_stood_still_is_not_told_to_go_on(machine: Any) -> None:
    made = machine(Action("p", "pause", ("risk",), 2 * S, for_ns=S))
    made.begin()
    made.run(2.5)
    made.children["risk"].pid = 300
    made.run(2)
    assert made.children["risk"].signals == [signal.SIGSTOP]


def test_a_partition_stands_on_the_page_as_a_deadline(machine: Any) -> None:
    made = machine(Action("c", "partition", ("pricing",), 2 * S, for_ns=3 * S))
    made.begin()
    made.run(2.1)
    until_ns = made.faults.cut_until_ns("pricing")
    assert 2.8 * S < until_ns - made.now_ns <= 3 * S
    assert made.faults.cut_until_ns("feed") == 0


def test_at_the_end_faults_go_off_everyone_goes_on_and_is_waited_for(machine: Any) -> None:
    made = machine(Action("p", "pause", ("risk",), 2 * S, for_ns=60 * S), seconds=3.0)
    made.begin()
    made.drill._targets["demo.quote"] = (5 << 32, 100)
    made.run(2.9)
    assert (made.faults.off, made.stops) == (False, 0)
    made.run(0.3)
    assert made.faults.off
    assert made.children["risk"].signals == [signal.SIGSTOP, signal.SIGCONT]
    assert made.drill.stage is Stage.DRAINING
    made.pages["pricing"].update({"in.quote.session": 5 << 32, "in.quote.delivered": 99})
    made.run(5)
    assert made.stops == 0
    made.pages["pricing"]["in.quote.delivered"] = 100
    made.run(0.1)
    assert (made.stops, made.drill.left_behind, made.drill.stage) == (1, [], Stage.ENDING)


def test_one_that_does_not_catch_up_is_named(machine: Any) -> None:
    made = machine(seconds=1.0)
    made.begin()
    made.drill._targets["demo.quote"] = (5 << 32, 100)
    made.pages["pricing"].update({"in.quote.session": 5 << 32, "in.quote.delivered": 42})
    made.run(2 + DRAIN_DEADLINE_NS / S)
    assert made.drill.left_behind == ["pricing.quote has not caught up with demo.quote: 42 of 100"]
    assert made.stops == 1


def test_ctrl_c_ends_the_faults_and_a_second_one_the_run(machine: Any) -> None:
    made = machine(Action("a", "kill", ("feed",), 5 * S))
    made.begin()
    made.run(1)
    made.drill._targets["demo.quote"] = (5 << 32, 100)
    made.drill.end(made)
    made.run(0.2)
    assert (made.drill.stage, made.faults.off, made.stops) == (Stage.DRAINING, True, 0)
    assert made.children["feed"].signals == []
    made.drill.end(made)
    assert made.stops == 1
