"""Lines and rungs in a config: what is taken, what is refused, and where they are shown."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from fabric.cli.main import run_cli
from fabric.client.endpoints import find_endpoints
from fabric.config.load import load_topology
from fabric.config.saved import save_source
from fabric.errors import ConfigError
from fabric.protocol.ladder import Rung
from fabric.rundir import create_run
from fabric.runtime.gauges import BREAKER_STATES, LINE_STATES
from fabric.runtime.page import NodePage, NodeState, page_names

FABRIC = """
fabric = "desk"
[channels."x.quote"]
connect = ["tcp://10.0.1.7:7010", "tcp://10.0.2.7:7010"]
replay = "tcp://10.0.1.7:7011"
archive = "tcp://10.0.3.7:7012"
[channels."x.instrument"]
connect = "tcp://10.0.1.7:7010"
replay = "tcp://10.0.1.7:7011"
[nodes.pricing]
use = "pricing"
inputs = { quote = "x.quote", instrument = "x.instrument" }
outputs = { greeks = "x.greeks" }
"""
QUOTE = 'channels."x.quote".'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "desk.toml"
    path.write_text(FABRIC)
    return path


def test_what_a_channel_says_is_what_readers_do(config: Path) -> None:
    topology = load_topology(config, (f'{QUOTE}reorder="3ms"', f'{QUOTE}recovery_deadline="5s"'))
    both = ("tcp://10.0.1.7:7010", "tcp://10.0.2.7:7010")
    rungs = (Rung("log", "tcp://10.0.1.7:7011"), Rung("archive", "tcp://10.0.3.7:7012"))
    found = find_endpoints("x.quote", topology, None, None)
    assert (found.data, found.rungs) == (both, rungs)
    assert (found.limits.reorder_ns, found.limits.recovery_deadline_ns) == (3_000_000, 5_000_000_000)
    assert topology.lines_of("x.instrument") == both[:1]
    assert topology.rungs_of("x.instrument") == rungs[:1]
    assert topology.limits_of("x.instrument").reorder_ns == 0
    assert topology.limits_of("x.quote").snapshots
    assert not load_topology(config, (f'{QUOTE}recovery=["log", "archive"]',)).limits_of("x.quote").snapshots
    assert topology.lines_of("x.greeks") == (topology.node_endpoint("pricing"),)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('connect=["tcp://a:1", "tcp://a:1"]', "names 2 lines"),
        ('connect=["tcp://a:1", "tcp://a:2", "tcp://a:3", "tcp://a:4", "tcp://a:5"]', "names 5 lines"),
        ('connect=["tcp://a:1", "tcp://*:2"]', "connect"),
        ('recovery=["archive", "log"]', "is no order"),
        ('recovery=["log", "snapshot", "archive"]', "is no order"),
        ("recovery=[]", "is no order"),
        ('recovery=["log", "snapshot"]', "is not in recovery"),
        ('recovery=["log", "moon"]', "recovery"),
        ('recovery_deadline="1ms"', "is shorter than 1s"),
        ("rate=0.0", "is not above 0"),
        ("buffer=8191", "is less than 8,192"),
    ],
)
def test_what_makes_no_sense_is_refused(config: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_topology(config, (QUOTE + setting,))


def test_what_waits_in_a_reader_is_bounded_as_configured(config: Path) -> None:
    for text, queued, request in (("", 262_144, 65_536), ("buffer=10000", 10_000, 10_000)):
        limits = load_topology(config, (QUOTE + text,) if text else ()).limits_of("x.quote")
        assert (limits.max_queued_records, limits.max_held_records) == (queued, queued)
        assert limits.max_request_records == request


def test_an_archive_of_our_own_channel_needs_no_mention(config: Path) -> None:
    with pytest.raises(ConfigError, match="that this fabric writes"):
        load_topology(config, ('channels."x.greeks".archive="tcp://a:1"',))
    with pytest.raises(ConfigError, match="less than 1MiB"):
        load_topology(config, ('replay_rate="1KiB"',))


def test_lines_and_rungs_are_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (f"data_dir={config.parent}",)
    topology = load_topology(config, settings)
    assert run_cli(["explain", str(config), "--set", settings[0]]) == 0
    told = capsys.readouterr().out
    assert "line B   tcp://10.0.2.7:7010" in told
    assert "the archive at tcp://10.0.3.7:7012" in told
    run = create_run(topology.directory, config.parent / "logs", 0, {}, now_ns=time.time_ns())
    save_source(run.path, topology.source)
    (run.path.parent / "up.lock").write_text(str(os.getpid()))
    names = page_names(["instrument", "quote"], ["call"], {"quote": 2}, {"quote": ["log", "archive"]})
    page = NodePage(run.node("pricing") / "page", *names)
    page.set("state", NodeState.RUNNING)
    page.set("pid", os.getpid())
    page.set("in.quote.state", 1)
    page.set("in.quote.A.state", LINE_STATES.index("LIVE"))
    page.set("in.quote.B.state", LINE_STATES.index("LOST"))
    page.set("in.quote.B.late", 7)
    page.set("in.quote.log.state", BREAKER_STATES.index("OPEN"))
    page.set("in.quote.archive.records", 9)
    top = ["top", str(run.path), "--once", "--every", "50ms"]
    assert run_cli(top) == 0
    shown = capsys.readouterr().out
    assert "LIVE (line B LOST) (log NO ANSWER)" in shown
    assert run_cli([*top, "--json"]) == 0
    reader = json.loads(capsys.readouterr().out)["channels"]["x.quote"]["subscribers"]["pricing"]
    assert reader["lines"]["B"] == {"state": "LOST", "received": 0, "first": 0, "duplicates": 0, "late": 7, "losses": 0}
    assert reader["rungs"]["archive"] == {"state": "CLOSED", "opened": 0, "requests": 0, "records": 9}
