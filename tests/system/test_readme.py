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
    assert set(samples()) == {
        "client.py", "loop.py", "notebook.py", "publisher.py", "skew.py", "desk.toml", "research.py",
    }  # fmt: skip


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
        assert re.fullmatch(r"\d{4,} records, 0 lost\n", run(folder, "loop.py"))
        notebook = run(folder, "notebook.py")
        assert len(re.findall(r"BTC-E1-\d+-[CP]", notebook)) == 3, notebook
        assert "30 options expire first; <Table demo.greeks LIVE" in notebook
        research = run(folder, "research.py")
        assert research.startswith("1 ")
        assert len(re.findall(r"\+00:00 +[A-Z]+-", research)) == 3, research
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


COMMANDS = {
    "make demo": "test_the_demo_ends_as_shown",
    "make test": "this is it",
    ".venv/bin/fabric up configs/deribit-capture.toml --until-done --report r.json "
    "--set 'nodes.feed.source=\"capture:PATH\"'": "tests/system/test_capture.py",
}
"""Every command that stands in a console block, and what runs it."""


def test_every_command_is_run_somewhere() -> None:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    shown = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert set(shown) == set(COMMANDS)


def shape(text: str) -> list[str]:
    """Output with its figures blanked."""
    lines = (re.sub(r"\d[\d,.]*( [num]?s\b)?", "#", line) for line in text.splitlines())
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip()]


def test_the_demo_ends_as_shown(tmp_path: Path) -> None:
    """The command of ``make demo``, for a shorter time: the same lines, up to their figures."""
    recipe = re.search(r"fabric (up configs/demo\.toml .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert recipe is not None
    command = recipe[1].replace("--for 10s", "--for 4s").replace("var/", f"{tmp_path}/").split()
    done = subprocess.run(
        [sys.executable, "-m", "fabric.cli.main", *command, "--set", f"data_dir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"```text\n(What flowed.*?)```", text, re.DOTALL)
    assert printed is not None
    assert shape(done.stdout)[-len(shape(printed[1])) :] == shape(printed[1])
    for logs in tmp_path.glob("*/*/logs"):
        shutil.rmtree(logs.resolve(), ignore_errors=True)
