"""The live feed against the stand-in venue, over real sockets of this machine: whatever the venue does wrong is seen,
counted, and made good, and making the same calls again without a venue gives the same records."""

from __future__ import annotations

import importlib.util
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from fabric.errors import ConfigError, LogFull, LogMissing
from fabric.records import Flags, Records
from nodes.feed.deribit import DeribitFeed
from nodes.feed.live import LiveSource
from nodes.feed.recording import RecordingWriter, recording_files
from nodes.records import Action, InstrumentState, Side
from nodes.testing.deribit_venue import DeribitVenue
from nodes.testing.running import RunningVenue
from nodes.testing.venue_faults import FAULTS, Fault, drawn_faults
from nodes.testing.venue_market import VenueMarket

PORTS = ("instrument", "quote", "trade", "book", "mark")
QUICK = {
    "heartbeat": "400ms",
    "reconnect_min": "20ms",
    "reconnect_max": "200ms",
    "instruments_every": "700ms",
    "channels_per_request": 40,
}
DEADLINE_S = 30.0


class Kept:
    def __init__(self) -> None:
        self.parts: list[Records] = []

    def write(self, records: Records, now_ns: int) -> None:
        self.parts.append(records.copy())


class Life:
    """One life of the node: its calls made, written down as the runtime would, and what it published."""

    def __init__(self, folder: Path, url: str, *, state: Any = None, **config: Any) -> None:
        self.node = DeribitFeed(
            "feed",
            config={"source": url, **QUICK, **config},
            outputs={port: f"x.{port}" for port in PORTS},
            state_dir=folder,
        )
        self.sinks = {port: Kept() for port in PORTS}
        for port, sink in self.sinks.items():
            self.node.output_ports[port].sink = sink
        self.calls: list[tuple[int, int, int]] = []
        self.woken = threading.Event()
        self.node.on_start()
        if state is not None:
            self.node.restore(state)

    def connect(self) -> Life:
        self.node.connect(self.woken.set)
        return self

    def step(self) -> None:
        """One cycle: what has come in, or a short wait for it."""
        first, count = self.node.received()
        if count:
            self.call(first, count, time.time_ns())
        else:
            self.woken.wait(0.02)
            self.woken.clear()

    def call(self, first: int, count: int, now_ns: int) -> None:
        self.calls.append((first, count, now_ns))
        self.node.on_received(first, count, now_ns)
        for port in self.node.output_ports.values():
            port.flush(now_ns)

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
        """Live on until it is true."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}: {self.node.report()}"
            self.step()
        return result

    def records(self, port: str) -> Records:
        parts = self.sinks[port].parts
        return np.concatenate(parts) if parts else self.node.output_ports[port].record.zeros(0)

    def bytes(self) -> dict[str, bytes]:
        return {port: self.records(port).tobytes() for port in PORTS}

    def states(self) -> dict[str, int]:
        """Symbol to the state in its last definition."""
        definitions = self.records("instrument")
        return {name.decode(): state for name, state in definitions[["symbol", "state"]].tolist()}

    def books(self) -> dict[str, tuple[dict[float, float], dict[float, float]]]:
        definitions = self.records("instrument")
        symbols = {number: name.decode() for number, name in definitions[["instrument", "symbol"]].tolist()}
        books: dict[str, tuple[dict[float, float], dict[float, float]]] = {}
        for row in self.records("book")[["instrument", "price", "size", "action", "side"]].tolist():
            number, price, size, action, side = row
            if action == Action.CLEAR:
                books[symbols[number]] = ({}, {})
            elif action == Action.DELETE:
                books[symbols[number]][0 if side == Side.BID else 1].pop(price, None)
            else:
                books[symbols[number]][0 if side == Side.BID else 1][price] = size
        return books


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return context, tmp_path / "ca.pem"


def market_books(venue: DeribitVenue) -> dict[str, tuple[dict[float, float], dict[float, float]]]:
    return {name: (dict(book.bids), dict(book.asks)) for name, book in venue.market.books.items()}


def is_right(life: Life, venue: DeribitVenue, running: RunningVenue) -> bool:
    """The books of everything that is listed are the venue's, and none is doubtful."""
    books, truth = life.books(), running.call(lambda: market_books(venue))
    return not life.node.decoder.broken and all(books.get(name) == levels for name, levels in truth.items())


