"""The command line: verbs, exit codes, and one clear line for a user's mistake."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.channel import channel_id
from fabric.cli.main import foreign_packages, run_cli
from fabric.client import Batch
from fabric.client.instruments import matches
from fabric.config.load import load_topology
from fabric.config.saved import save_source
from fabric.errors import NotConnected
from fabric.log import LogOptions, LogWriter
from fabric.protocol.types import Origin, Run, State
from fabric.records import RecordType
from fabric.rundir import RunDirectory, create_run
from fabric.runtime.gauges import STATES
from fabric.runtime.page import NodePage, NodeState, page_names

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"


CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_cli([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "desk.toml"
    path.write_text(
        'fabric = "desk"\ndata_dir = "var"\n[nodes.feed]\nuse = "feed.simulated"\n'
        'outputs = { instrument = "d.instrument", quote = "d.quote" }\n'
        '[nodes.pricing]\nuse = "pricing"\ninputs = { instrument = "d.instrument", quote = "d.quote" }\n'
        'outputs = { greeks = "d.greeks" }\n'
    )
    return path


def test_check_and_explain(capsys: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, "check", config) == (0, f"{config}: ok, 2 nodes, 3 channels\n", "")
    monkeypatch.setenv("FABRIC_CONFIG", str(config))
    assert run(capsys, "check")[0] == 0
    code, out, _ = run(capsys, "explain")
    assert code == 0
    assert "feed -> pricing" in out
    assert "reader   pricing.quote over local" in out
    described = json.loads(run(capsys, "explain", "--json")[1])
    assert [channel["channel"] for channel in described["channels"]] == ["d.instrument", "d.quote", "d.greeks"]
    assert described["channels"][1]["readers"] == [
        {
            "node": "pricing",
            "input": "quote",
            "path": "local",
            "why": "its publisher is of this fabric, on this host: its log is mapped, and ipc is used until it is, and under "
            "--fault",
        }
    ]
    assert described["channels"][1]["window_seconds"] is None, "no run yet: no rate"
    assert any("d.quote" in line and "Skipped" in line for line in described["can_lose"])
    assert {buffer["what"] for buffer in described["buffers"]} >= {"a channel's log", "libzmq, sending"}


MISTAKES = [
    (["nodes.feed.sed=1"], "nodes.feed.sed: is not a known key (did you mean 'seed'?)"),
    (["nodes.feed.seed=x"], "nodes.feed.seed: expected int, got str"),
    (['nodes.feed.underlyings=["BTC", 5]'], "nodes.feed.underlyings"),
    (["heartbeet=1"], "heartbeet: is not a known key (did you mean 'heartbeat'?)"),
    (["heartbeat=100"], "heartbeat: is 100, not a string with a unit"),
    (["heartbeat=100 parsecs"], "is not a duration"),
    (["stale_after=50ms"], "is shorter than two heartbeats"),
    (["nodes.pricing.use=pricin"], "no node is called 'pricin' (did you mean 'pricing'?)"),
    (["nodes.pricing.use=no.such.module:X"], "can't load 'no.such.module:X'"),
    (["nodes.pricing.use=json:loads"], "is not a fabric.Node class"),
    (["nodes.pricing.inputs.quote=d.quotes"], "no node writes channel 'd.quotes' (did you mean 'd.quote'?)"),
    (["nodes.pricing.inputs.qoute=d.quote"], "qoute: is not a known key (did you mean 'quote'?)"),
    (["nodes.pricing.inputs={ quote = 'd.quote' }"], "the input 'instrument' is not connected"),
    (["nodes.pricing.inputs.quote=d.instrument"], "carries 'instrument' records"),
    (["nodes.pricing.outputs.greeks=d.quote"], "already has a writer"),
    (["nodes.pricing.outputs.greeks=d/x"], "can't be a channel's name"),
    (["nodes.pricing.resume=maybe"], "is 'maybe', not one of 'exact', 'fresh'"),
    (["nodes.pricing.vol_on_move=sticky"], "vol_on_move: is 'sticky', not one of 'sticky_strike', 'resolve'"),
    (['channels."d.quote".retain=10MiB'], "is less than two segments"),
    (['channels."d.quote".retain=10MB/s'], "is not a size"),
    (['channels."d.qoute".retain=64MiB'], "is not a known key (did you mean 'd.quote'?)"),
    (['channels."d.quote".listen=udp://x'], "is not an endpoint"),
    ([f'channels."d.quote".listen=ipc:///{"x" * 120}'], "longer than 107 bytes"),
    (['channels."d.quote".listen=tcp://127.0.0.1'], "names no port"),
    (['channels."x.y".connect=tcp://127.0.0.1:5'], 'channels."x.y".replay: is missing'),
    (["nodes.feed.records_per_second"], "is not KEY=VALUE"),
    (["fabric=a b"], "can't be a fabric's name"),
]


@pytest.mark.parametrize(("settings", "said"), MISTAKES)
def test_a_mistake_in_the_config_is_named_before_anything_starts(
    capsys: pytest.CaptureFixture[str], config: Path, settings: list[str], said: str
) -> None:
    arguments = [part for setting in settings for part in ("--set", setting)]
    for verb in (["check"], ["up", "--for", "1s"]):
        code, out, err = run(capsys, verb[0], config, *arguments, *verb[1:])
        assert code == 2
        assert said in err
        assert out == ""
    assert not (config.parent / "var").exists()


def test_cycles_and_files_that_are_no_configs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.write_text(
        '[nodes.a]\nuse = "pricing"\ninputs = { instrument = "i", quote = "x" }\noutputs = { greeks = "g" }\n'
        '[nodes.b]\nuse = "pricing"\ninputs = { instrument = "i", quote = "g" }\noutputs = { greeks = "x" }\n'
        '[nodes.f]\nuse = "feed.simulated"\noutputs = { instrument = "i", quote = "q" }\n'
    )
    assert "in a cycle: a -> b -> a" in run(capsys, "check", loop)[2]
    (tmp_path / "bad.toml").write_text("fabric = \n")
    (tmp_path / "latin.toml").write_bytes(b'fabric = "\xe9"\n')
    (tmp_path / "empty.toml").write_text("")
    for name, said in (
        ("none.toml", "there is no such file"), ("bad.toml", "is not TOML"), ("latin.toml", "is not UTF-8"),
        (".", "is a directory"), ("empty.toml", "there are no nodes"),
    ):  # fmt: skip
        code, _, err = run(capsys, "check", tmp_path / name)
        assert (code, said in err) == (2, True), err


def test_what_up_refuses(capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["--until-done"], "source 'feed' never ends"),
        (["--for", "5 blinks"], "is not a duration"),
        (["--for", "0s"], "is no time at all"),
        (["--report", str(tmp_path)], "is a folder"),
        (["--fault", "drop=2"], "drop=2.0 is not a share"),
        (["--fault", "dorp=1"], "unknown fault 'dorp'"),
        (["--fault", "drop=x"], "not a number"),
        (["--report", str(tmp_path / "no" / "r.json")], "there is no folder"),
    ):
        code, _, err = run(capsys, "up", config, *arguments)
        assert (code, said in err) == (2, True), err
    full = ["--set", 'channels."d.quote".retain=100000GiB', "--set", f"log_dir={tmp_path / 'logs'}"]
    code, _, err = run(capsys, "up", config, *full)
    assert code == 1
    assert "the logs may need" in err
    code, _, err = run(capsys, "up", DEMO.with_name("deribit-capture.toml"), "--set", "nodes.feed.source=capture:none")
    assert (code, "none" in err) == (2, True)


def test_what_fault_and_verify_refuse(capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (["--seconds", "0"], "is no time at all"),
        (["--drop", "1.5"], "drop=1.5 is not a share"),
        (["--delay-for", "soon"], "is not a duration"),
        (["--script", str(tmp_path / "none.toml")], "there is no such file"),
        (["--set", "fault.actions.a={ do = 'kill', node = 'fed', every = '1s' }"], "there is no node 'fed'"),
    ):
        code, _, err = run(capsys, "fault", config, *arguments)
        assert (code, said in err) == (2, True), err
    code, _, err = run(capsys, "verify", tmp_path)
    assert (code, "is not a run directory" in err) == (2, True)


def test_explain_tells_what_fault_would_do(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert json.loads(run(capsys, "explain", config, "--json")[1])["fault"] == []
    cut = "fault.actions.cut={ do = 'partition', node = 'feed', at = '2s', every = '9s', for = '3s' }"
    _, out, _ = run(capsys, "explain", config, "--set", "fault.drop=0.01", "--set", cut)
    assert "packets: drop 1.00%\n" in out
    assert "cut: partition feed for 3.00 s after 2.00 s, then each 9.00 s" in out


def test_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "check" in run(capsys, "--help")[1]
    assert run(capsys, "--version")[0] == 0
    code, _, err = run(capsys, "chekc")
    assert (code, "did you mean 'check'?" in err) == (2, True)
    assert run(capsys, "up", "--no-such-option")[0] == 2


def test_log_inspect_and_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record = fabric.record("number", value="u8")
    options = LogOptions(segment_bytes=1 << 16)
    writer = LogWriter(tmp_path / "log", "numbers", channel_id("numbers"), record, options, now_ns=time.time_ns())
    writer.write(record.build(value=np.arange(5000), flags=1), time.time_ns())
    writer.maintain(time.time_ns(), 1)
    code, out, _ = run(capsys, "log", "inspect", tmp_path / "log", "--records", "2")
    assert code == 0
    assert "numbers: number records 1 to 5,000" in out
    facts = json.loads(run(capsys, "log", "inspect", tmp_path / "log", "--records", "1", "--json")[1])
    assert (facts["next"], facts["records"][0]["value"]) == (5001, 4999)
    code, out, _ = run(capsys, "log", "verify", tmp_path / "log")
    assert (code, "numbers: ok" in out) == (0, True)
    segment = sorted((tmp_path / "log" / "current").glob("*.seg"))[0]
    with segment.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    code, out, _ = run(capsys, "log", "verify", tmp_path / "log")
    assert (code, "DAMAGED" in out) == (1, True)
    writer.close()
    code, _, err = run(capsys, "log", "inspect", tmp_path / "nothing")
    assert (code, "no log" in err) == (2, True)


def test_tap_without_a_fabric_says_so(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    code, _, err = run(capsys, "tap", config, "d.quote", "--for", "0.2")
    assert (code, "nothing listens on" in err) == (1, True)
    code, _, err = run(capsys, "tap", config, "d.qoute")
    assert (code, "did you mean 'd.quote'?" in err) == (2, True)
    os.environ.pop("FABRIC_CONFIG", None)
    assert run(capsys, "tap", "d.quote")[0] == 2


class Quiet:
    """A client and its subscription, live, of a channel with these batches and no more."""

    progress = None
    state = State.LIVE

    def __init__(self, record: RecordType, *batches: Batch) -> None:
        self.record, self.batches = record, list(batches)
        self.instruments = self
        self.asked: dict[str, Any] = {}

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def subscribe(self, channel: str, **options: Any) -> Quiet:
        self.asked = options
        return self

    def wait_live(self, timeout: float) -> None:
        self.asked["patience_s"] = timeout

    def poll(self, timeout: float | None) -> Batch | None:
        self.asked.setdefault("timeout_s", timeout)
        return self.batches.pop(0) if self.batches else None

    def known_symbols(self) -> dict[int, str]:
        return {1: "BTC-A", 2: "BTC-B"}

    def symbols(self) -> dict[int, str]:
        return self.known_symbols()

    def ids(self, *patterns: str) -> list[int]:
        return [each for each, symbol in self.known_symbols().items() if matches(symbol, patterns)]


VECTOR = fabric.record("vector", one="f8", many=("f8", (3,)), names=("S2", (2,)))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Quiet:
    records = VECTOR.build(1, instrument=1, one=np.inf)
    records["many"], records["names"] = [1.0, np.nan, -np.inf], [b"a", b"b"]
    batch = Batch.of("d.quote", Run(Origin.LIVE, 1, 1, 1, records), VECTOR, stale=False)
    client = Quiet(VECTOR, batch)
    monkeypatch.setattr("fabric.cli.tap.connect", lambda config: client)
    return client


def test_tap_prints_arrays_and_what_json_has_no_number_for(
    capsys: pytest.CaptureFixture[str], config: Path, quiet: Quiet
) -> None:
    batch = quiet.batches[0]
    _, out, _ = run(capsys, "tap", config, "d.quote", "--json", "--fields", "one,many,names")
    assert json.loads(out, parse_constant=pytest.fail) == {
        "sequence": 1, "symbol": "BTC-A", "one": None, "many": [1.0, None, None], "names": ["a", "b"],
    }  # fmt: skip
    quiet.batches = [batch]
    _, out, _ = run(capsys, "tap", config, "d.quote", "--fields", "one,many,names")
    assert out == "1 BTC-A one=inf many=[1.0, nan, -inf] names=['a', 'b']\n"


def test_tap_names_a_field_that_is_not_there_though_nothing_comes(
    capsys: pytest.CaptureFixture[str], config: Path, quiet: Quiet
) -> None:
    quiet.batches.clear()
    code, _, err = run(capsys, "tap", config, "d.quote", "--fields", "one,nope")
    assert (code, "--fields: there is no field 'nope'" in err) == (2, True)
    assert "timeout_s" not in quiet.asked, "before any record was waited for"


def test_tap_says_once_that_no_instrument_matches(
    capsys: pytest.CaptureFixture[str], config: Path, quiet: Quiet
) -> None:
    quiet.batches.clear()
    _, _, err = run(capsys, "tap", config, "d.quote", "--symbols", "NOPE*", "--symbols", "X")
    assert err == "# no instrument matches NOPE*, X yet; waiting\n"
    assert run(capsys, "tap", config, "d.quote", "--symbols", "NOPE*", "--symbols", "BTC*")[2] == ""


@pytest.mark.parametrize(("state", "goes_on"), [(State.RECOVERING, True), (State.JOINING, False)])
def test_tap_shows_what_it_has_while_it_catches_up(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    quiet: Quiet,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    goes_on: bool,
) -> None:
    def never_live(timeout: float) -> None:
        raise NotConnected("d.quote", "still at it")

    monkeypatch.setattr(quiet, "state", state, raising=False)
    monkeypatch.setattr(quiet, "wait_live", never_live)
    assert (run(capsys, "tap", config, "d.quote", "--start", "first")[0] == 0) == goes_on


@pytest.mark.parametrize(("text", "patience_s"), [("2s", 2.0), ("2", 2.0), ("0.5", 0.5), ("500ms", 0.5), ("1h", 5.0)])
def test_tap_takes_durations(
    capsys: pytest.CaptureFixture[str], config: Path, quiet: Quiet, text: str, patience_s: float
) -> None:
    assert run(capsys, "tap", config, "d.quote", "--for", text)[0] == 0
    assert quiet.asked["patience_s"] == patience_s


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--for", "2 blinks", "is not a duration"),
        ("--for", "-1", "is not a duration"),
        ("--for", "nan", "is not a duration"),
        ("--for", "inf", "is not a duration"),
        ("--start", "2600-01-01", "is out of range (times go from 1970-01-01 to 2262-04-11, UTC)"),
        ("--start", "1960-01-01", "is out of range (times go from 1970-01-01 to 2262-04-11, UTC)"),
        ("--start", "0001-01-01", "is out of range"),
        ("--start", "9999-12-31T23:59:59-05:00", "is out of range"),
        ("--start", "2026-13-01", "is not a time"),
    ],
)
def test_tap_refuses_times_before_it_connects(
    capsys: pytest.CaptureFixture[str], config: Path, option: str, text: str, said: str
) -> None:
    code, out, err = run(capsys, "tap", config, "d.quote", option, text)
    assert (code, out, err.count("\n"), said in err) == (2, "", 1, True), err


@pytest.fixture
def stood(config: Path) -> Iterator[RunDirectory]:
    """A run whose nodes' pages stand as they were while it ran; no process of it is there."""
    topology = load_topology(str(config))
    directory = create_run(topology.directory, config.parent / "logs", 0, {}, now_ns=time.time_ns())
    save_source(directory.path, topology.source)
    gone = subprocess.Popen(["true"])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)  # it is left unreaped: a process of that number is there
    for node, inputs in (("feed", []), ("pricing", ["instrument", "quote"])):
        page = NodePage(directory.node(node) / "page", *page_names(inputs, ["call"]))
        page.set("state", NodeState.RUNNING)
        page.set("pid", gone.pid)
        for name in inputs:
            page.set(f"in.{name}.state", STATES.index("LIVE"))
            page.set(f"in.{name}.stale", 1)
    yield directory
    gone.wait()


