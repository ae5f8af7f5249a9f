"""The node: recorded captures, and captures made here with every kind of damage."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.errors import ConfigError, InputFileError
from fabric.location import Location
from fabric.records import Flags, Records
from nodes.feed.deribit import DeribitFeed
from nodes.records import Kind

CAPTURES = Path(__file__).parents[3].parent / "shared" / "data" / "deribit"
CONFIGS = Path(__file__).parents[3] / "configs"
APRIL = CAPTURES / "ws_20210405_10options.log"
JULY = CAPTURES / "ws_20210722_10options.log"
LISTINGS = CAPTURES / "rest_20210722_instruments.log.gz"
needs_captures = pytest.mark.skipif(not APRIL.exists(), reason=f"the recorded captures are not in {CAPTURES}")
PORTS = ("instrument", "quote", "trade", "book", "mark")
START_NS = 1_700_000_000_000_000_000


class Kept:
    """A sink that keeps copies."""

    def __init__(self) -> None:
        self.batches: list[Records] = []

    def write(self, records: Records, now_ns: int) -> None:
        self.batches.append(records.copy())


class Run:
    """A node with a sink on every output, and what came out of it."""

    def __init__(self, source: Path | str, *, state: Any = None, state_dir: Path | None = None, **config: Any) -> None:
        location = source if isinstance(source, str) else f"capture:{source}"
        channels = {port: f"x.{port}" for port in PORTS}
        self.node = DeribitFeed("feed", config={"source": location, **config}, outputs=channels, state_dir=state_dir)
        self.sinks = {port: Kept() for port in PORTS}
        for port, sink in self.sinks.items():
            self.node.output_ports[port].sink = sink
        self.node.on_start()
        if state is not None:
            self.node.restore(state)

    def poll(self, now_ns: int) -> bool:
        """One cycle; False when the source is finished."""
        if self.node.next_due_ns(now_ns) is None:
            return False
        self.node.on_poll(now_ns)
        for port in self.node.output_ports.values():
            port.flush(now_ns)
        return True

    def to_end(self, now_ns: int = START_NS) -> Run:
        while self.poll(now_ns):
            pass
        return self

    def records(self, port: str) -> Records:
        batches = self.sinks[port].batches
        return np.concatenate(batches) if batches else self.node.output_ports[port].record.zeros(0)

    def bytes(self) -> dict[str, bytes]:
        return {port: self.records(port).tobytes() for port in PORTS}


def message(number: int, *, received: float | None = None, channel: str = "book") -> bytes:
    """One line: a snapshot (number 0) or the change that follows it, or a ticker."""
    data: dict[str, Any] = {"instrument_name": "ETH-9APR21-1950-C", "timestamp": 1_600_000_000_000 + number}
    if channel == "ticker":
        data |= {"underlying_index": "ETH-9APR21", "underlying_price": 2000.0 + number, "best_bid_price": 0.05}
    else:
        data |= {"type": "change" if number else "snapshot", "change_id": 100 + number, "asks": []}
        data |= {"bids": [["new", 0.05 + number, 1.0]], **({"prev_change_id": 99 + number} if number else {})}
    text = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": f"{channel}.x.raw", "data": data}}
    return f"{1000 + number if received is None else received}: {json.dumps(text)}\n".encode()


def capture(folder: Path, *lines: bytes, name: str = "x.log") -> Path:
    path = folder / name
    content = b"".join(lines)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


# Recorded captures


@needs_captures
@pytest.mark.parametrize(("path", "messages", "tickers"), [(APRIL, 461, 273), (JULY, 136, 89)])
def test_every_message_of_a_capture_is_read_and_every_ticker_is_a_quote(
    path: Path, messages: int, tickers: int
) -> None:
    run = Run(path).to_end()
    report = run.node.report()
    assert (report["messages"], report["malformed"], report["chain_breaks"]) == (messages, 0, 0)
    assert report["malformed_lines"] == []
    assert run.node.decoder.kinds == {"answer": 1, "ticker": tickers, "book": messages - tickers - 1}
    records = report["records"]
    assert records["quote"] == records["mark"] == tickers
    assert len(run.records("quote")) == records["quote"] + records["underlying"]
    for port in ("mark", "book", "instrument", "trade"):
        assert len(run.records(port)) == records[port]


@needs_captures
@pytest.mark.parametrize(("path", "changes"), [(APRIL, 177), (JULY, 36)])
def test_the_change_chain_of_a_capture_is_whole(path: Path, changes: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    positions = [position for position, line in enumerate(lines) if b'"prev_change_id"' in line]
    run = Run(path).to_end()
    assert len(positions) == changes
    assert run.node.report()["chain_breaks"] == 0
    assert not (run.records("book")["flags"] & Flags.STALE).any()


@needs_captures
def test_any_change_left_out_is_noticed_if_another_follows_it(tmp_path: Path) -> None:
    lines = JULY.read_bytes().splitlines(keepends=True)
    changes = {
        position: json.loads(line.partition(b": ")[2])["params"]["data"]["instrument_name"]
        for position, line in enumerate(lines)
        if b'"prev_change_id"' in line
    }
    for position, name in changes.items():
        followed = any(later > position and other == name for later, other in changes.items())
        run = Run(capture(tmp_path, *lines[:position], *lines[position + 1 :])).to_end()
        assert run.node.report()["chain_breaks"] == int(followed)
        assert run.node.decoder.broken == ({name} if followed else set())


@needs_captures
def test_definitions_come_before_the_first_use_of_an_id() -> None:
    run = Run(APRIL, max_lines_per_poll=1)
    known: set[int] = set()
    while run.poll(START_NS):
        known |= set(run.records("instrument")["instrument"].tolist())
        for port in PORTS:
            assert set(run.records(port)["instrument"].tolist()) <= known
    symbols = run.records("instrument")["symbol"].tolist()
    assert len(symbols) == len(set(symbols)) == len(known)
    assert {b"SYN.ETH-6APR21", b"BTC-31DEC21", b"BTC-25MAR22-400000-C"} <= set(symbols)


@needs_captures
def test_listed_definitions_come_first_and_are_the_venues() -> None:
    run = Run(JULY, instruments=f"capture:{LISTINGS}").to_end()
    records = run.records("instrument")
    options = records[np.isin(records["kind"], (Kind.CALL, Kind.PUT))]
    assert len(options) == 808
    assert run.node.report()["messages"] == 136 + 2
    assert sum(map(len, run.sinks["instrument"].batches[:2])) >= 808
    assert len(set(records["instrument"].tolist())) == len(records)


@needs_captures
@pytest.mark.parametrize("path", [APRIL, JULY])
def test_restoring_at_any_line_gives_the_same_records(path: Path) -> None:
    whole = Run(path, max_lines_per_poll=1)
    marks = []
    polls = 0
    while True:
        marks.append((whole.node.checkpoint(), {port: len(whole.records(port)) for port in PORTS}))
        if not whole.poll(START_NS + polls):
            break
        polls += 1
    expected = {port: whole.records(port) for port in PORTS}
    for cut in range(0, polls + 1, 7 if path == APRIL else 1):
        state, counts = marks[cut]
        run = Run(path, max_lines_per_poll=1, state=state)
        now_ns = START_NS + cut
        while run.poll(now_ns):
            now_ns += 1
        assert run.bytes() == {port: expected[port][counts[port] :].tobytes() for port in PORTS}
        assert run.node.report() == whole.node.report()


@needs_captures
def test_the_size_of_a_poll_changes_nothing() -> None:
    expected = Run(JULY).to_end().bytes()
    assert Run(JULY, max_lines_per_poll=1).to_end().bytes() == expected
    assert Run(JULY, max_lines_per_poll=10_000).to_end().bytes() == expected


@needs_captures
def test_the_configs_positions_are_the_options_of_the_captures() -> None:
    with (CONFIGS / "deribit-positions.csv").open() as file:
        wanted = sorted(row["symbol"] for row in csv.DictReader(file))
    recorded = set()
    for path in (APRIL, JULY):
        definitions = Run(path).to_end().records("instrument")
        options = definitions[np.isin(definitions["kind"], (Kind.CALL, Kind.PUT))]
        recorded |= {symbol.decode() for symbol in options["symbol"].tolist()}
    assert wanted == sorted(recorded)


@needs_captures
def test_the_config_plays_its_capture() -> None:
    config = tomllib.loads((CONFIGS / "deribit-capture.toml").read_text())["nodes"]["feed"]
    source = Location(config["source"]).resolved(CONFIGS)
    assert Run(source, speed=config["speed"]).to_end().node.report()["messages"] == 136


# Events and time


def test_a_message_is_one_event_stamped_with_our_clock(tmp_path: Path) -> None:
    run = Run(capture(tmp_path, message(0, channel="ticker"), message(1, channel="ticker"))).to_end()
    quotes = run.records("quote")
    assert quotes["ts_origin_ns"].tolist() == [START_NS] * 4
    assert quotes["ts_event_ns"].tolist() == [1_600_000_000_000_000_000] * 2 + [1_600_000_000_001_000_000] * 2
    assert quotes["flags"].tolist() == [0, Flags.LAST_IN_EVENT] * 2
    assert run.records("mark")["flags"].tolist() == [Flags.LAST_IN_EVENT] * 2


def test_a_poll_is_bounded(tmp_path: Path) -> None:
    run = Run(capture(tmp_path, *(message(number) for number in range(10))), max_lines_per_poll=4)
    counts = []
    while run.poll(START_NS):
        counts.append(run.node.report()["messages"])
    assert counts == [4, 8, 10]


@pytest.mark.parametrize(("speed", "factor"), [("1", 1.0), ("10", 10.0), ("0.5", 0.5)])
def test_a_factor_plays_in_recorded_time_from_the_first_poll(tmp_path: Path, speed: str, factor: float) -> None:
    lines = [message(number, received=1000.0 + number / 2) for number in range(4)]
    run = Run(capture(tmp_path, *lines), speed=speed)
    assert run.node.next_due_ns(START_NS) == START_NS
    assert run.node.next_due_ns(START_NS + 5) == START_NS + 5
    run.poll(START_NS + 10)
    for number in (1, 2, 3):
        due_ns = START_NS + 10 + round(number * 0.5e9 / factor)
        assert run.node.next_due_ns(START_NS + 11) == due_ns
        run.poll(due_ns - 1)
        assert run.node.report()["messages"] == number
        state = run.node.checkpoint()
        run.poll(due_ns)
        assert run.node.report()["messages"] == number + 1
        restored = Run(tmp_path / "x.log", speed=speed, state=state)
        assert restored.node.next_due_ns(START_NS + 11) == due_ns
    assert run.node.next_due_ns(START_NS) is None


# Damage


def test_a_missing_change_marks_the_book_stale_until_its_snapshot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = capture(tmp_path, message(0), message(1), message(3), message(4), message(0), message(1))
    with caplog.at_level(logging.WARNING):
        run = Run(path).to_end()
    stale = run.records("book")["flags"] & Flags.STALE
    assert (stale > 0).tolist() == [False, False, False, True, True, False, False, False]
    assert run.node.report()["chain_breaks"] == 1
    assert f"{path}:3: book of ETH-9APR21-1950-C: a change follows 102, but the last one seen is 101" in caplog.text


def test_corrupt_lines_are_counted_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [message(0), b"\x00\xffnonsense\n", b'1001.5: {"jsonrpc": \n', message(1), b"1002: {}\n", message(2)[:-20]]
    path = capture(tmp_path, *lines)
    with caplog.at_level(logging.WARNING):
        run = Run(path).to_end()
    report = run.node.report()
    assert (report["messages"], report["malformed"]) == (2, 4)
    assert [line["line"] for line in report["malformed_lines"]] == [2, 3, 5, 6]
    assert all(line["file"] == str(path) and line["reason"] for line in report["malformed_lines"])
    for number in (2, 3, 5, 6):
        assert f"{path}:{number}: malformed" in caplog.text
    assert len(run.records("book")) == 3


def test_many_corrupt_lines_do_not_flood_log_and_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run = Run(capture(tmp_path, message(0), *[b"x\n"] * 2500)).to_end()
    assert run.node.report()["malformed"] == 2500
    assert len(run.node.report()["malformed_lines"]) == 20
    assert len(caplog.records) == 22


def test_a_truncated_gzip_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = capture(tmp_path, *(message(number) for number in range(200)), name="x.log.gz")
    path.write_bytes(path.read_bytes()[:-200])
    report = Run(path).to_end().node.report()
    assert 50 < report["messages"] < 200
    assert report["malformed"] == 1
    assert report["malformed_lines"][0]["line"] == report["messages"] + 1
    assert "truncated" in report["malformed_lines"][0]["reason"]


def test_gzip_and_plain_give_the_same(tmp_path: Path) -> None:
    lines = [message(number) for number in range(20)]
    plain = Run(capture(tmp_path, *lines)).to_end()
    assert Run(capture(tmp_path, *lines, name="x.log.gz")).to_end().bytes() == plain.bytes()


# Config


def test_bad_files_are_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"missing\.log: no such file"):
        Run(tmp_path / "missing.log")
    with pytest.raises(InputFileError, match="no such file"):
        Run(capture(tmp_path, message(0)), instruments=f"capture:{tmp_path}/missing.log")
    with pytest.raises(InputFileError, match="no line of a capture"):
        Run(capture(tmp_path, b"hello\n"))


@pytest.mark.parametrize(
    ("config", "key", "text"),
    [
        ({"source": "https://venue/api"}, "source", "not a capture"),
        ({"source": "x.log"}, "source", "not a capture"),
        ({"source": "capture:"}, "source", "not a capture"),
        ({"instruments": "https://venue/api"}, "instruments", "not a capture"),
        ({"speed": "fast"}, "speed", "not a speed"),
        ({"speed": "0"}, "speed", "not a speed"),
        ({"speed": "-1"}, "speed", "not a speed"),
        ({"speed": "nan"}, "speed", "not a speed"),
        ({"speed": "1/0"}, "speed", "not a speed"),
        ({"max_lines_per_poll": 0}, "max_lines_per_poll", "at least 1"),
    ],
)
def test_bad_config_is_refused_with_its_key(tmp_path: Path, config: dict[str, Any], key: str, text: str) -> None:
    source = config.pop("source", f"capture:{capture(tmp_path, message(0))}")
    with pytest.raises(ConfigError, match=text) as caught:
        Run(source, **config)
    assert caught.value.key == f"nodes.feed.{key}"


def test_ids_are_leased_and_published_definitions_taken_over(tmp_path: Path) -> None:
    path = capture(tmp_path, message(0, channel="ticker"), message(1, channel="ticker"))
    DeribitFeed("other", config={"source": f"capture:{path}"}, state_dir=tmp_path / "ids").on_start()
    first = Run(path, state_dir=tmp_path / "ids").to_end()
    definitions = first.records("instrument")
    assert definitions["instrument"].tolist() == [2**20 + 1, 2**20 + 2]
    again = Run(path, state_dir=tmp_path / "ids")
    again.node.adopt(definitions)
    again.to_end()
    assert len(again.records("instrument")) == 0
    assert again.records("quote").tobytes() == first.records("quote").tobytes()


def test_outputs_that_nobody_wants_are_left_out(tmp_path: Path) -> None:
    node = DeribitFeed(
        "feed",
        config={"source": f"capture:{capture(tmp_path, message(0))}"},
        outputs={"instrument": "i", "quote": "q"},
    )
    node.on_start()
    node.on_poll(START_NS)
    assert node.output_ports["book"].staged == 0
    assert node.output_ports["instrument"].staged == 1
