"""How long a reader takes to catch up, as `fabric explain` reckons it, against a simulation of the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fabric.cli.main import run_cli
from fabric.cli.recovery import catch_up, reach_s, recovery_warnings
from fabric.config.load import load_topology
from fabric.config.topology import Topology

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
QUOTE = 'channels."demo.quote".'


def topology(*settings: str) -> Topology:
    return load_topology(CONFIG, settings)


@pytest.mark.parametrize(
    ("away", "live", "replay_mib"), [(10, 2_000, 1), (60, 10_000, 1), (30, 15_000, 1), (5, 100, 64)]
)
def test_it_is_what_a_simulation_says(away: int, live: int, replay_mib: int) -> None:
    found = catch_up(
        topology(f'replay_rate="{replay_mib}MiB"', f'{QUOTE}outage="{away}s"'), "demo.quote", size=64, rate=live
    )
    replayed, seconds, step = 0.0, float(away), 0.001
    while replayed < live * seconds:
        seconds += step
        replayed += found.replay_rate * step
    assert found.seconds == pytest.approx(seconds, rel=0.01)
    assert found.away_s == away


def test_who_publishes_faster_than_is_replayed_is_never_caught_up_with() -> None:
    slow = topology('replay_rate="1MiB"')
    found = catch_up(slow, "demo.quote", size=64, rate=20_000)
    assert found.seconds is None
    (line,) = recovery_warnings(slow, "demo.quote", 64, found)
    assert "never catches up" in line


def test_a_wish_that_retention_does_not_cover_is_warned_of() -> None:
    wish = topology(f'{QUOTE}outage="1h"', f'{QUOTE}retain="64MiB"')
    found = catch_up(wish, "demo.quote", size=64, rate=1_000)
    assert found.reach_s == pytest.approx((64 << 20) / 64 / 1_000)
    (line,) = recovery_warnings(wish, "demo.quote", 64, found)
    assert "set retain to" in line
    assert not recovery_warnings(wish, "demo.quote", 64, catch_up(wish, "demo.quote", 64, 10))


def test_age_and_the_archive_count() -> None:
    aged = topology(f'{QUOTE}retain_age="10s"')
    assert reach_s(aged, "demo.quote", 64, 1_000) == 10
    archived = topology(f'{QUOTE}retain_age="10s"', "archive={}", 'archive.keep="1d"')
    assert reach_s(archived, "demo.quote", 64, 1_000) == 86_400


def test_explain_tells_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = ["--set", f"data_dir={tmp_path}", "--set", f"{QUOTE}rate=1000.0", "--set", f'{QUOTE}outage="1d"']
    assert run_cli(["explain", str(CONFIG), *settings]) == 0
    told = capsys.readouterr()
    assert "has caught up" in told.out
    assert "a reader is to be away for 86,400 s" in told.err
    assert run_cli(["explain", str(CONFIG), *settings, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["channels"]
    (quote,) = (each for each in entries if each["channel"] == "demo.quote")
    assert quote["recovery"]["live_rate"] == 1000
    assert quote["recovery"]["seconds"] > quote["recovery"]["away_s"] == 86_400
