"""The client: event loops, callbacks, tables, several channels, and every way in which a program can end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import fabric
from fabric.errors import Closed, ConfigError, NotConnected, UserMistake
from fabric.log import LogOptions
from fabric.protocol.types import Limits
from fabric.testing import ManualClock

pytestmark = pytest.mark.system
NUMBER = fabric.record("number", image="last", key=("instrument",), value="u8")
SMALL = LogOptions(retain_bytes=8 << 16, segment_bytes=1 << 16)


@pytest.fixture(params=("local", "ipc", "tcp"))
def path(request: pytest.FixtureRequest) -> str:
    """Every test here holds on every path, but for those about packets, which take ``sockets``."""
    return str(request.param)


def publish(endpoints: tuple[str, str], tmp_path: Path, **more: Any) -> fabric.ChannelWriter:
    return fabric.publish("numbers", NUMBER, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", **more)


def where(endpoints: tuple[str, str]) -> dict[str, Any]:
    return {"data": endpoints[0], "replay": endpoints[1], "path": getattr(endpoints, "path", "auto")}


def run_in(loop: str, main: Any) -> None:
    if loop == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(asyncio.wait_for(main, 60))
    else:
        asyncio.run(asyncio.wait_for(main, 60))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_async_for_drains_in_the_loop_without_a_thread(loop: str, sockets: tuple[str, str], tmp_path: Path) -> None:
    async def main() -> None:
        with publish(sockets, tmp_path, fault="drop=0.05,seed=3") as out:
            async with fabric.connect() as client:
                numbers = client.subscribe("numbers", **where(sockets), start="first")
                await numbers.wait_live_async(10)
                assert not [each for each in threading.enumerate() if each.name == "fabric-client"]

                async def produce() -> None:
                    for first in range(1, 20_001, 10):
                        out.send(value=np.arange(first, first + 10))
                        if first % 200 == 1:
                            await asyncio.sleep(0)
                    out.end()

                task = asyncio.create_task(produce())
                got = [value async for batch in numbers for value in batch.records["value"].tolist()]
                assert got == list(range(1, 20_001))
                assert numbers.counters.missed == numbers.counters.recovered > 0
                await task
                with pytest.raises(UserMistake, match="stop the thread that receives"):
                    client.subscribe("numbers", **where(sockets), start="live").poll(timeout=1)

    run_in(loop, main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cancelling_a_read_at_any_moment_loses_nothing(loop: str, endpoints: tuple[str, str], tmp_path: Path) -> None:
    seed = 11
    print("seed", seed)
    chance = random.Random(seed)
    total = 3000

    async def main() -> None:
        with publish(endpoints, tmp_path) as out:
            async with fabric.subscribe("numbers", **where(endpoints), start="first") as numbers:
                got: list[int] = []
                cancelled = 0

                async def read() -> None:
                    async for batch in numbers:
                        got.extend(batch.records["value"].tolist())

                may_go_on = threading.Semaphore(1)  # one for each cancelled read, so that it is not over before them

                def produce() -> None:
                    for value in range(1, total + 1):
                        if value % 100 == 1:
                            may_go_on.acquire()
                        out.send(value=value)

                writer = asyncio.create_task(asyncio.to_thread(produce))
                while len(got) < total:
                    reader = asyncio.create_task(read())
                    await asyncio.sleep(chance.random() * 0.002)
                    reader.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await reader
                    cancelled += 1
                    may_go_on.release()
                await writer
                assert got == list(range(1, total + 1))
                assert cancelled > 3

    run_in(loop, main())


def test_async_for_also_works_on_a_client_with_a_thread(endpoints: tuple[str, str], tmp_path: Path) -> None:
    async def main() -> None:
        with publish(endpoints, tmp_path) as out, fabric.connect() as client:
            numbers = client.subscribe("numbers", **where(endpoints), start="first")
            await numbers.wait_live_async(10)
            assert [each for each in threading.enumerate() if each.name == "fabric-client"]
            out.send(value=[1, 2, 3])
            assert (await anext(numbers)).last == 3
            assert await numbers.poll_async(timeout=0.01) is None
            out.end()
            assert [batch async for batch in numbers] == []

    run_in("asyncio", main())


def test_other_tasks_get_their_turn_while_there_is_always_more(endpoints: tuple[str, str], tmp_path: Path) -> None:
    async def main() -> None:
        with publish(endpoints, tmp_path) as out:
            for value in range(1, 2001):
                out.send(value=value)
            out.end()
            with fabric.connect() as client:
                numbers = client.subscribe(
                    "numbers", **where(endpoints), start="first", limits=Limits(max_request_records=1)
                )
                await numbers.wait_live_async(30)
                turns = 0

                async def other() -> None:
                    nonlocal turns
                    while True:
                        turns += 1
                        await asyncio.sleep(0)

                task = asyncio.create_task(other())
                batches = [batch async for batch in numbers]
                task.cancel()
                assert sum(len(batch) for batch in batches) == 2000
                assert turns >= len(batches) // 64

    run_in("asyncio", main())


def test_start_calls_for_every_batch_until_the_end(endpoints: tuple[str, str], tmp_path: Path) -> None:
    got: list[int] = []
    with publish(endpoints, tmp_path) as out:
        numbers = fabric.subscribe("numbers", **where(endpoints), start="first")
        numbers.start(lambda batch: got.extend(batch.records["value"].tolist()))
        with pytest.raises(UserMistake, match="calls a function already"):
            numbers.start(print)
        for value in range(1, 501):
            out.send(value=value)
        out.end()
        assert numbers.join(20)
        numbers.close()
    assert got == list(range(1, 501))


def test_what_ends_the_calls_is_logged_kept_and_raised(
    endpoints: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(batch: fabric.Batch) -> None:
        raise KeyError("mine")

    with publish(endpoints, tmp_path) as out:
        numbers = fabric.subscribe("numbers", **where(endpoints), start="first").start(broken)
        out.send(value=1)
        with pytest.raises(KeyError, match="mine"):
            numbers.join(20)
        assert "calls for numbers have ended" in caplog.text
        numbers.close()


def test_several_channels_in_one_subscription(
    path: str, endpoints: tuple[str, str], other_endpoints: tuple[str, str], tmp_path: Path
) -> None:
    other = other_endpoints
    config = tmp_path / "two.toml"
    config.write_text(
        'fabric = "two"\n[nodes.x]\nuse = "feed.simulated"\noutputs = { quote = "x.quote" }\n'
        + "".join(
            f'[channels."{name}"]\nconnect = "{data}"\nreplay = "{replay}"\n'
            for name, (data, replay) in (("numbers", endpoints), ("others", other))
        )
    )
    with (
        publish(endpoints, tmp_path) as out,
        fabric.publish("others", NUMBER, listen=other[0], replay=other[1], log_dir=tmp_path / "log2") as out2,
        fabric.connect(config) as client,
    ):
        both = client.subscribe("numbers", "others", start="first", path=path)  # type: ignore[arg-type]
        both.wait_live(10)
        out.send(value=[1, 2, 3])
        out2.send(value=[4, 5])
        out.end()
        out2.end()
        got: dict[str, list[int]] = {"numbers": [], "others": []}
        for batch in both:
            got[batch.channel] += batch.records["value"].tolist()
        assert got == {"numbers": [1, 2, 3], "others": [4, 5]}
        assert both.state == "ENDED"
        assert both.counters.received == 5
        assert both.feeds["others"].last == 2
        with pytest.raises(UserMistake, match="several channels"):
            both.last  # noqa: B018
        with pytest.raises(ConfigError, match="no channel was named"):
            client.subscribe()


def test_a_subscription_can_end_while_its_client_goes_on(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, fabric.connect() as client:
        first = client.subscribe("numbers", **where(endpoints), start="first")
        second = client.subscribe("numbers", **where(endpoints), start="first")
        out.send(value=1)
        assert first.poll(timeout=10) is not None
        first.close()
        out.send(value=2)
        assert [batch.last for batch in (second.poll(timeout=10), second.poll(timeout=10)) if batch] in ([1, 2], [2])
        with pytest.raises(Closed):
            first.poll()
        assert list(first) == []
        third = client.subscribe("numbers", **where(endpoints), start="first")
        batch = third.poll(timeout=10)
        assert batch is not None
        client.close()
        assert list(third) == list(second) == []
        assert batch.records["value"][0] == 1, "views outlive close()"
        with pytest.raises(Closed):
            client.subscribe("numbers", **where(endpoints))


def test_a_table_is_current_while_python_sleeps(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    with publish(endpoints, tmp_path) as out, fabric.connect() as client:
        for value in range(1, 101):
            out.append(instrument=value % 10, value=value)
        out.flush()
        table = client.table("numbers", **where(endpoints))
        table.wait_live(10)
        assert (len(table), table.as_of, table.state) == (10, 100, "LIVE")
        assert table[3]["value"] == 93
        assert sorted(table.records["value"].tolist()) == list(range(91, 101))
        assert table.get(77) is None
        assert 77 not in table
        with pytest.raises(KeyError):
            table[77]
        with pytest.raises(UserMistake, match=r"a key of 'numbers' is \(instrument\)"):
            table[1, 2]
        out.send(instrument=3, value=1000)
        waiting(lambda: table[3]["value"] == 1000, "the update")
        assert table.as_of == 101
        records, sequences = table.snapshot()
        assert sequences.tolist()[-1] == 101
        assert records["value"][-1] == 1000
        table.close()
        assert table[3]["value"] == 1000


def test_a_table_starts_anew_with_a_new_session(
    endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    with fabric.connect() as client:
        table = client.table("numbers", **where(endpoints))
        with publish(endpoints, tmp_path) as out:
            out.send(instrument=[1, 2], value=[1, 2])
            waiting(lambda: len(table) == 2, "two records")
        shutil.rmtree(tmp_path / "log")
        with publish(endpoints, tmp_path) as out:
            out.send(instrument=3, value=3)
            waiting(lambda: 3 in table, "the new session", timeout=20)
            assert [int(row["instrument"]) for row in table] == [3]
            assert table.as_of == 1


def test_start_at_a_time(sockets: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]) -> None:
    begin = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    clock = ManualClock(int(begin.timestamp()) * 10**9)
    with publish(sockets, tmp_path, clock=clock, options=SMALL) as out, fabric.connect() as client:
        for value in range(1, 1001):
            out.send(value=value)
            clock.advance(10**9)

        def first_from(time_wanted: datetime) -> int:
            numbers = client.subscribe("numbers", **where(sockets), start=time_wanted)
            batch = numbers.poll(timeout=10)
            assert batch is not None
            numbers.close()
            return batch.first

        assert first_from(begin) == 1
        assert first_from(begin + timedelta(seconds=500)) == 501
        assert first_from(begin + timedelta(milliseconds=500_001)) == 502
        later = client.subscribe("numbers", **where(sockets), start=begin + timedelta(days=1))
        later.wait_live(10)
        out.send(value=1001)
        batch = later.poll(timeout=10)
        assert batch is not None
        assert batch.first == 1001, "a time to come begins with the next record"
        with pytest.raises(UserMistake, match="no time zone"):
            client.subscribe("numbers", **where(sockets), start=datetime(2026, 3, 1))  # noqa: DTZ001
        for value in range(1002, 30_000):
            out.append(value=value)
        out.flush()
        control = out._writer.control
        waiting(lambda: clock.advance(10**8) or control.first_available > 1, "retention")
        early = client.subscribe("numbers", **where(sockets), start=begin)
        with pytest.raises(fabric.RecordsLost, match="whether some were of the time asked for is not known"):
            early.poll(timeout=10)
        batch = early.poll(timeout=10)
        assert batch is not None
        assert batch.first > 1


def test_state_callbacks(endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]) -> None:
    changes: list[fabric.StateChange] = []
    with fabric.subscribe(
        "numbers", **where(endpoints), start="first", on_state=changes.append, limits=Limits(stale_ns=300_000_000)
    ) as numbers:
        with publish(endpoints, tmp_path) as out:
            numbers.wait_live(10)
            waiting(lambda: any(change.state == "LIVE" for change in changes), "LIVE")
            out.send(value=1)
        waiting(lambda: changes[-1].stale, "stale")
        with publish(endpoints, tmp_path) as out:
            waiting(lambda: not changes[-1].stale, "no longer stale")
            out.end()
            assert numbers.poll(timeout=10) is not None
            assert numbers.poll(timeout=10) is None
            waiting(lambda: changes[-1].state == "ENDED", "ENDED")
    assert {change.channel for change in changes} == {"numbers"}


def test_close_from_another_thread_ends_waiting(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path):
        numbers = fabric.subscribe("numbers", **where(endpoints), start="first")
        numbers.wait_live(10)
        ended = threading.Event()

        def read() -> None:
            assert list(numbers) == []
            ended.set()

        reader = threading.Thread(target=read)
        reader.start()
        numbers.close()
        assert ended.wait(10)
        reader.join()

        async def main() -> None:
            async with fabric.subscribe("numbers", **where(endpoints), start="first") as others:
                asyncio.get_running_loop().call_later(0.05, others.close)
                assert [batch async for batch in others] == []

        run_in("asyncio", main())


def test_a_reader_that_stops_is_told_of_and_bounded(
    sockets: tuple[str, str],
    tmp_path: Path,
    waiting: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fabric.client.intake.QUEUE_RECORDS", 500)
    limits = Limits(max_queued_records=500, max_held_records=500, max_request_records=500)
    caplog.set_level(logging.WARNING, "fabric.client")
    with (
        publish(sockets, tmp_path) as out,
        fabric.subscribe("numbers", **where(sockets), start="first", limits=limits) as numbers,
    ):
        numbers.wait_live(10)
        waiting(lambda: out.publication.wanted, "the subscription to reach the publisher")  # else nothing is sent
        most = 0
        for first in range(1, 30_001, 50):
            out.send(value=np.arange(first, first + 50))
            most = max(most, numbers.behind)
        waiting(lambda: numbers.counters.refused > 0, "a refusal")
        assert most <= 4 * 500 + 65_536 // NUMBER.size
        waiting(lambda: "does not keep up" in caplog.text, "a warning")
        got: list[int] = []
        while len(got) < 30_000:
            batch = numbers.poll(timeout=20)
            assert batch is not None
            got += batch.records["value"].tolist()
        assert got == list(range(1, 30_001))


def test_an_idle_client_turns_seldom(endpoints: tuple[str, str], tmp_path: Path, waiting: Callable[..., Any]) -> None:
    with publish(endpoints, tmp_path), fabric.subscribe("numbers", **where(endpoints), start="first") as numbers:
        numbers.wait_live(10)
        turns = 0
        pump = numbers._hub.pump

        def count() -> None:
            nonlocal turns
            turns += 1
            pump()

        numbers._hub.pump = count  # type: ignore[method-assign]
        begun = time.monotonic()
        waiting(lambda: turns >= 20, "turns")
        assert time.monotonic() - begun > 0.5, "not more than forty turns a second: ten heartbeats, ten time-outs"


READER = """
import sys, fabric, asyncio, threading
data, replay, path, how = sys.argv[1:]
where = {"data": data, "replay": replay, "path": path, "start": "first"}
if how == "block":
    numbers = fabric.subscribe("numbers", **where)
    numbers.wait_live(10)
    try:
        print("up", flush=True)
        for batch in numbers: pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
