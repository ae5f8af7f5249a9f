"""A live venue (the stand-in) through the whole fabric, over TLS: killed, resumed exactly, played again."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from fabric.cli.main import run_cli
from fabric.log import open_log
from fabric.records import Flags, Records
from fabric.runtime.journal import Cycle, Kind, read_cycles
from nodes.feed.deribit import DeribitFeed
from nodes.records import Action, Side
from nodes.testing.deribit_venue import DeribitVenue
from nodes.testing.running import RunningVenue
from nodes.testing.venue_market import VenueMarket

pytestmark = pytest.mark.system
SEED = 11
Books = dict[str, tuple[dict[float, float], dict[float, float]]]


def tls_of(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context, and the file of the authority that signed its certificate, both made now."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return context, folder / "ca.pem"


def whole(path: Path) -> Records:
    log = open_log(path)
    views = [view for _, view in log.read_range(log.base, log.next - 1)]
    return np.concatenate(views) if views else log.record.zeros(0)


def books_of(records: Records, symbols: dict[int, str]) -> Books:
    """What a reader of the channel has in the end."""
    books: Books = {}
    for row in records[["instrument", "price", "size", "action", "side"]].tolist():
        number, price, size, action, side = row
        if action == Action.CLEAR:
            books[symbols[number]] = ({}, {})
            continue
        levels = books[symbols[number]][0 if side == Side.BID else 1]
        if action == Action.DELETE:
            levels.pop(price, None)
        else:
            levels[price] = size
    return books


def truth_of(venue: DeribitVenue) -> Books:
    return {name: (dict(book.bids), dict(book.asks)) for name, book in venue.market.books.items()}


def arguments(url: str, ca_file: Path | None) -> list[str]:
    settings = {"source": f'"{url}"', "heartbeat": '"1s"', "reconnect_max": '"1s"', "instruments_every": '"2s"'}
    if ca_file is not None:
        settings["ca_file"] = f'"{ca_file}"'
    return [part for key, value in settings.items() for part in ("--set", f"nodes.feed.{key}={value}")]


def test_a_killed_live_feed_resumes_exactly_and_plays_again(
    up: Any, waiting: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tls, ca_file = tls_of(tmp_path)
    venue = DeribitVenue(VenueMarket(SEED), rate=400)
    print("seed", SEED)
    with RunningVenue(venue, tls=tls) as running:
        fabric = up("deribit-live", *arguments(running.url, ca_file))

        def published() -> int:
            return int(open_log(fabric.log("deribit.book")).next)

        waiting(lambda: published() > 500, "books at work")
        strike = running.call(venue.list_strike)
        waiting(lambda: running.call(venue.is_followed), "the new strike to be followed")
        for _ in range(2):
            pid = fabric.kill("feed")
            waiting(lambda pid=pid: fabric.count("feed", "pid") != pid, "the feed again")
            before = published()
            waiting(lambda: running.call(venue.is_followed), "all of it to be followed again")
            waiting(lambda before=before: published() > before + 300, "the feed going on")
        running.call(lambda: setattr(venue, "rate", 0.0))
        running.call(venue.touch_all)

        def right() -> bool:
            instruments = whole(fabric.log("deribit.instrument"))
            symbols = {number: name.decode() for number, name in instruments[["instrument", "symbol"]].tolist()}
            return books_of(whole(fabric.log("deribit.book")), symbols) == running.call(lambda: truth_of(venue))

        waiting(right, "the books to be those of the venue")
        fabric.process.send_signal(signal.SIGINT)
        report = fabric.report()
    feed = report["nodes"]["feed"]
    assert (report["ended"], feed["restarts"], feed["errors"]) == ("stopped", 2, 0)
    source = report["sources"]["feed"]
    assert (source["malformed"], source["chain_breaks"]) == (0, 0)
    assert source["disconnects"] == 2
    assert strike.encode() in whole(fabric.log("deribit.instrument"))["symbol"].tolist()
    for channel in report["channels"].values():
        for counts in channel["subscribers"].values():
            assert (counts["lost"], counts["received"]) == (0, channel["published"])
    # Every line of the recording was given once, in order, over all lives.
    position = 1
    for cycle in read_cycles(open_log(fabric.log("@feed")), 1):
        for entry in cycle.entries if isinstance(cycle, Cycle) else ():
            if entry.kind == Kind.RECEIVED:
                assert entry.first == position
                position += entry.count
    recording = next(fabric.data_dir.glob("*/recordings/feed"))
    # Playing it again needs no venue, and there is none any more.
    for node in report["nodes"]:
        assert run_cli(["play", str(fabric.run), "--node", node, "--verify"]) == 0, node
    # Unless its recording is gone, which is told.
    hidden = recording.rename(recording.with_name("elsewhere"))
    assert run_cli(["play", str(fabric.run), "--node", "feed", "--verify"]) == 2
    assert "line 1 of the recording is not there any more" in capfd.readouterr().err
    hidden.rename(recording)
    # What was live is also a capture: all but our clock is the same.
    assert sum(path.read_bytes().count(b"\n") for path in recording.glob("*.log")) >= position - 1
    again = played(recording)
    quotes = whole(fabric.log("deribit.quote"))
    assert len(again) >= len(quotes)
    for name in ("instrument", "ts_event_ns", "bid", "ask", "bid_size", "ask_size", "flags"):
        assert np.array_equal(again[name][: len(quotes)], quotes[name]), name


class Kept:
    def __init__(self) -> None:
        self.parts: list[Records] = []

    def write(self, records: Records, now_ns: int) -> None:
        self.parts.append(records.copy())


def played(recording: Path) -> Records:
    """The quotes of a recording, by ``capture:``."""
    node = DeribitFeed(
        "feed", config={"source": f"capture:{recording}", "max_lines_per_poll": 1000}, outputs={"quote": "q"}
    )
    kept = Kept()
    node.quote.sink = kept
    node.on_start()
    while node.next_due_ns(0) is not None:
        node.on_poll(0)
        node.quote.flush(0)
    return np.concatenate(kept.parts)


def test_a_lost_venue_makes_books_stale_until_it_is_back(up: Any, waiting: Callable[..., Any]) -> None:
    venue = DeribitVenue(VenueMarket(SEED, strikes=2), rate=300)
    with RunningVenue(venue) as running:
        fabric = up("deribit-live", *arguments(running.url, None))
        waiting(lambda: running.call(venue.is_followed), "all of it to be followed")
        running.call(lambda: venue.make("skip"))
        waiting(lambda: running.call(lambda: venue.truth["breaks"]) > 0, "a break")
        waiting(lambda: fabric.count("feed", "checkpoints") > 2, "a checkpoint")
        running.call(lambda: venue.make("close"))
        waiting(lambda: running.call(lambda: venue.truth["connects"]) == 2, "a new connection")
        waiting(lambda: running.call(venue.is_followed), "all of it to be followed again")
        fabric.process.send_signal(signal.SIGINT)
        report = fabric.report()
    source = report["sources"]["feed"]
    assert (source["chain_breaks"], source["disconnects"]) == (venue.truth["breaks"], 1)
    stale = whole(fabric.log("deribit.book"))["flags"] & Flags.STALE
    assert 0 < np.count_nonzero(stale) < len(stale) / 2


def test_an_address_where_nobody_listens_is_told_in_a_line(up: Any, waiting: Callable[..., Any]) -> None:
    fabric = up("deribit-live", *arguments("ws://127.0.0.1:9/ws/api/v2", None))
    output = waiting(lambda: fabric.run / "nodes" / "feed" / "output.log", "its output")
    waiting(lambda: output.read_text().count("connection refused: nobody listens there; trying again in") >= 3, "tries")
    fabric.process.send_signal(signal.SIGINT)
    assert fabric.report()["nodes"]["feed"]["errors"] == 0
    assert "Traceback" not in output.read_text()
