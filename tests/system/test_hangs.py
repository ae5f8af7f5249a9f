"""A process that hangs, stopped or stuck in a call, is killed by the supervisor; nobody takes its lock before."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.cli.main import run_cli
from fabric.runtime.standby import standby_pid
from fabric.supervise.lives import read_lives

pytestmark = pytest.mark.system

STICKY = """
import time
from pathlib import Path
from fabric import Input, Node, Output, record
from nodes.records import QUOTE

SEEN = record("seen", count="u8")

class Sticky(Node):
    quote = Input(QUOTE)
    seen = Output(SEEN)
    stick: Path
    "While this file is there, a call never ends."

    def on_records(self, channel, records, now_ns):
        if self.stick.exists():
            self.stick.unlink()
            time.sleep(3600)
        self.seen.append(count=len(records), cause=records)
"""
CONFIG = """
fabric = "sticky"
[nodes.feed]
use = "feed.simulated"
outputs = { instrument = "s.instrument", quote = "s.quote" }
watchdog = "2s"
[nodes.sticky]
use = "sticky_node:Sticky"
inputs = { quote = "s.quote" }
outputs = { seen = "s.seen" }
stick = "stick"
standby = true
watchdog = "2s"
"""


@pytest.mark.timeout(120)
def test_a_stopped_and_a_stuck_process_are_killed_and_nothing_is_lost(
    up: Any, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "sticky_node.py").write_text(STICKY)
    config = tmp_path / "sticky.toml"
    config.write_text(CONFIG)
    fabric = up(config)
    waiting(lambda: fabric.count("sticky", "cycles") > 100, "all at work")
    at = fabric.run / "nodes" / "sticky"

    # Stuck in a call; its standby goes on.
    primary, standby = fabric.count("sticky", "pid"), waiting(lambda: standby_pid(at), "a standby")
    (tmp_path / "stick").touch()
    waiting(lambda: not (tmp_path / "stick").exists(), "the call that sticks")
    waiting(lambda: fabric.count("sticky", "takeovers") == 1, "a takeover")
    assert fabric.count("sticky", "pid") == standby
    ends = read_lives(fabric.run)["sticky"]
    assert ends[0].how == "hung and was killed by SIGKILL"

    # Stopped; there is no standby, so it is started again.
    before = fabric.count("feed", "pid")
    waiting(lambda: fabric.count("sticky", "state") == 3, "the standby at work")
    os.kill(before, signal.SIGSTOP)
    waiting(lambda: fabric.count("feed", "pid") != before, "the feed again")
    cycles = fabric.count("sticky", "cycles")
    waiting(lambda: fabric.count("sticky", "cycles") > cycles + 50, "all at work again")
    fabric.stop()
    report = fabric.report()
    told = {name: (node["hangs"], node["takeovers"], node["restarts"]) for name, node in report["nodes"].items()}
    assert told == {"feed": (1, 0, 1), "sticky": (1, 1, 0)}
    assert primary != standby
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])
    assert run_cli(["play", str(fabric.run), "--verify"]) == 0
    assert json.loads((fabric.run / "report.json").read_bytes())["failure"] == ""
    assert "no progress for 2.00 s: killed" in fabric.output