def test_top_says_that_a_run_ended(capsys: pytest.CaptureFixture[str], stood: RunDirectory) -> None:
    top = ["top", stood.path, "--once", "--every", "50ms"]
    (stood.path.parent / "up.lock").write_text(str(os.getpid()))
    out = run(capsys, *top)[1]
    assert "run ended" not in out, "its supervisor is there, and may be about to restart them"
    assert "LIVE STALE" in out
    assert json.loads(run(capsys, *top, "--json")[1])["ended"] is False

    (stood.path.parent / "up.lock").write_text(str(NodePage.open(stood.node("feed") / "page").get("pid")))
    out = run(capsys, *top)[1]
    assert out.splitlines()[0].endswith("  run ended")
    assert "LIVE (ended)" in out
    assert "STALE" not in out
    assert json.loads(run(capsys, *top, "--json")[1])["ended"] is True


def test_top_takes_a_run_with_a_living_node_for_running(
    capsys: pytest.CaptureFixture[str], stood: RunDirectory
) -> None:
    top = ["top", stood.path, "--once", "--every", "50ms"]
    (stood.path.parent / "up.lock").write_text(str(os.getpid()))
    (stood.path / "report.json").write_text("{}")
    assert "run ended" in run(capsys, *top)[1], (
        "the supervisor has told how it ended; the one that is there has another run"
    )
    page = NodePage(stood.node("feed") / "page", *page_names([], ["call"]))
    page.set("pid", os.getpid())
    assert "run ended" not in run(capsys, *top)[1], "fabric run"