elif how == "callback":
    called = threading.Event()
    numbers = fabric.subscribe("numbers", **where)
    numbers.start(lambda batch: (print("up", flush=True), called.set()))
    called.wait()
elif how == "table":
    client = fabric.connect()
    table = client.table("numbers", data=data, replay=replay, path=path)
    table.wait_live(10)
    print("up", flush=True)
elif how == "loop":
    async def main():
        numbers = fabric.subscribe("numbers", **where)
        async for batch in numbers:
            print("up", flush=True)
            break
    asyncio.run(main())
elif how == "never":
    numbers = fabric.subscribe("numbers", **where)
    print("up", flush=True)
"""


@pytest.mark.parametrize("how", ["block", "callback", "table", "loop", "never"])
def test_a_program_ends_at_once_and_without_a_word(
    how: str, path: str, endpoints: tuple[str, str], tmp_path: Path
) -> None:
    with publish(endpoints, tmp_path) as out:
        out.send(value=1)
        command = [sys.executable, "-X", "dev", "-c", READER, *endpoints, path, how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            if how == "block":
                process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=20)
            assert process.returncode == 0, complaints
            assert complaints == ""
            assert ("interrupted" in said) == (how == "block")


def test_after_fork_the_child_is_told_and_the_parent_goes_on(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out, fabric.connect() as client:
        numbers = client.subscribe("numbers", **where(endpoints), start="first")
        numbers.wait_live(10)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            said = b""
            for call in (lambda: client.subscribe("x", **where(endpoints)), lambda: numbers.poll(), numbers.wait_live):
                try:
                    call()
                except Closed:
                    said += b"x"
            numbers.close()
            client.close()
            del numbers, client
            gc.collect()
            os.write(writing, said)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        assert os.read(reading, 10) == b"xxx"
        os.close(reading)
        out.send(value=1)
        assert numbers.poll(timeout=10) is not None


def test_what_nobody_uses_any_more_ends_by_itself(endpoints: tuple[str, str], tmp_path: Path) -> None:
    with publish(endpoints, tmp_path):
        client = fabric.connect()
        table = client.table("numbers", **where(endpoints))
        table.wait_live(10)
        thread = client._hub._thread
        assert thread is not None
        del client, table
        gc.collect()
        thread.join(10)
        assert not thread.is_alive()


def test_not_connected_says_why_to_coroutines_too(endpoints: tuple[str, str]) -> None:
    async def main() -> None:
        async with fabric.subscribe("numbers", **where(endpoints)) as numbers:
            with pytest.raises(NotConnected, match=f"nothing listens on {endpoints[0]}"):
                await numbers.wait_live_async(timeout=0.2)

    run_in("asyncio", main())
    with fabric.connect() as client, pytest.raises(NotConnected, match=f"nothing listens on {endpoints[0]}"):
        client.table("numbers", **where(endpoints)).wait_live(0.2)


def keys() -> tuple[str, fabric.Secret]:
    public, secret = zmq.curve_keypair()
    return public.decode(), fabric.Secret(secret.decode())


def test_curve_keys_are_checked_on_both_sides_and_told_by_name(tmp_path: Path, waiting: Callable[..., Any]) -> None:
    (server_public, server_secret), (public, secret), (_, stranger) = keys(), keys(), keys()
    anywhere = ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
    curve = fabric.CurveServer(server_secret, frozenset([public]))
    with publish(anywhere, tmp_path, curve=curve, fault="drop=0.2,seed=4") as out:
        there = where((out.data_endpoint, out.replay_endpoint))
        ours = fabric.CurveClient(server_public, secret)
        with fabric.connect() as client:
            numbers = client.subscribe("numbers", **there, curve=ours, start="first")
            table = client.table("numbers", **there, curve=ours)
            numbers.wait_live(10)
            waiting(lambda: numbers.feeds["numbers"].receiver.machine.active, "the subscription")
            for value in range(1, 501):
                out.send(value=value)
            got: list[int] = []
            while len(got) < 500:
                batch = numbers.poll(timeout=20)
                assert batch is not None
                got += batch.records["value"].tolist()
            assert got == list(range(1, 501))
            assert numbers.counters.recovered > 0, "replay is encrypted too"
            table.wait_live(10)
            assert table[0]["value"] == 500
        for wrong, said in (
            (fabric.CurveClient(server_public, stranger), "wrong key"),
            (fabric.CurveClient(public, secret), "key"),
            (None, "CURVE"),
        ):
            with fabric.subscribe("numbers", **there, curve=wrong, start="first") as refused:
                with pytest.raises(NotConnected, match=said):
                    refused.wait_live(timeout=2.0)
                assert refused.poll() is None
