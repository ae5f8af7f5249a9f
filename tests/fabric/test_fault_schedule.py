"""[fault] in a config and in a script: what is said of mistakes, and when what is done to whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric.config.fault import read_script
from fabric.config.load import load_topology
from fabric.config.topology import Action
from fabric.errors import ConfigError
from fabric.fault.schedule import Moment, schedule
from fabric.transport.faults import FaultPlan

S = 10**9
CHAOS = Path(__file__).parents[2] / "configs" / "chaos.toml"
NODES = ["feed", "pricing", "risk"]


def test_an_action_at_a_time_and_one_that_comes_again() -> None:
    once = Action("once", "pause", ("risk",), 3 * S, for_ns=2 * S)
    again = Action("again", "kill", ("feed",), 5 * S, 5 * S)
    assert schedule([again, once], 20.0, 1) == [
        Moment(3 * S, "once", "pause", "risk", 2 * S),
        *(Moment(at * S, "again", "kill", "feed", 0) for at in (5, 10, 15)),
    ]


def test_the_seed_decides_who_and_how_late_and_nothing_else_does() -> None:
    either = Action("either", "kill", ("pricing", "risk"), 1 * S, 1 * S, jitter_ns=S // 2)
    drawn = schedule([either], 60.0, 7)
    assert drawn == schedule([either], 60.0, 7)
    assert drawn != schedule([either], 60.0, 8)
    assert {moment.node for moment in drawn} == {"pricing", "risk"}
    late = [moment.at_ns - S * (number + 1) for number, moment in enumerate(drawn)]
    assert min(late) >= 0
    assert max(late) < S // 2
    assert len(set(late)) > 50
    other = Action("other", "kill", ("feed",), 2 * S, 3 * S, jitter_ns=S)
    assert [moment for moment in schedule([other, either], 60.0, 7) if moment.action == "either"] == drawn


def test_the_shipped_script_does_everything() -> None:
    section = load_topology(CHAOS).fault
    assert section is not None
    assert min(section.plan.drop, section.plan.duplicate, section.plan.reorder, section.plan.corrupt) > 0
    done = schedule(section.actions, 60.0, 1)
    assert {moment.do for moment in done} == {"kill", "pause", "stall", "partition"}
    assert {moment.for_ns // S for moment in done if moment.do == "partition"} == {3}


def test_a_plan_from_a_config_goes_to_the_processes_as_text(tmp_path: Path) -> None:
    file = tmp_path / "script.toml"
    file.write_text('drop = 0.25\ncorrupt = 0.5\ndelay_for = "500ms"\nseed = 5\n')
    plan = read_script(file, NODES).plan
    assert FaultPlan.parse(str(plan)) == plan == FaultPlan(drop=0.25, corrupt=0.5, delay_for_ns=S // 2, seed=5)


def test_a_script_of_its_own_with_or_without_the_table(tmp_path: Path) -> None:
    body = 'drop = 0.1\nseed = 5\n[{0}actions.stop]\ndo = "stall"\nat = "1.5s"\n'
    for name, text in (("bare", body.format("")), ("table", "[fault]\n" + body.format("fault."))):
        file = tmp_path / f"{name}.toml"
        file.write_text(text)
        section = read_script(file, NODES)
        assert section.plan == FaultPlan(drop=0.1, seed=5)
        assert section.actions == (Action("stop", "stall", ("log-server",), 3 * S // 2, for_ns=S),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drop = 1.0", "drop: 1.0 is not a share"),
        ("dorp = 0.1", "did you mean 'drop'"),
        ("actions = 3", "actions: is not a table"),
        ('actions.a = { do = "kill", every = "1s" }', "actions.a.node: is missing"),
        ('actions.a = { do = "kill", node = "fed", every = "1s" }', "there is no node 'fed'"),
        ('actions.a = { do = "pause", node = "log-server", every = "1s" }', "there is no node 'log-server'"),
        ('actions.a = { do = "stall", node = "feed", every = "1s" }', "stall is of the log server"),
        ('actions.a = { do = "kill", node = "feed", every = "1s", for = "1s" }', "a kill takes no time"),
        ('actions.a = { do = "pause", node = "feed", every = "1s", for = "0s" }', "is no time at all"),
        ('actions.a = { do = "pause", node = "feed" }', "neither at nor every"),
        ('actions.a = { do = "pause", node = "feed", every = "1ms" }', "shorter than 100ms"),
        ('actions.a = { do = "explode", node = "feed", every = "1s" }', "not one of 'kill', 'pause'"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "script.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"script\.toml") as raised:
        read_script(file, NODES)
    assert said in str(raised.value)
