"""The archive keeps what the publisher's log has no more; its own death loses nothing; who was away gets all of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.cli.main import run_cli
from fabric.config.load import load_topology
from fabric.errors import LogError
from fabric.log import LogOptions, LogReader
from fabric.log.follower import Followed, FollowerLog
from fabric.records import Flags
from fabric.rundir import RunDirectory
from fabric.runtime.journal import Entry, Kind
from fabric.runtime.ports import InputPort
from fabric.runtime.resume import CannotResume, RangeFetcher
from fabric.supervise.lives import read_lives
from fabric.transport.logserver import LogServer
from fabric.transport.replay import fetch_range

pytestmark = pytest.mark.system

NUMBER = fabric.record("number", value="u8")
SIZES = LogOptions(retain_bytes=2 << 16, segment_bytes=1 << 16)
DEMO = (
    "--set", "nodes.feed.records_per_second=6000",
    "--set", 'channels."demo.quote".retain="1MiB"', "--set", 'channels."demo.quote".segment="64KiB"',
    "--set", 'archive.channels=["demo.quote", "demo.trade"]', "--set", 'archive.segment="64KiB"',
)  # fmt: skip


def archive_pid(run: Path) -> int:
    """By the lock of its log."""
    return int((run.parent / "archive" / "demo.quote" / "lock").read_text())


@pytest.mark.timeout(120)
def test_it_outlives_retention_a_kill_of_its_own_and_of_the_feed(up: Any, waiting: Callable[..., Any]) -> None:
    fabric_ = up("demo", *DEMO)
    here = waiting(lambda: fabric_.run.parent / "archive", "the archive")
    published = waiting(lambda: LogReader(fabric_.log("demo.quote")), "the publisher's log")
    archived = waiting(lambda: LogReader(here / "demo.quote"), "the archive's log")
    waiting(lambda: archived.next > 2000, "records in the archive")
    first = archive_pid(fabric_.run)
    os.kill(first, signal.SIGKILL)
    fabric_.kill("feed")
    waiting(lambda: archive_pid(fabric_.run) != first, "another archive")
    waiting(lambda: published.first_available > 4000, "retention")
    waiting(lambda: archived.next > published.first_available, "the archive up to date")

    # Of the session's beginning the publisher's log has nothing any more; by name the log server still has it.
    endpoint = load_topology(
        Path(__file__).resolve().parents[2] / "configs" / "demo.toml", (f"data_dir={fabric_.data_dir}",)
    )
    for where in (endpoint.replay_endpoint, endpoint.archive_endpoint):
        got = fetch_range(where, "demo.quote", published.record, published.session, 1, 3000)
        assert got is not None
        kept = np.concatenate([view for _, view in archived.read_range(1, 3000)])
        assert got.tobytes() == kept.tobytes()
    # A reader that begins at the first record gets each one, though it maps the log of this host.
    with fabric.subscribe(
        "demo.quote",
        data=endpoint.data_endpoint_of("demo.quote"),
        replay=endpoint.replay_endpoint,
        start="first",
    ) as reader:
        position = 0
        while position < 6000:
            batch = reader.poll(timeout=20)
            assert batch is not None
            assert batch.first == position + 1
            position = batch.last
        assert (reader.counters.lost, reader.counters.skipped) == (0, 0)
    fabric_.stop()
    report = fabric_.report()
    assert report["archive"]["demo.quote"]["last_sequence"] == report["channels"]["demo.quote"]["published"]
    assert report["archive"]["demo.quote"]["holes"] == 0
    assert len(read_lives(fabric_.run)["archive"]) == 2
    # Its records are the publisher's, byte by byte, and whole.
    for first_sequence, view in published.read_range(published.first_available, published.next - 1):
        same = np.concatenate([part for _, part in archived.read_range(first_sequence, first_sequence + len(view) - 1)])
        assert same.tobytes() == view.tobytes()
    assert run_cli(["log", "verify", str(here / "demo.quote")]) == 0
    assert not RunDirectory(fabric_.run).channel_log("@archive").exists()


def make(first: int, count: int) -> Any:
    records = NUMBER.build(count, value=np.arange(first, first + count))
    records["ts_publish_ns"] = 10**18 + first
    records["flags"][-1] = Flags.LAST_IN_EVENT
    return records


def follower(directory: Path, session: int, upto: int, hole: tuple[int, int] | None = None) -> FollowerLog:
    log = FollowerLog(
        directory, "numbers", fabric.channel.channel_id("numbers"), NUMBER, SIZES, Followed(session, 0, 0, 1), now_ns=1
    )
    if hole is not None:
        log.follow(1, make(1, hole[0] - 1))
        log.skip(hole[1])
    log.follow(log.next, make(log.next, upto - log.next + 1))
    return log


def test_a_reader_gets_from_the_archive_what_is_there_and_lost_for_its_hole(
    endpoints: Any, other_endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    with fabric.publish(
        "numbers", NUMBER, listen=endpoints[0], replay=other_endpoints[1], log_dir=tmp_path / "log", options=SIZES
    ) as out:
        for _ in range(300):
            out.send(value=np.arange(out.next, out.next + 20))
        log = waiting(lambda: (log := LogReader(tmp_path / "log")).first_available > 2000 and log, "retention")
        archive = follower(tmp_path / "archive", out.session, 5000, hole=(301, 450))
        identity = fabric.channel.channel_id("numbers")
        server = LogServer(
            [endpoints[1]], {identity: tmp_path / "log"}.get, archive={identity: tmp_path / "archive"}.get
        ).start()
        try:
            told: list[Any] = []
            with fabric.subscribe(
                "numbers", data=endpoints[0], replay=endpoints[1], start="first", record=NUMBER, on_lost=told.append
            ) as reader:
                values: list[int] = []
                while not values or values[-1] < 6000:
                    batch = reader.poll(timeout=20)
                    assert batch is not None, (reader, told, len(values))
                    values += batch.records["value"].tolist()
            assert values == [*range(1, 301), *range(451, 6001)]
            assert [(each.first, each.last) for each in told] == [(301, 450)]
            assert log.first_available > 2000
        finally:
            server.close()
            archive.close()


def test_a_session_whose_log_is_gone_is_replayed_to_its_end_by_name(endpoints: Any, tmp_path: Path) -> None:
    archive = follower(tmp_path / "archive", (5 << 32) | 1, 400)
    archive.close()
    newer = follower(tmp_path / "archive", (6 << 32) | 1, 10)
    identity = fabric.channel.channel_id("numbers")
    server = LogServer([endpoints[1]], {identity: tmp_path / "log"}.get, archive={identity: tmp_path / "archive"}.get)
    server.start()
    try:
        got = fetch_range(endpoints[1], "numbers", NUMBER, (5 << 32) | 1, 390, 400)
        assert got is not None
        assert got["value"].tolist() == list(range(390, 401))
        assert fetch_range(endpoints[1], "numbers", NUMBER, (4 << 32) | 1, 1, 2, timeout=2) is None
    finally:
        server.close()
        newer.close()
    with pytest.raises(LogError):
        LogReader(tmp_path / "log")


def test_an_archive_of_another_fabrics_channel_has_no_nodes(
    up: Any, endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    config = tmp_path / "keeper.toml"
    config.write_text(
        f'fabric = "keeper"\n[channels.numbers]\nconnect = "{endpoints[0]}"\nreplay = "{endpoints[1]}"\n'
        '[archive]\nchannels = ["numbers"]\nsegment = "64KiB"\n'
    )
    with fabric.publish(
        "numbers", NUMBER, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log", options=SIZES
    ) as out:
        out.send(value=np.arange(1, 101))
        keeper = up(config)
        archived = waiting(lambda: LogReader(keeper.data_dir / "keeper" / "archive" / "numbers"), "the archive's log")
        while out.next <= 20_000:
            waiting(lambda: archived.next == out.next, "all in the archive")
            out.send(value=np.arange(out.next, out.next + 1000))
        waiting(lambda: archived.next == out.next, "all in the archive")
        endpoint = load_topology(config, (f"data_dir={keeper.data_dir}",)).archive_endpoint
        got = fetch_range(endpoint, "numbers", NUMBER, out.session, 1, out.next - 1)
        assert got is not None
        assert got["value"].tolist() == list(range(1, out.next))
        assert LogReader(tmp_path / "log").first_available > 1
        keeper.stop()
        assert keeper.report()["archive"]["numbers"]["last_sequence"] == out.next - 1


def test_exact_resume_reads_from_it_what_the_log_has_no_more(tmp_path: Path) -> None:
    session = (5 << 32) | 1
    archive = follower(tmp_path / "archive", session, 400, hole=(301, 350))
    archive.close()
    port = InputPort("number", NUMBER, "numbers")
    where: dict[str, Path | str] = {"numbers": tmp_path / "log"}
    fetcher = RangeFetcher(where, tmp_path, archive={"numbers": tmp_path / "archive"})
    records = fetcher.fetch(port, Entry(Kind.DATA, 0, session, 1, 300))
    assert records["value"].tolist() == list(range(1, 301))
    with pytest.raises(CannotResume, match="records 291 to 310 are gone"):
        fetcher.fetch(port, Entry(Kind.DATA, 0, session, 291, 20))
    with pytest.raises(CannotResume, match="records 1 to 300 are gone"):
        RangeFetcher(where, tmp_path).fetch(port, Entry(Kind.DATA, 0, session, 1, 300))


def test_exact_resume_asks_an_archive_elsewhere(tmp_path: Path, short_directory: Path) -> None:
    session = (5 << 32) | 1
    follower(tmp_path / "archive", session, 400).close()
    identity = fabric.channel.channel_id("numbers")
    ends = [f"ipc://{short_directory}/{name}" for name in ("log", "archive")]
    finds = [{identity: tmp_path / "log"}.get, {identity: tmp_path / "archive"}.get]
    servers = [LogServer([end], find).start() for end, find in zip(ends, finds, strict=True)]
    try:
        port, where = InputPort("number", NUMBER, "numbers"), {"numbers": ends[0]}
        fetcher = RangeFetcher({**where}, tmp_path, archive={"numbers": ends[1]})
        records = fetcher.fetch(port, Entry(Kind.DATA, 0, session, 11, 300))
        assert records["value"].tolist() == list(range(11, 311))
        with pytest.raises(CannotResume, match="can't be had"):
            RangeFetcher({**where}, tmp_path).fetch(port, Entry(Kind.DATA, 0, session, 11, 300))
    finally:
        for server in servers:
            server.close()
