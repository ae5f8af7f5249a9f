"""The node that `fabric new` writes, killed with kill -9 at random moments: what it published is what it would have."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.cli.main import run_cli
from fabric.log import open_log
from fabric.records import Records
from fabric.runtime.page import NodePage, NodeState
from fabric.testing import run_node

pytestmark = pytest.mark.system
SETTINGS = ("nodes.feed.records=2000", "nodes.feed.records_per_second=2000", "nodes.trend.checkpoint_every=200ms")


def whole(path: Path) -> Records:
    log = open_log(path)
    return log[log.base :].records


def undisturbed(folder: Path, greeks: Records) -> Records:
    """What the node makes of these records when nobody kills it."""
    sys.path.insert(0, str(folder))
    try:
        from trend import Trend
    finally:
        sys.path.remove(str(folder))
    node = Trend("trend", config={"alpha": 0.05}, inputs={"greeks": "g"}, outputs={"trend": "t"})
    return run_node(node, [("greeks", greeks)])["trend"]


def one_life(folder: Path, chance: random.Random, kills: int, waiting: Callable[..., Any]) -> int:
    """Run the fabric to its end, killing the node at ``kills`` random moments; returns how many kills met it alive."""
    data = folder / f"var{chance.getrandbits(32):x}"
    command = [sys.executable, "-m", "fabric.cli.main", "up", "desk.toml", "--until-done", "--plain"]
    for setting in (*SETTINGS, f"data_dir={data}"):
        command += ["--set", setting]
    done = 0
    with (folder / "up.txt").open("wb") as output:
        up = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        run = waiting(lambda: next(data.glob("*/latest"), None), "a run").resolve()
        page = waiting(lambda: NodePage.open(run / "nodes" / "trend" / "page"), "the node's page")
        pid = 0
        for _ in range(kills):
            pid = waiting(lambda pid=pid: page.get("pid") not in (0, pid) and page.get("pid"), "the node")
            moment_s = time.monotonic() + chance.random() * 1.6
            waiting(lambda moment_s=moment_s: time.monotonic() >= moment_s, "a random moment")
            if page.get("state") in (NodeState.STOPPED, NodeState.FAILED) or up.poll() is not None:
                break
            os.kill(pid, signal.SIGKILL)
            done += 1
        assert up.wait(60) == 0, (folder / "up.txt").read_text()
    finally:
        if up.poll() is None:
            up.send_signal(signal.SIGINT)
            up.wait(20)
    greeks, trends = whole(run / "logs" / "desk.greeks"), whole(run / "logs" / "desk.trend")
    expected = undisturbed(folder, greeks)
    assert len(trends) == len(expected) > 1000
    for name in expected.dtype.names or ():
        if name != "ts_publish_ns":
            assert np.array_equal(trends[name], expected[name]), name
    assert run_cli(["play", str(run), "--node", "trend", "--verify"]) == 0
    shutil.rmtree((run / "logs").resolve())  # on tmpfs
    return done


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run_cli(["new", str(tmp_path / "desk")]) == 0
    return tmp_path / "desk"


def test_killed_at_a_few_random_moments(
    desk: Path, waiting: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    seed = 2
    print("seed", seed)
    chance, killed = random.Random(seed), 0
    for _ in range(4):  # on a busy machine a run can be over before the first moment
        killed += one_life(desk, chance, 3, waiting)
        assert "trend: identical" in capsys.readouterr().out
        if killed:
            return
    raise AssertionError("no kill met the node alive")


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_killed_at_200_random_moments(
    desk: Path, waiting: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One kill a run, anywhere between its start and its end."""
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance, killed, lives = random.Random(seed), 0, 0
    while killed < 200:
        killed += one_life(desk, chance, 1, waiting)
        lives += 1
        assert "trend: identical" in capsys.readouterr().out
        assert lives < 400
    print(f"seed {seed}: {killed} kills in {lives} runs, each identical to an undisturbed one")