def test_definitions_quotes_and_books_come_from_the_venue(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(1), rate=1000)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: running.call(venue.is_followed), "all to be followed")
        life.until(lambda: len(life.records("quote")) > 200, "quotes")
        running.call(lambda: setattr(venue, "rate", 0.0))
        life.until(lambda: is_right(life, venue, running), "the books")
        life.node.disconnect()
    listed = running.venue.market.books
    assert set(listed) <= set(life.states())
    first = life.records("instrument")
    assert first["tick"][first["symbol"] == b"BTC-PERPETUAL"].tolist() == [0.5]
    quotes = life.records("quote")
    assert (np.diff(quotes["ts_origin_ns"]) >= 0).all(), "our clock when the bytes were read"
    assert (quotes["ts_origin_ns"] <= life.calls[-1][2]).all()
    report = life.node.report()
    assert (report["malformed"], report["chain_breaks"], report["disconnects"]) == (0, 0, 0)
    assert report["connection"]["connects"] == 1


def test_new_strikes_are_followed_and_expired_options_closed(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(2, strikes=2), rate=300)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url, instruments_every="0s").connect()
        life.until(lambda: running.call(venue.is_followed), "all to be followed")
        strike = running.call(venue.list_strike)
        life.until(lambda: running.call(venue.is_followed), "the new strike")
        running.call(lambda: venue.happen(only=strike))
        life.until(lambda: strike in life.books(), "its book")
        gone = running.call(lambda: venue.market.options()[0])
        running.call(lambda: venue.expire(gone))
        life.until(lambda: life.states()[gone] == InstrumentState.CLOSED, "the expiry")
        life.until(lambda: life.node.report()["connection"]["dropped"] == 1, "its channels to be dropped")
        life.node.disconnect()
    assert life.states()[strike] == InstrumentState.OPEN
    connection = life.node.report()["connection"]
    assert (connection["listed"], connection["rejected"]) == (1, 0)


def test_a_broken_book_is_asked_for_anew_on_the_same_connection(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(11, strikes=2), rate=500)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: running.call(venue.is_followed), "all to be followed")
        running.call(lambda: venue.make("skip"))
        life.until(lambda: life.node.report()["chain_breaks"] > 0, "a break")
        life.until(lambda: life.node.report()["connection"]["resubscribed"] > 0, "its book to be asked for")
        running.call(lambda: setattr(venue, "rate", 0.0))
        running.call(venue.touch_all)
        life.until(lambda: is_right(life, venue, running), "the books to be right")
        life.node.disconnect()
    report = life.node.report()
    assert report["chain_breaks"] == venue.truth["breaks"]
    assert report["connection"]["connects"] == 1


def test_the_end_of_a_connection_is_recorded_with_its_reason(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(12, strikes=2), rate=500)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: len(life.records("book")) > 100, "books")
    life.until(lambda: life.node.report()["disconnects"] == 1, "the end")
    assert life.node.decoder.broken
    life.node.disconnect()
    last = recording_files(tmp_path / "recordings" / "feed")[-1].read_text().splitlines()[-1]
    assert last.startswith(f"{running.url} <x> ")
    assert last.endswith(": closed by the venue: the venue ends")


def faulty(
    tmp_path: Path, tls: tuple[ssl.SSLContext, Path], *, seed: int, seconds: float, every_s: float
) -> tuple[Life, dict[str, int]]:
    """A session with faults from a seed; then peace, and everything is to be as it should."""
    print("seed", seed)
    context, ca_file = tls
    faults = drawn_faults(seed, round(every_s * 1e9), round(seconds * 1e9))
    assert {fault.kind for fault in faults} == set(FAULTS)
    venue = DeribitVenue(VenueMarket(seed), rate=800, faults=faults)
    with RunningVenue(venue, tls=context) as running:
        life = Life(tmp_path, running.url, ca_file=ca_file).connect()
        ends = time.monotonic() + seconds + 2 * every_s
        life.until(lambda: time.monotonic() > ends, "the end of the faults", seconds + 20)
        running.call(venue.forgive)
        life.until(lambda: running.call(venue.is_followed), "all to be followed again")
        running.call(lambda: setattr(venue, "rate", 0.0))
        for _ in range(3):  # a break shows with the next change, and a stalled connection is left after two heartbeats
            running.call(venue.touch_all)
            life.until(lambda: is_right(life, venue, running), "the books to be right")
        truth = running.call(lambda: dict(venue.truth))
        life.until(lambda: life.node.received()[1] == 0, "the last line")
        life.node.disconnect()
    return life, truth