FRESH = [".gitignore", "README.md", "desk.toml", "test_trend.py", "trend.py"]


def test_new_fills_a_new_or_an_empty_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty" / "desk").mkdir(parents=True)
    same = (tmp_path / "empty" / "desk").stat().st_ino
    for folder in (tmp_path / "deep" / "er" / "desk", tmp_path / "empty" / "desk"):
        assert run(capsys, "new", folder)[0] == 0
        assert sorted(file.name for file in folder.iterdir()) == FRESH
        assert [each.name for each in folder.parent.iterdir()] == ["desk"]
    assert (tmp_path / "empty" / "desk").stat().st_ino == same, "a shell may stand in it"


def test_new_refuses_what_is_not_its_to_fill(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("full", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").write_text("")
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "file").write_text("")
    for folder, said in (
        (tmp_path / "full", "is there already, and not empty (name a new folder)"),
        (tmp_path / "shared", "is shared by all users"),
        (tmp_path / "file", "is a file"),
        (Path("/tmp"), "/tmp is shared by all users"),
    ):
        code, _, err = run(capsys, "new", folder)
        assert (code, said in err) == (2, True), err
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(("what", "number"), [("write_text", 3), ("replace", 1)])
def test_new_on_a_full_disk_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    what: str,
    number: int,
) -> None:
    folder = tmp_path / "deep" / "desk"
    if there:
        folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    original, calls = getattr(Path, what), itertools.count(1)

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    monkeypatch.setattr(Path, what, failing)
    code, _, err = run(capsys, "new", folder)
    assert (code, "No space left on device" in err) == (2, True), err
    assert sorted(tmp_path.rglob("*")) == before


