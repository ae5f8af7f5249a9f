"""Every way of waiting, on every path: the same records, made again with the same bits; processes where they are pinned."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from fabric.cli.main import run_cli
from fabric.runtime.page import PATHS

pytestmark = pytest.mark.system


@pytest.mark.parametrize("path", ["local", "ipc"])
@pytest.mark.parametrize("idle", ["block", "yield", "spin"])
def test_every_way_of_waiting_takes_all(up: Any, waiting: Callable[..., Any], idle: str, path: str) -> None:
    settings = [f"nodes.{node}.idle='{idle}'" for node in ("feed", "pricing", "risk")]
    settings += [f"channels.'demo.{name}'.path='{path}'" for name in ("quote", "greeks")]
    settings += ["nodes.feed.records_per_second=500"]
    if hasattr(os, "sched_setaffinity"):
        settings.append("nodes.pricing.cpus=0")
    fabric = up("demo", *(word for setting in settings for word in ("--set", setting)))
    waiting(lambda: fabric.count("risk", "cycles") > 200, "risk at work")
    if hasattr(os, "sched_setaffinity"):
        assert os.sched_getaffinity(fabric.count("pricing", "pid")) == {0}
        assert os.sched_getaffinity(fabric.count("risk", "pid")) == os.sched_getaffinity(0)
    waiting(lambda: PATHS[fabric.count("risk", "in.greeks.path")] == path, "its way of getting records")
    fabric.stop()
    report = fabric.report()
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert counts["lost"] == counts["skipped"] == 0, (name, reader)
            assert counts["received"] == channel["published"], (name, reader)
    assert report["channels"]["demo.greeks"]["subscribers"]["risk"]["path"] == path
    assert run_cli(["play", report["run"]]) == 0