def check(life: Life, truth: dict[str, int], tmp_path: Path, url: str) -> None:
    report = life.node.report()
    connection = report["connection"]
    print(truth, report)
    assert report["chain_breaks"] == truth["breaks"] > 0
    assert report["malformed"] == truth["malformed"] > 0
    assert report["disconnects"] == truth["disconnects"] == connection["connects"] - 1
    assert connection["refused"] == truth.get("errors_sent", 0)
    assert truth.get("tests_unanswered", 0) == 0
    assert np.count_nonzero(life.records("book")["flags"] & Flags.STALE) > 0
    # Made again without a venue, in one life and in two: the same records.
    again = Life(tmp_path, url)
    state = None
    for place, call in enumerate(life.calls):
        if place == len(life.calls) // 2:
            state = again.node.checkpoint()
            half = {port: len(again.records(port)) for port in PORTS}
        again.call(*call)
    assert again.bytes() == life.bytes()
    assert state is not None
    second = Life(tmp_path, url, state=state)
    for call in life.calls[len(life.calls) // 2 :]:
        second.call(*call)
    for port in PORTS:
        assert second.records(port).tobytes() == life.records(port)[half[port] :].tobytes(), port
    for node in (again.node, second.node):
        assert node.decoder.checkpoint()["broken"] == life.node.decoder.checkpoint()["broken"] == []
        assert node.received() == (0, 0), "it never connected"
        node.disconnect()


def test_ten_seconds_of_all_faults_over_tls(tmp_path: Path, tls: tuple[ssl.SSLContext, Path]) -> None:
    life, truth = faulty(tmp_path, tls, seed=5, seconds=8.0, every_s=0.3)
    check(life, truth, tmp_path, "wss://127.0.0.1:1/ws/api/v2")


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [21, 22])
def test_a_minute_of_all_faults_over_tls(tmp_path: Path, tls: tuple[ssl.SSLContext, Path], seed: int) -> None:
    life, truth = faulty(tmp_path, tls, seed=seed, seconds=60.0, every_s=0.4)
    check(life, truth, tmp_path, "wss://127.0.0.1:1/ws/api/v2")


def test_neither_on_start_nor_calls_made_again_connect(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(3, strikes=2), rate=300)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: len(life.records("quote")) > 20, "quotes")
        life.node.disconnect()
        again = Life(tmp_path, running.url)
        for call in life.calls:
            again.call(*call)
        again.node.on_checkpointed(again.node.checkpoint())
        again.node.disconnect()
        assert running.call(lambda: venue.truth["connects"]) == 1
    assert again.bytes() == life.bytes()


def test_a_life_that_begins_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(4, strikes=2), rate=500)
    with RunningVenue(venue) as running:
        first = Life(tmp_path, running.url).connect()
        first.until(lambda: running.call(venue.is_followed), "all to be followed")
        first.until(lambda: len(first.records("book")) > 100, "books")
        state = first.node.checkpoint()
        first.node.disconnect()  # what came in after the last call is in the recording
        second = Life(tmp_path, running.url, state=state)
        for port in PORTS:  # what was published goes on
            second.sinks[port].parts += first.sinks[port].parts
        second.connect()
        second.until(lambda: running.call(lambda: venue.truth["connects"]) == 2, "the second connection")
        second.until(lambda: running.call(venue.is_followed), "all to be followed")
        running.call(lambda: setattr(venue, "rate", 0.0))
        second.until(lambda: is_right(second, venue, running), "the books to be right")
        assert second.calls[0][0] == sum(first.calls[-1][:2])
        assert second.node.report()["disconnects"] == 1
        second.node.disconnect()