def test_our_packages_are_ours_alone() -> None:
    assert foreign_packages() == {}


@pytest.fixture
def quotes(tmp_path: Path) -> Path:
    """A run-like folder: a log of quotes and, beside it, the definitions."""
    from nodes.records import INSTRUMENT, QUOTE

    second = 10**9
    for channel, record, parts in (
        ("d.instrument", INSTRUMENT, [INSTRUMENT.build(instrument=[1, 2], symbol=[b"BTC-A", b"BTC-B"])]),
        ("d.quote", QUOTE, [QUOTE.build(instrument=[1, 2, 3], bid=[1.5, 2.5, 3.5], ask=9.0) for _ in range(100)]),
    ):
        writer = LogWriter(
            tmp_path / "logs" / channel, channel, channel_id(channel), record, LogOptions(), now_ns=time.time_ns()
        )
        for number, part in enumerate(parts):
            writer.write(part, 1_700_000_000 * second + number * second)
        writer.close()
    return tmp_path / "logs"


def test_export_to_parquet_arrow_and_csv(capsys: pytest.CaptureFixture[str], quotes: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    code, out, _ = run(capsys, "log", "export", quotes, tmp_path / "out")
    assert code == 0
    assert "300 records of d.quote, sequences 1 to 300" in out
    table = parquet.read_table(tmp_path / "out" / "d.quote.parquet")
    assert table["bid"].to_pylist() == [1.5, 2.5, 3.5] * 100
    assert table["instrument"].to_pylist()[:3] == ["BTC-A", "BTC-B", None]
    assert str(table.schema.field("ts_publish_ns").type) == "timestamp[ns, tz=UTC]"

    assert run(capsys, "log", "export", quotes / "d.quote", tmp_path / "q.arrow", "--from", "4", "--until", "6")[0] == 0
    rows = pa.ipc.open_file(str(tmp_path / "q.arrow")).read_all()
    assert rows["bid"].to_pylist() == [1.5, 2.5, 3.5]
    since = ["--from", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:23Z", "--ids"]
    code, out, _ = run(capsys, "log", "export", quotes / "d.quote", tmp_path / "q.csv", *since)
    assert "6 records of d.quote, sequences 4 to 9" in out
    lines = (tmp_path / "q.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[0].split(",")[3] == '"instrument"'
    assert [line.split(",")[3] for line in lines[1:4]] == ["1", "2", "3"]


def test_what_export_refuses(capsys: pytest.CaptureFixture[str], quotes: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "there.csv").write_text("mine")
    for arguments, said in (
        ([quotes, tmp_path / "x.csv"], "holds 2 logs"),
        ([quotes / "d.quote", tmp_path / "there.csv"], "is there already (give --force"),
        ([quotes / "d.quote", tmp_path / "x.csv", "--from", "yesterday"], "is no sequence and no time"),
        ([quotes / "d.quote", tmp_path / "x.csv", "--from", "0"], "is no longer retained (the first one is 1)"),
        ([tmp_path / "nothing", tmp_path / "x.csv"], "nothing"),
        ([quotes / "d.quote", "/proc/x.csv"], "can't write /proc/x.csv"),
        ([quotes / "d.quote", "/proc/x"], "can't write /proc/x"),
        ([quotes / "d.quote", tmp_path / "x.xyz"], "can't write '.xyz' files (known: .parquet, .arrow, .feather, .csv;"),
        ([quotes, tmp_path / "x.parquet.gz"], "can't write '.gz' files"),
        ([quotes / "d.quote", tmp_path / "no" / "x.csv"], f"there is no folder {tmp_path / 'no'}"),
        ([quotes, tmp_path / "no" / "out"], f"there is no folder {tmp_path / 'no'}"),
        ([quotes / "d.quote", tmp_path / "x.csv", "--from", "2600-01-01"], "is out of range"),
        ([quotes / "d.quote", tmp_path / "x.csv", "--until", "1960-01-01"], "is out of range"),
    ):  # fmt: skip
        code, _, err = run(capsys, "log", "export", *arguments)
        assert (code, said in err) == (2, True), err
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "there.csv"]


def test_an_empty_export_says_so(capsys: pytest.CaptureFixture[str], quotes: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "q.parquet"
    assert run(capsys, "log", "export", quotes / "d.quote", file, "--from", "2100-01-01") == (
        0,
        f"{file}: no records of d.quote\n",
        "",
    )
    assert "bid" in parquet.read_table(file).column_names


def test_completion_names_verbs_channels_and_the_shell(
    capsys: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_FABRIC_COMPLETE" in run(capsys, "completion", shell)[1]
    monkeypatch.delenv("SHELL", raising=False)
    assert "which shell?" in run(capsys, "completion")[2]

    def complete(words: str) -> str:
        monkeypatch.setenv("_FABRIC_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        with pytest.raises(SystemExit):
            run_cli([])
        return capsys.readouterr()[0]

    assert "plain,tap" in complete("fabric ta")
    assert "plain,d.quote" in complete(f"fabric tap {config} d.")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be pinned here")
def test_cpus_are_checked_and_told(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    for value in ("0", "[0]"):
        given = ("--set", f"nodes.pricing.cpus={value}", "--set", "nodes.pricing.idle='spin'")
        nodes = json.loads(run(capsys, "explain", config, "--json", *given)[1])["nodes"]
        assert nodes == [
            {"node": "feed", "idle": "block", "cpus": [], "standby": False, "watchdog_seconds": 5.0, "other_host": []},
            {
                "node": "pricing",
                "idle": "spin",
                "cpus": [0],
                "standby": False,
                "watchdog_seconds": 5.0,
                "other_host": [],
            },
        ]
        assert "pricing waits by 'spin', on cpus 0" in run(capsys, "explain", config, *given)[1]
    for value, words in (
        ("[]", "names no processor"),
        (os.cpu_count(), f"no processor {os.cpu_count()}"),
        ("-1", "no processor -1"),
        ("[0, 0]", "twice"),
        ("'x'", "cpus"),
    ):
        code, _, told = run(capsys, "check", config, "--set", f"nodes.pricing.cpus={value}")
        assert code == 2
        assert "nodes.pricing.cpus" in told
        assert words in told


def test_explain_takes_rates_from_the_newest_run(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    from nodes.records import QUOTE

    topology = load_topology(str(config))
    run_directory = create_run(topology.directory, config.parent / "logs", 0, {}, now_ns=time.time_ns())
    log = run_directory.channel_log("d.quote")
    writer = LogWriter(log, "d.quote", channel_id("d.quote"), QUOTE, LogOptions(), now_ns=1)
    for number in range(201):
        writer.write(QUOTE.build(instrument=1), 10**18 + number * 10**7)
    writer.close()
    entry = next(
        each
        for each in json.loads(run(capsys, "explain", config, "--json")[1])["channels"]
        if each["channel"] == "d.quote"
    )
    assert entry["records_per_second"] == 100.0
    assert entry["window_seconds"] == pytest.approx(128 * 2**20 / 64 / 100, abs=0.1)
    assert "window   5 h 49 min at 100 records/s" in run(capsys, "explain", config)[1]


def test_a_standby_on_another_host_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    feed = run(capsys, "explain", str(CONFIGS / "two-hosts-standby-feed.toml"))[1]
    assert "a standby that joins at tcp://*:7103 has each record before anybody sees it; it goes on without" in feed
    assert "asks tcp://127.0.0.1:7202 each second whether a standby has taken over" in feed
    standby = run(capsys, "explain", str(CONFIGS / "two-hosts-standby.toml"))[1]
    assert "stands by (sync) for the node at tcp://127.0.0.1:7101" in standby
    assert "takes over after 5.00 s of silence" in standby
    desk = run(capsys, "explain", str(CONFIGS / "two-hosts-standby-desk.toml"))[1]
    assert "standby  publishes at tcp://127.0.0.1:7201 once it has taken over" in desk
    assert "then     the standby at tcp://127.0.0.1:7202" in desk
