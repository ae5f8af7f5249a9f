"""``fabric fault`` on real processes, and its verifier on what they left on disk: whole, it holds; doctored, it does not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fabric.cli.main import run_cli
from fabric.config.plan import make_plan
from fabric.config.saved import load_saved
from fabric.fault.verify import NotVerifiable, Verification, verify_run
from fabric.log.paths import hold_lock, segment_name
from fabric.log.reader import LogReader
from fabric.records import Records
from fabric.rundir import RunDirectory
from fabric.runtime.journal import Kind
from fabric.runtime.page import NodePage

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
CHAOS = ROOT / "configs" / "chaos.toml"

SCRIPT = """
drop = 0.02
duplicate = 0.02
reorder = 0.02
delay = 0.01
corrupt = 0.01

[actions]
kill-feed = { do = "kill", node = "feed", at = "2s" }
cut = { do = "partition", node = "pricing", at = "2.5s", for = "1.5s" }
kill-risk = { do = "kill", node = "risk", at = "4s" }
stall = { do = "stall", at = "4.5s", for = "700ms" }
pause = { do = "pause", node = "pricing", at = "5s", for = "700ms" }
kill-server = { do = "kill", node = "log-server", at = "6s" }
"""


def run_faults(directory: Path, *arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabric.cli.main", "fault", str(CHAOS), "--seconds", str(seconds)]
    command += ["--set", f"data_dir={directory}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=seconds + 120, check=False)


def drop_logs(directory: Path) -> None:
    """They are on tmpfs: give the memory back."""
    for run in directory.glob("*/latest"):
        shutil.rmtree((run / "logs").resolve(), ignore_errors=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDirectory, str]]:
    """A run of all faults at once that is over, and what it said."""
    directory = tmp_path_factory.mktemp("var")
    script = directory / "script.toml"
    script.write_text(SCRIPT)
    arguments = ["--script", str(script), "--seed", "5", "--set", "nodes.feed.records_per_second=1000"]
    done = run_faults(directory, *arguments, "--report", str(directory / "report.json"), seconds=8)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield RunDirectory((directory / "chaos" / "latest").resolve()), done.stdout + done.stderr
    finally:
        drop_logs(directory)


def verified(run: RunDirectory) -> Verification:
    return verify_run(make_plan(load_saved(run.path)), run)


def test_all_faults_at_once_lose_nothing(finished: tuple[RunDirectory, str]) -> None:
    run, said = finished
    report = json.loads((run.path.parent.parent / "report.json").read_bytes())
    assert {each["do"] for each in report["actions"]} == {"kill", "partition", "stall", "pause"}
    assert len(report["actions"]) == 6
    assert "restart in" in said
    faults = {fault: sum(each["faults"][fault] for each in report["channels"].values() if "faults" in each)
              for fault in ("dropped", "duplicated", "reordered", "delayed", "corrupted", "cut")}  # fmt: skip
    assert min(faults.values()) > 0, faults
    found = json.loads((run.path / "verification.json").read_bytes())
    assert (found["ok"], found["undetected"], found["problems"], found["notes"]) == (True, 0, [], [])
    assert len(found["accounts"]) == 4
    for account in found["accounts"]:
        assert account["published"] == account["delivered"], account
    assert found["compared"] == found["published"] > 10_000
    line = said.strip().splitlines()[-1] if "verified:" in said.strip().splitlines()[-1] else said
    assert "0 lost, 0 undetected" in line


def test_verify_says_the_same_later(finished: tuple[RunDirectory, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["verify", str(finished[0].path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


# What must not pass


@contextmanager
def doctored(log: Path, sequence: int, count: int) -> Iterator[Records]:
    """Records of a log, to be written over; put back afterwards."""
    reader = LogReader(log)
    held = reader.control.segment_records
    begin = sequence - (sequence - reader.base) % held
    segment = np.memmap(reader.directory / segment_name(begin), reader.record.dtype, mode="r+")
    part = segment[sequence - begin : sequence - begin + count]
    kept = part.copy()
    try:
        yield part
        segment.flush()
    finally:
        part[:] = kept
        segment.flush()


def data_entries(run: RunDirectory, node: str, port: int) -> list[tuple[int, int, int]]:
    """(sequence in the journal, first record, count) of what an input was given."""
    journal = LogReader(run.journal(node))
    found = []
    for sequence, records in journal.read_range(journal.base, journal.next - 1):
        rows = np.flatnonzero((records["kind"] == Kind.DATA) & (records["port"] == port))
        found += [(sequence + int(row), int(records["first"][row]), int(records["count"][row])) for row in rows]
    return found


def test_a_record_that_was_not_delivered(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    sequence, first, count = next(each for each in data_entries(run, "pricing", 1)[200:] if each[2] > 1)
    with doctored(run.journal("pricing"), sequence, 1) as entry:
        entry["count"] -= 1
        found = verified(run)
    last = first + count - 1
    assert not found.ok
    assert found.undetected >= 1
    expected = f"demo.quote to pricing.quote: session {entry['session'][0]:016x}, record {last}: neither delivered nor announced"
    assert expected in found.problems
    assert any("it counted" in problem for problem in found.problems)


def test_a_record_that_was_delivered_twice(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    sequence, first, _ = data_entries(run, "risk", 1)[100]
    with doctored(run.journal("risk"), sequence, 1) as entry:
        entry["first"] -= 1
        entry["count"] += 1
        found = verified(run)
    assert any(f"record {first - 1}: delivered twice" in problem for problem in found.problems), found.problems


def test_two_published_records_swapped(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    with doctored(run.channel_log("demo.quote"), 1000, 2) as records:
        records[:] = records[::-1].copy()
        found = verified(run)
    assert not found.ok
    assert any("'demo.quote': record 1000 differs" in problem for problem in found.problems), found.problems


def test_a_record_with_one_other_bit(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    log = LogReader(run.channel_log("demo.quote"))
    first_body = log.record.dtype.names[5]
    with doctored(run.channel_log("demo.quote"), 1500, 1) as records:
        records.view("u1")[log.record.dtype.fields[first_body][1]] ^= 1
        found = verified(run)
    assert found.undetected >= 1
    assert any("record 1500 differs" in problem for problem in found.problems), found.problems


def test_a_counter_that_is_wrong(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    page = NodePage.open(run.node("risk") / "page")
    received = page.get("in.greeks.received")
    page.set("in.greeks.received", received + 1)
    try:
        found = verified(run)
    finally:
        page.set("in.greeks.received", received)
    assert found.problems == [
        f"demo.greeks to risk.greeks: it counted {received + 1:,} records received, its journal says {received:,}"
    ]


def test_a_log_that_is_gone(finished: tuple[RunDirectory, str]) -> None:
    run = finished[0]
    session = LogReader(run.channel_log("demo.greeks")).directory
    session.rename(session.with_name("elsewhere"))
    try:
        found = verified(run)
    finally:
        session.with_name("elsewhere").rename(session)
    assert f"demo.greeks: the log of its last session, {session.name}, is gone" in found.problems
    assert verified(run).ok


def test_a_run_that_is_not_over(finished: tuple[RunDirectory, str]) -> None:
    descriptor, _ = hold_lock(finished[0].channel_log("demo.quote") / "lock")
    try:
        with pytest.raises(NotVerifiable, match="is running"):
            verified(finished[0])
    finally:
        os.close(descriptor)


def test_a_run_without_whole_journals(finished: tuple[RunDirectory, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogReader, "first_available", property(lambda log: log.base + (log.channel == "@risk")))
    with pytest.raises(NotVerifiable, match="cycle journal of node 'risk'"):
        verified(finished[0])


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(10))
def test_a_minute_of_chaos(tmp_path: Path, number: int) -> None:
    seed = int(os.environ.get("FABRIC_SEED", "0")) or random.randrange(1, 10**6)
    print(f"FABRIC_SEED={seed}")
    done = run_faults(tmp_path, "--seed", str(seed), seconds=60)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads((tmp_path / "chaos" / "latest" / "verification.json").read_bytes())
        assert (found["ok"], found["undetected"]) == (True, 0)
        assert [account["lost"] for account in found["accounts"]] == [0] * 4
    finally:
        drop_logs(tmp_path)
