"""``fabric bench`` end to end: what it measured was checked, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fabric.bench.job import FLOOD, Job
from fabric.bench.process import RunFailed, Worker

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]
ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str) -> subprocess.Popen:
    """In a session of its own, by which its processes are found."""
    return subprocess.Popen(
        [sys.executable, "-m", "fabric.cli.main", "bench", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def members(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(owner) == session and state != "Z":
            found.append(int(folder.name))
    return found


def files_of(pid: int) -> list[Path]:
    return [path for base in ("/dev/shm", "/tmp") for path in Path(base).glob(f"fabric-bench-{pid}-*")]


def test_two_programs_check_what_they_measured_and_leave_nothing(tmp_path, waiting):
    report, page = tmp_path / "bench.json", tmp_path / "bench.html"
    bench = start("latency", "throughput", "--quick", "--json", str(report), "--html", str(page))
    output, _ = bench.communicate(timeout=100)
    assert bench.returncode == 0, output
    waiting(lambda: not members(bench.pid), "its processes to end")
    assert not files_of(bench.pid)

    plain = json.loads(report.read_bytes())
    assert {case["program"] for case in plain["cases"]} == {"latency", "throughput"}
    for case in plain["cases"]:
        names = {row["name"] for row in case["contestants"]}
        assert {"ours ipc", "ours tcp", "pyzmq ipc", "pyzmq tcp"} <= names
        assert not case["failures"]
        assert all(row["verified"] and row["rate"] > 0 for row in case["contestants"])
        assert any(ratio["ours"] == "ours ipc" and ratio["peer"] == "pyzmq ipc" for ratio in case["ratios"])
        assert case["topology"].splitlines()[0] in output
    for key in ("cpu", "cores", "kernel", "governor", "python", "pyzmq", "libzmq", "load", "pinned_cpus", "command"):
        assert key in plain["host"]
    assert "<svg" in page.read_text()


def flood(count: int, seed: int, directory: Path, deadline_s: float = 60.0) -> Job:
    return Job(
        "pyzmq ipc", "fabric.bench.peers.raw_zmq", FLOOD, count, str(directory), str(directory),
        seed=seed, deadline_s=deadline_s,
    )  # fmt: skip


def exchange(sender: Worker, receiver: Worker) -> str:
    """One run up to its check; returns what that finds."""
    deadline_s = time.monotonic() + 60.0
    receiver.tell("open", address=sender.ask("open", deadline_s)["address"])
    sender.ask("meet", deadline_s)
    receiver.answer("open", deadline_s)
    receiver.ask("go", deadline_s)  # that it is going
    sender.tell("go")
    receiver.answer("go", deadline_s)
    return receiver.ask("check", deadline_s, file="")["problem"]


@pytest.fixture
def short_path(sockets) -> Path:
    return Path(sockets[0].removeprefix("ipc://")).parent


def test_other_records_than_those_that_were_sent_are_told(short_path):
    with ExitStack() as stack:
        sender, receiver = Worker("sender", flood(100, 1, short_path)), Worker("receiver", flood(100, 2, short_path))
        stack.callback(sender.end)
        stack.callback(receiver.end)
        assert exchange(sender, receiver) == "record 0: bid is 1.0, not 2.0"


def test_who_waits_for_what_never_comes_is_ended_at_its_deadline(short_path):
    with ExitStack() as stack:
        sender = Worker("sender", flood(100, 1, short_path))
        stack.callback(sender.end)
        receiver = Worker("receiver", flood(101, 1, short_path, deadline_s=6.0))
        stack.callback(receiver.end)
        with pytest.raises(RunFailed, match=r"pyzmq ipc: its receiver was ended at its deadline during 'go'"):
            exchange(sender, receiver)


def test_an_interrupted_bench_leaves_nothing(waiting):
    bench = start("throughput", "--seconds", "5")
    try:
        waiting(lambda: len(members(bench.pid)) > 1 and files_of(bench.pid), "a run to begin")
        bench.send_signal(signal.SIGINT)
        assert bench.wait(20) == 130
    finally:
        if bench.poll() is None:
            bench.kill()
        bench.communicate()
    waiting(lambda: not members(bench.pid), "its processes to end")
    assert not files_of(bench.pid)


def test_a_killed_bench_takes_its_processes_along_and_the_next_one_its_files(waiting):
    bench = start("throughput", "--seconds", "5")
    try:
        waiting(lambda: len(members(bench.pid)) > 1 and files_of(bench.pid), "a run to begin")
    finally:
        bench.kill()
        bench.communicate()
    waiting(lambda: not members(bench.pid), "its processes to end")
    from fabric.bench.single import sweep

    assert not os.path.exists(f"/proc/{bench.pid}")  # noqa: PTH110
    sweep()
    assert not files_of(bench.pid)
