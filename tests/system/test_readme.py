"""Every sample of README.md runs as it is printed there, against the running demo."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.log import open_log

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]


def samples() -> dict[str, str]:
    """File name to content, for each ``<!-- sample: NAME -->`` and the code block after it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- sample: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like a fresh checkout's root: the configs, and the samples as a reader would save them."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name, content in samples().items():
        (tmp_path / name).write_text(content)
    return tmp_path


def run(folder: Path, *command: str, timeout: float = 60.0) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_names_all_of_them() -> None:
    assert set(samples()) == {"client.py", "publisher.py", "skew.py", "desk.toml", "research.py"}


def test_client_node_and_research_against_the_running_demo(
    folder: Path, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    cli = [sys.executable, "-m", "fabric.cli.main"]
    with (folder / "demo.txt").open("wb") as output:
        demo = subprocess.Popen([*cli, "up", "configs/demo.toml"], cwd=folder, stdout=output, stderr=output)
    try:
        log = folder / "var" / "demo" / "latest" / "logs" / "demo.greeks"
        waiting(lambda: open_log(log).next > 500, "greeks")
        said = run(folder, "client.py")
        assert "snapshot" in said
        assert said.splitlines()[-1] == "LIVE 0 missed 0 lost"
        assert run(folder, "research.py").startswith("1 ")
        tapped = run(folder, "-m", "fabric.cli.main", "tap", "configs/demo.toml", "demo.risk", "--count", "3")
        assert "underlying=" in tapped
        assert len(tapped.splitlines()) == 3
        seen = json.loads(run(folder, "-m", "fabric.cli.main", "top", "configs/demo.toml", "--once", "--json"))
        assert seen["channels"]["demo.quote"]["records_per_second"] > 100
        assert seen["channels"]["demo.quote"]["subscribers"]["pricing"]["state"] == "LIVE"
        assert seen["hops"]["feed>pricing"]["recent"]["count"] < seen["hops"]["feed>pricing"]["count"]
        assert all(node["alive"] and node["cpu"] > 0 for node in seen["nodes"].values())
        some = run(
            folder, "-m", "fabric.cli.main", "tap", "configs/demo.toml", "demo.quote", "--symbols", "BTC-*",
            "--fields", "bid,ask", "--rate", "20", "--count", "5", "--start", "live",
        ).splitlines()  # fmt: skip
        assert len(some) == 5
        assert all(re.fullmatch(r"\d+ BTC-\S+ bid=\S+ ask=\S+", line) for line in some), some
        with (folder / "desk.txt").open("wb") as output:
            desk = subprocess.Popen([*cli, "up", "desk.toml"], cwd=folder, stdout=output, stderr=output)
        try:
            skew = folder / "var" / "desk" / "latest" / "logs" / "desk.skew"
            waiting(lambda: open_log(skew).next > 20, "skews")
            tapped = run(
                folder, "-m", "fabric.cli.main", "tap", "desk.toml", "desk.skew", "--count", "5", "--start", "first"
            )
            assert tapped.startswith("1 ts_event_ns=")
            assert "put_iv=0." in tapped
        finally:
            desk.send_signal(signal.SIGINT)
            assert desk.wait(20) == 0, (folder / "desk.txt").read_text()
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 0, (folder / "demo.txt").read_text()


def test_the_publisher_sample(folder: Path) -> None:
    assert run(folder, "publisher.py") == "1 2 [0.25, 0.5]\n"
    assert run(folder, "publisher.py") == "1 4 [0.25, 0.5, 0.25, 0.5]\n", "the log goes on where it was"
