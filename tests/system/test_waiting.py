"""Every way of waiting, on every path: the same records, made again with the same bits; processes where they are pinned."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fabric
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
    run = up("demo", *(word for setting in settings for word in ("--set", setting)))
    waiting(lambda: run.count("risk", "cycles") > 200, "risk at work")
    if hasattr(os, "sched_setaffinity"):
        assert os.sched_getaffinity(run.count("pricing", "pid")) == {0}
        assert os.sched_getaffinity(run.count("risk", "pid")) == os.sched_getaffinity(0)
    waiting(lambda: PATHS[run.count("risk", "in.greeks.path")] == path, "its way of getting records")
    run.stop()
    report = run.report()
    for name, channel in report["channels"].items():
        for reader, counts in channel["subscribers"].items():
            assert counts["lost"] == counts["skipped"] == 0, (name, reader)
            assert counts["received"] == channel["published"], (name, reader)
    assert report["channels"]["demo.greeks"]["subscribers"]["risk"]["path"] == path
    assert run_cli(["play", report["run"]]) == 0


def test_a_coroutine_that_already_waits_gets_what_is_published_then(
    endpoints: tuple[str, str], path: str, tmp_path: Path
) -> None:
    """Also where nothing but records is new: no state changes, no channel is opened."""
    record = fabric.record("number", value="u8")

    async def read(out: fabric.ChannelWriter) -> list[int]:
        got: list[int] = []
        async with fabric.subscribe(
            "numbers", data=endpoints[0], replay=endpoints[1], start="first", path=path
        ) as numbers:
            await numbers.wait_live_async(10)
            for value in range(1, 20):
                batch = await numbers.poll_async(timeout=0.05)
                assert batch is None, "nothing was published"
                task = asyncio.create_task(numbers.poll_async(timeout=10))
                await asyncio.sleep(0)
                out.send(value=value)
                batch = await task
                assert batch is not None
                got += batch.records["value"].tolist()
        return got

    with fabric.publish("numbers", record, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log") as out:
        assert asyncio.run(read(out)) == list(range(1, 20))


def test_a_slow_reader_of_one_log_keeps_nobody_waiting_in_the_same_loop(short_directory: Path) -> None:
    """One reader has records before it that it does not take; the other one is woken for each of its own."""
    record = fabric.record("number", value="u8")

    def at(name: str) -> dict[str, Any]:
        return {"data": f"ipc://{short_directory}/{name}", "replay": f"ipc://{short_directory}/{name}.replay"}

    def publish(name: str) -> fabric.ChannelWriter:
        return fabric.publish(
            name, record, listen=at(name)["data"], replay=at(name)["replay"], log_dir=short_directory / f"{name}.log"
        )

    async def read(slow_out: fabric.ChannelWriter, out: fabric.ChannelWriter) -> float:
        async with fabric.connect() as client:
            slow, quick = (client.subscribe(name, **at(name), path="local") for name in ("slow", "quick"))
            await slow.wait_live_async(10)
            await quick.wait_live_async(10)
            slow_out.send(value=0)
            assert await slow.poll_async(timeout=10)
            waits = asyncio.create_task(slow.poll_async(timeout=10))
            await asyncio.sleep(0)
            slow_out.send(value=1)
            await waits
            took_s = 0.0
            for value in range(20):
                slow_out.send(value=value)
                task = asyncio.create_task(quick.poll_async(timeout=10))
                await asyncio.sleep(0.002)  # the slow one's bell has rung, and is not answered
                began_s = time.monotonic()
                out.send(value=value)
                batch = await task
                took_s += time.monotonic() - began_s
                assert batch is not None
                assert batch.records["value"].tolist() == [value]
            return took_s

    with publish("slow") as slow_out, publish("quick") as out:
        assert asyncio.run(read(slow_out, out)) < 5, "twenty wake-ups, each within milliseconds on an idle machine"
