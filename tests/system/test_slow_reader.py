"""A reader that stops: what each policy gives it, by every path, and accounts that add up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.client import intake
from fabric.errors import UserMistake
from fabric.log import LogOptions, LogReader
from fabric.protocol.types import Limits
from fabric.testing import ManualClock

pytestmark = pytest.mark.system
PRICE = fabric.record("slow_price", image="last", value="u8")
FILL = fabric.record("slow_fill", value="u8")
KEYS = 7
ROOM = 2000


@pytest.fixture(params=("local", "ipc", "tcp"))
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that a test can fill."""
    monkeypatch.setattr(intake, "QUEUE_RECORDS", ROOM)


def publish(endpoints: Any, tmp_path: Path, record: fabric.RecordType = PRICE, **more: Any) -> fabric.ChannelWriter:
    return fabric.publish("prices", record, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", **more)


def subscribe(endpoints: Any, **more: Any) -> fabric.Subscription:
    return fabric.subscribe("prices", data=endpoints[0], replay=endpoints[1], path=endpoints.path, **more)


def send(out: fabric.ChannelWriter, first: int, count: int, chance: random.Random) -> None:
    """Record number n has value n, in events of some records."""
    last = first + count
    while first < last:
        step = min(chance.randint(1, 40), last - first)
        numbers = np.arange(first, first + step)
        out.send(instrument=numbers % KEYS, value=numbers)
        first += step


def check_accounts(reader: fabric.Subscription, published: int) -> None:
    counters = reader.counters
    accounted = counters.received + counters.conflated + counters.skipped + counters.lost
    assert accounted == published, counters


def knows(reader: fabric.Subscription, sequence: int) -> Callable[[], bool]:
    return lambda: reader.feeds["prices"].newest >= sequence


def test_the_latest_of_each_key_is_what_a_slow_reader_gets(
    endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    seed = 5
    print("seed", seed)
    chance = random.Random(seed)
    fault = {"fault": "drop=0.02,seed=9"} if endpoints.path != "local" else {}
    total, sent = 60_000, 0
    with publish(endpoints, tmp_path, **fault) as out, subscribe(endpoints, start="first", policy="latest") as prices:
        prices.wait_live(10)
        got: list[int] = []
        conflated = 0

        def take(batch: fabric.Batch) -> None:
            nonlocal conflated
            sequences = batch.sequences.tolist()
            assert batch.records["value"].tolist() == sequences, "each record is its own"
            assert not got or got[-1] < batch.first
            assert batch.first <= sequences[0]
            assert sequences[-1] <= batch.last
            assert batch.contiguous == (batch.conflated == 0)
            conflated += batch.conflated
            got.extend(sequences)

        while sent < total:
            burst = min(chance.choice((1, 30, 20_000)), total - sent)
            send(out, sent + 1, burst, chance)
            sent += burst
            if chance.random() < 0.3:
                waiting(knows(prices, sent), "what was sent", 20)
            for _ in range(chance.randint(0, 2)):
                if (batch := prices.poll(chance.choice((None, 3)))) is not None:
                    take(batch)
        out.end()
        for batch in prices:
            take(batch)
        assert sorted(got) == got
        assert len(got) == len(set(got))
        newest = {number % KEYS: number for number in range(1, total + 1)}
        assert set(got[-KEYS:]) == set(newest.values()), "the newest of each key came"
        assert conflated == prices.counters.conflated > total // 2
        assert len(got) == prices.counters.received
        check_accounts(prices, total)


def test_an_ordered_reader_that_stops_gets_every_record_later(
    endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    seed = 6
    print("seed", seed)
    total = 40_000
    with publish(endpoints, tmp_path) as out, subscribe(endpoints, start="live", limits=tight()) as prices:
        prices.wait_live(10)
        send(out, 1, total, random.Random(seed))
        waiting(knows(prices, total), "what was sent", 20)
        out.end()
        got = [value for batch in prices for value in batch.records["value"].tolist()]
        assert got == list(range(1, total + 1))
        assert prices.counters.conflated == 0
        if endpoints.path != "local":
            assert prices.counters.replayed > 0, "its queue was full: live packets were passed over, and replayed"
        check_accounts(prices, total)


def tight() -> Limits:
    return Limits(max_queued_records=ROOM, max_held_records=ROOM)


def test_with_more_keys_than_room_the_latest_comes_by_replay(
    endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    keys, total = 3 * ROOM, 12 * ROOM
    with (
        publish(endpoints, tmp_path) as out,
        subscribe(endpoints, start="live", policy="latest", limits=tight()) as prices,
    ):
        prices.wait_live(10)
        for first in range(1, total + 1, 100):
            numbers = np.arange(first, first + 100)
            out.send(instrument=numbers % keys, value=numbers)
        waiting(knows(prices, total), "what was sent", 20)
        out.end()
        got = [value for batch in prices for value in batch.records["value"].tolist()]
        assert got == sorted(got)
        assert set(got[-keys:]) == set(range(total - keys + 1, total + 1))
        check_accounts(prices, total)


@pytest.mark.parametrize("policy", ["ordered", "latest"])
def test_beyond_retention_what_a_snapshot_passes_over_is_skipped(
    policy: Any, endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    little = LogOptions(retain_bytes=8 << 16, segment_bytes=1 << 16)
    total = 40_000
    with (
        publish(endpoints, tmp_path, options=little) as out,
        subscribe(endpoints, start="live", policy=policy, limits=tight()) as prices,
    ):
        prices.wait_live(10)
        out.send(value=1, instrument=1)
        waiting(lambda: prices.poll(), "the first record")
        send(out, 2, total - 1, random.Random(8))
        waiting(knows(prices, total), "what was sent", 20)
        waiting(lambda: LogReader(tmp_path / "log").first_available > total // 2, "retention", 20)
        out.end()
        got: dict[int, int] = {}
        for batch in prices:
            got.update(zip(batch.records["instrument"].tolist(), batch.records["value"].tolist(), strict=True))
        assert got == {number % KEYS: number for number in range(total - KEYS + 1, total + 1)}
        if endpoints.path == "local":  # by packets it may have come in before retention removed it
            assert prices.counters.skipped > 0
        check_accounts(prices, total)


def test_too_slow_is_raised_once_with_how_far_and_then_it_goes_on(
    endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    chance = random.Random(1)
    with (
        publish(endpoints, tmp_path) as out,
        subscribe(endpoints, start="live", policy="fail", max_behind=100, limits=tight()) as prices,
    ):
        prices.wait_live(10)
        got: list[int] = []

        def read_to(last: int) -> None:
            while not got or got[-1] < last:
                batch = prices.poll(50, timeout=10)
                assert batch is not None
                got.extend(batch.records["value"].tolist())

        send(out, 1, 100, chance)
        waiting(knows(prices, 100), "what was sent")
        read_to(20)  # 100 behind is not too many
        send(out, 101, 9900, chance)
        waiting(knows(prices, 10_000), "what was sent")
        with pytest.raises(fabric.SlowReader, match="records 51 to 10000 wait to be read: 9950, more than 100") as slow:
            prices.poll(50)
        assert (slow.value.first, slow.value.last, slow.value.behind) == (51, 10_000, 9950)
        assert slow.value.channel == "prices"
        read_to(10_000)  # told once; all are there
        send(out, 10_001, 101, chance)
        waiting(knows(prices, 10_101), "what was sent")
        with pytest.raises(fabric.SlowReader, match="records 10001 to 10101"):
            next(prices)
        read_to(10_101)
        assert got == list(range(1, 10_102))
        check_accounts(prices, 10_101)


def test_what_a_reader_begins_with_is_not_its_slowness(endpoints: Any, tmp_path: Path) -> None:
    with publish(endpoints, tmp_path) as out:
        send(out, 1, 5000, random.Random(2))
        out.end()
        with subscribe(endpoints, start="first", policy="fail", max_behind=100) as prices:
            assert sum(len(batch) for batch in prices) == 5000


def test_in_an_event_loop_it_is_the_same(endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]) -> None:
    async def main() -> None:
        with publish(endpoints, tmp_path) as out:
            async with fabric.connect() as client:
                where = {"data": endpoints[0], "replay": endpoints[1], "path": endpoints.path, "start": "live"}
                newest = client.subscribe("prices", **where, policy="latest")
                failing = client.subscribe("prices", **where, policy="fail", max_behind=100)
                await newest.wait_live_async(10)
                await failing.wait_live_async(10)
                send(out, 1, 3000, random.Random(3))
                while not knows(newest, 3000)() or not knows(failing, 3000)():
                    await asyncio.sleep(0)
                out.end()
                with pytest.raises(fabric.SlowReader):
                    await anext(failing)
                assert [value async for batch in failing for value in batch.records["value"].tolist()] == list(
                    range(1, 3001)
                )
                got = [value async for batch in newest for value in batch.records["value"].tolist()]
                assert set(got[-KEYS:]) == set(range(3000 - KEYS + 1, 3001))
                assert len(got) < 3000
                check_accounts(newest, 3000)
                check_accounts(failing, 3000)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_fills_are_never_conflated(endpoints: Any, tmp_path: Path) -> None:
    with publish(endpoints, tmp_path, FILL) as out:
        out.send(value=[1, 2, 3])
        with pytest.raises(UserMistake, match="each one counts"):
            subscribe(endpoints, record=FILL, policy="latest")
        with subscribe(endpoints, start="first", policy="latest") as learnt:
            for read in (lambda: learnt.wait_live(10), lambda: learnt.poll(timeout=10), lambda: next(learnt)):
                with pytest.raises(UserMistake, match="'slow_fill'"):
                    read()
        with subscribe(endpoints, start="first") as fills:
            assert next(fills).records["value"].tolist() == [1, 2, 3]


def test_older_than_max_age_is_stale_when_handed_out(endpoints: Any, tmp_path: Path) -> None:
    clock = ManualClock()
    with publish(endpoints, tmp_path, clock=clock) as out:
        for value in range(1, 7):
            out.send(value=value)
            clock.advance(100_000_000)
        out.end()  # published 600, 500 ... 100 ms ago
        for policy in ("ordered", "latest"):
            with subscribe(
                endpoints, start="first", max_age="350ms", clock_ns=clock.now_ns, policy=policy, record=PRICE
            ) as prices:
                got = {}
                for batch in prices:
                    got.update(dict.fromkeys(batch.records["value"].tolist(), batch.stale))
                ages = {1: True, 2: True, 3: True, 4: False, 5: False, 6: False}
                assert got == {value: ages[value] for value in got}
                assert 6 in got
                assert policy == "latest" or len(got) == 6