def test_a_new_run_begins_where_the_recording_ends(tmp_path: Path) -> None:
    with RunningVenue(DeribitVenue(VenueMarket(4, strikes=2), rate=500)) as running:
        first = Life(tmp_path, running.url).connect()
        first.until(lambda: len(first.records("book")) > 100, "books")
        first.node.disconnect()
        folder = tmp_path / "recordings" / "feed"
        lines = sum(path.read_bytes().count(b"\n") for path in recording_files(folder))
        second = Life(tmp_path, running.url).connect()
        second.until(lambda: len(second.records("book")) > 100, "books")
        second.node.disconnect()
    assert second.calls[0][0] == lines + 1
    assert second.node.report()["disconnects"] == 0


def test_the_recording_is_rotated_and_what_was_given_may_go(tmp_path: Path) -> None:
    venue = DeribitVenue(VenueMarket(5, strikes=2), rate=2000)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url, recording_file="64KiB", recording_retain="128KiB").connect()
        folder = tmp_path / "recordings" / "feed"
        life.until(lambda: len(recording_files(folder)) > 5, "files")
        assert int(recording_files(folder)[0].stem) == 1, "nothing was checkpointed"
        life.node.on_checkpointed(life.node.checkpoint())
        life.until(lambda: int(recording_files(folder)[0].stem) > 1, "old files to go")
        life.node.disconnect()
    with pytest.raises(LogMissing, match="recording_retain"):
        Life(tmp_path, running.url).call(*life.calls[0])


def test_a_full_disk_ends_the_connection_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    venue = DeribitVenue(VenueMarket(6, strikes=2), rate=500)
    full = threading.Event()
    true_commit = RecordingWriter.commit

    def commit(writer: RecordingWriter) -> None:
        if full.is_set():
            writer._staged.clear()
            raise LogFull("no room for the recording", path=tmp_path, remedy="free space")
        true_commit(writer)

    monkeypatch.setattr(RecordingWriter, "commit", commit)
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: len(life.records("book")) > 50, "books")
        full.set()
        life.until(lambda: "no room for the recording (free space); trying again in" in caplog.text, "the message")
        full.clear()
        life.until(lambda: life.node.report()["disconnects"] == 1, "the new connection")
        life.until(lambda: running.call(venue.is_followed), "all to be followed")
        running.call(lambda: setattr(venue, "rate", 0.0))
        life.until(lambda: is_right(life, venue, running), "the books to be right")
        life.node.disconnect()
    assert life.node.report()["chain_breaks"] == 0


# Connections that can't be had: one line, backoff, no traceback


def told(tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, text: str, **config: Any) -> None:
    with caplog.at_level(logging.INFO):
        life = Life(tmp_path, url, **config).connect()
        life.until(lambda: sum(text in record.message for record in caplog.records) >= 3, text)
        life.node.disconnect()
    for record in caplog.records:
        assert "\n" not in record.message
        assert record.exc_info is None
        assert record.levelno <= logging.WARNING
    assert "trying again in" in caplog.text
    assert text in life.node.report()["connection"]["problem"]
    assert life.calls == []


