"""Several nodes in one process: as whole as in processes of their own, killed and stopped together."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.cli.main import run_cli

pytestmark = pytest.mark.system
NODES = ("feed", "pricing", "risk")


def together(process: str, *nodes: str) -> list[str]:
    return [word for node in nodes for word in ("--set", f"nodes.{node}.process={process!r}")]


def everything_arrived(report: dict[str, Any]) -> None:
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert (counts["received"], counts["lost"], counts["skipped"]) == (channel["published"], 0, 0), (
                name,
                reader,
            )
    for node in NODES:
        assert run_cli(["play", report["run"], "--node", node, "--verify"]) == 0, node


def test_a_process_of_two_nodes_is_killed_and_both_go_on(up: Any, waiting: Callable[..., Any]) -> None:
    run = up("demo", *together("desk", "pricing", "risk"), "--set", "nodes.feed.records_per_second=2000")
    waiting(lambda: run.count("risk", "cycles") > 200, "risk at work")
    pid = run.count("pricing", "pid")
    assert run.count("risk", "pid") == pid != run.count("feed", "pid")
    run.kill("risk")
    for node in ("pricing", "risk"):
        waiting(lambda node=node: run.count(node, "pid") != pid, f"{node} again")
    assert run.count("pricing", "pid") == run.count("risk", "pid")
    cycles = run.count("risk", "cycles")
    waiting(lambda: run.count("risk", "cycles") > cycles + 200, "risk at work again")
    run.stop()
    report = run.report()
    assert {node: report["nodes"][node]["restarts"] for node in NODES} == {"feed": 0, "pricing": 1, "risk": 1}
    everything_arrived(report)


def test_nodes_of_one_process_are_stopped_after_what_they_read_from(up: Any, waiting: Callable[..., Any]) -> None:
    """Risk reads what pricing publishes, which reads what feed does: between the ends of two nodes of one process
    another process ends."""
    run = up("demo", *together("ends", "feed", "risk"), "--set", "nodes.feed.records_per_second=2000")
    waiting(lambda: run.count("risk", "cycles") > 200, "risk at work")
    assert run.count("feed", "pid") == run.count("risk", "pid") != run.count("pricing", "pid")
    run.stop()
    report = run.report()
    assert report["ended"] == "stopped"
    assert {report["nodes"][node]["restarts"] for node in NODES} == {0}
    everything_arrived(report)


def test_all_nodes_in_one_process_that_is_stopped_for_a_while(up: Any, waiting: Callable[..., Any]) -> None:
    run = up("demo", *together("all", *NODES), "--set", "nodes.risk.watchdog='1s'")
    waiting(lambda: run.count("risk", "cycles") > 50, "risk at work")
    pid = run.count("risk", "pid")
    os.kill(pid, signal.SIGSTOP)
    waiting(lambda: run.count("risk", "pid") != pid, "another process")
    waiting(lambda: run.count("risk", "cycles") > 100, "risk at work again")
    run.stop()
    report = run.report()
    assert {(report["nodes"][node]["hangs"], report["nodes"][node]["restarts"]) for node in NODES} == {(1, 1)}
    everything_arrived(report)


def test_a_node_that_fails_takes_its_process_with_it(up: Any, tmp_path: Path, waiting: Callable[..., Any]) -> None:
    (tmp_path / "own.py").write_text(
        "from fabric import Input, Node\n"
        "from nodes.records import GREEKS\n"
        "class Fails(Node):\n"
        "    greeks = Input(GREEKS)\n"
        "    def on_records(self, channel, records, now_ns):\n"
        "        raise ValueError('on purpose')\n"
    )
    demo = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
    config = tmp_path / "own.toml"
    config.write_text(
        f"extends = {str(demo)!r}\n"
        "[nodes.fails]\nuse = 'own:Fails'\nprocess = 'desk'\ninputs = { greeks = 'demo.greeks' }\n"
        "[nodes.risk]\nprocess = 'desk'\n"
    )
    run = up(config)
    assert run.wait() == 1
    assert "desk" in run.output
    assert "ValueError('on purpose')" in run.output
    assert "5 times" in run.output


def test_a_standby_has_its_own_process(capsys: Any) -> None:
    settings = ["--set", "nodes.risk.process=desk", "--set", "nodes.risk.standby=true"]
    assert run_cli(["explain", "configs/demo.toml", *settings]) == 2
    assert "standby" in capsys.readouterr().err