def test_a_certificate_of_somebody_else_is_refused(
    tmp_path: Path, tls: tuple[ssl.SSLContext, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with RunningVenue(DeribitVenue(VenueMarket(7, strikes=1)), tls=tls[0]) as running:
        told(tmp_path, caplog, running.url, "its certificate is not trusted")
        caplog.clear()
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        told(tmp_path, caplog, running.url, "its certificate is not trusted", ca_file=tmp_path / "other.pem")
        caplog.clear()
        other_name = running.url.replace("127.0.0.1", "localhost")
        told(tmp_path, caplog, other_name, "its certificate is not trusted", ca_file=tls[1])
        assert running.call(lambda: running.venue.truth["connects"]) == 0


def test_a_port_where_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as bound:  # bound and not listening: refused, and nobody else's meanwhile
        bound.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{bound.getsockname()[1]}/ws/api/v2"
        told(tmp_path, caplog, url, "connection refused: nobody listens there")


def test_a_host_that_does_not_exist(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told(tmp_path, caplog, "wss://venue.invalid/ws/api/v2", "can't connect: ")


def test_tls_where_there_is_none_and_none_where_there_is(
    tmp_path: Path, tls: tuple[ssl.SSLContext, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with RunningVenue(DeribitVenue(VenueMarket(8, strikes=1))) as running:
        told(tmp_path, caplog, running.url.replace("ws://", "wss://"), "can't connect: ")
        caplog.clear()
        told(tmp_path, caplog, running.url.replace("/ws/api/v2", "/other"), "no websocket there: ")


def test_a_venue_that_never_answers_is_left_after_two_heartbeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = DeribitVenue(
        VenueMarket(9, strikes=1), rate=100, faults=[Fault(at, "stall") for at in range(0, 10**10, 10**8)]
    )
    with RunningVenue(venue) as running:
        life = Life(tmp_path, running.url).connect()
        life.until(lambda: caplog.text.count("nothing was received for") >= 2, "the silence to be told")
        life.node.disconnect()


# Config


def test_without_the_library_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_find = importlib.util.find_spec
    monkeypatch.setattr(
        "nodes.feed.live.importlib.util.find_spec", lambda name: None if name == "picows" else true_find(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'zmq-market-fabric\[feeds\]'"):
        Life(tmp_path, "wss://venue.invalid/ws/api/v2")


@pytest.mark.parametrize(
    ("config", "key", "text"),
    [
        ({"source": "wss://"}, "source", "not a websocket address"),
        ({"source": "wss://user:word@venue.invalid/"}, "source", "not a websocket address"),
        ({"source": "wss://venue.invalid:99999/"}, "source", "not a websocket address"),
        ({"source": "wss://venue.invalid/a b"}, "source", "not a websocket address"),
        ({"ca_file": Path("missing.pem")}, "ca_file", "No such file"),
        ({"ca_file": Path(__file__)}, "ca_file", "no certificate"),
        ({"source": "ws://venue.invalid/", "ca_file": Path(__file__)}, "ca_file", "of no use"),
        ({"currencies": []}, "currencies", "at least one"),
        ({"currencies": ["btc"]}, "currencies", "not a currency"),
        ({"kinds": ["combo"]}, "kinds", "different ones of option"),
        ({"channels": ["ticker", "ticker"]}, "channels", "different ones of ticker"),
        ({"interval": "1s"}, "interval", "one of 100ms"),
        ({"max_instruments": 0}, "max_instruments", "1 to 500000"),
        ({"channels_per_request": 501}, "channels_per_request", "1 to 500"),
        ({"max_burst": 0}, "max_burst", "1 to 65536"),
        ({"heartbeat": "10"}, "heartbeat", "duration"),
        ({"heartbeat": "1ms"}, "heartbeat", "100ms or more"),
        ({"reconnect_min": "2s", "reconnect_max": "1s"}, "reconnect_max", "reconnect_min or more"),
        ({"recording_file": "1kB"}, "recording_file", "64KiB or more"),
        ({"recording_retain": "64MiB"}, "recording_retain", "two recording_file"),
        ({"speed": "2"}, "speed", "only for recorded"),
        ({"instruments": "capture:x"}, "instruments", "only for recorded"),
    ],
)
def test_bad_config_is_refused_with_its_key(tmp_path: Path, config: dict[str, Any], key: str, text: str) -> None:
    source = config.pop("source", "wss://venue.invalid/ws/api/v2")
    with pytest.raises(ConfigError, match=text) as caught:
        Life(tmp_path, source, **{"reconnect_max": "30s", **config})
    assert caught.value.key == f"nodes.feed.{key}"


def test_a_mistake_in_the_connections_code_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nodes.feed.deribit_session import DeribitSession

    def broken(session: DeribitSession, payload: bytes, now_ns: int) -> None:
        raise ZeroDivisionError("of this program")

    monkeypatch.setattr(DeribitSession, "on_message", broken)
    with RunningVenue(DeribitVenue(VenueMarket(10, strikes=1))) as running:
        life = Life(tmp_path, running.url).connect()
        with pytest.raises(ZeroDivisionError, match="of this program"):
            life.until(lambda: False, "the mistake")
        life.node.disconnect()


def test_a_live_source_is_checked_without_a_folder() -> None:
    node = DeribitFeed("feed", config={"source": "wss://venue.invalid/"}, outputs={"instrument": "i", "quote": "q"})
    node.on_start()
    assert node.finite is False
    assert isinstance(node._live, LiveSource)
    node.disconnect()
