"""The simulated market: the same records however they are asked for, and a market that makes sense."""

from __future__ import annotations

import csv
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import ConfigError
from fabric.records import Flags, Records
from nodes.feed.market import black76, normal_cdf
from nodes.feed.simulated import SimulatedFeed
from nodes.records import Kind, Side, Style

CONFIGS = Path(__file__).parents[3] / "configs"
PORTS = ("instrument", "quote", "trade", "mark")
START_NS = 1_790_000_000_123_456_789
YEAR_NS = 365 * 86_400 * 10**9
LEAP_NS = 100 * 10**9


class Kept:
    """A sink that keeps copies."""

    def __init__(self) -> None:
        self.batches: list[Records] = []

    def write(self, records: Records, now_ns: int) -> None:
        self.batches.append(records.copy())


class Run:
    """A node with a sink on every output."""

    def __init__(self, *, state: Any = None, state_dir: Path | None = None, **config: Any) -> None:
        channels = {port: f"x.{port}" for port in PORTS}
        self.node = SimulatedFeed("feed", config=config, outputs=channels, state_dir=state_dir)
        self.sinks = {port: Kept() for port in PORTS}
        for port, sink in self.sinks.items():
            self.node.output_ports[port].sink = sink
        self.node.on_start()
        if state is not None:
            self.node.restore(state)

    def poll(self, now_ns: int) -> None:
        self.node.on_poll(now_ns)
        for port in self.node.output_ports.values():
            port.flush(now_ns)

    def to_end(self, now_ns: int = START_NS) -> Run:
        """Only for a finite source: begun at ``now_ns``, then in full bursts, long after."""
        while self.node.next_due_ns(now_ns) is not None:
            self.poll(now_ns)
            now_ns += LEAP_NS
        return self

    def records(self, port: str) -> Records:
        batches = self.sinks[port].batches
        return np.concatenate(batches) if batches else self.node.output_ports[port].record.zeros(0)

    def contents(self, *, skip: dict[str, int] | None = None) -> dict[str, bytes]:
        """All bytes but the two times that say when they were read and sent."""
        found = {}
        for port in PORTS:
            records = self.records(port)[(skip or {}).get(port, 0) :].copy()
            records["ts_origin_ns"] = 0
            found[port] = records.tobytes()
        return found


def positions(name: str) -> list[str]:
    with (CONFIGS / name).open() as file:
        return [row["symbol"] for row in csv.DictReader(file)]


# Determinism


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 400_000_000), max_size=40),
    st.integers(1, 700),
    st.sampled_from([100.0, 5000.0, 33_333.3]),
)
def test_records_do_not_depend_on_how_polls_are_cut(waits_ns: list[int], max_burst: int, rate: float) -> None:
    config: dict[str, Any] = {"records": 1300, "records_per_second": rate}
    expected = Run(**config, max_burst=10_000).to_end().contents()
    run = Run(**config, max_burst=max_burst)
    now_ns = START_NS
    run.poll(now_ns)
    for wait_ns in waits_ns:
        now_ns += wait_ns
        run.poll(now_ns)
    assert run.to_end(now_ns).contents() == expected


def test_restoring_at_any_record_gives_the_same_records() -> None:
    config: dict[str, Any] = {"records": 1100, "max_burst": 1, "expiries": 2, "strikes": 5}
    whole = Run(**config)
    marks = []
    now_ns = START_NS
    while True:
        counts = {port: len(whole.records(port)) for port in PORTS} if len(marks) % 37 in (0, 31) else None
        marks.append((whole.node.checkpoint(), counts, now_ns))
        due_ns = whole.node.next_due_ns(now_ns)
        if due_ns is None:
            break
        now_ns = max(now_ns, due_ns)
        whole.poll(now_ns)
    for state, counts, then_ns in marks:
        if counts is not None:
            run = Run(**config, state=state).to_end(then_ns)
            assert run.contents() == whole.contents(skip=counts)
            assert run.node.report() == whole.node.report()


def test_seeds_differ_and_a_seed_repeats() -> None:
    first = Run(records=600).to_end().contents()
    assert Run(records=600).to_end().contents() == first
    assert Run(records=600, seed=8).to_end().contents()["quote"] != first["quote"]


def test_marks_do_not_change_the_quotes() -> None:
    with_marks = Run(records=600).to_end()
    without = Run(records=600)
    without.node.output_ports["mark"].channel = ""
    without.to_end()
    assert without.contents()["quote"] == with_marks.contents()["quote"]
    assert len(without.records("mark")) == without.node.report()["records"]["mark"] == 0
    assert len(with_marks.records("mark")) > 500


# Time


def test_records_of_a_burst_come_together_and_are_the_same() -> None:
    run = Run(records_per_second=1000.0, burst=4, records=10)
    due_ns = run.node.next_due_ns(START_NS)
    seen = []
    while due_ns is not None:
        run.poll(due_ns)
        seen.append((due_ns - START_NS, run.node.report()["messages"]))
        due_ns = run.node.next_due_ns(due_ns)
    assert seen == [(0, 1), (4_000_000, 5), (8_000_000, 9), (9_000_000, 10)], (
        "no poll but for a whole burst, or the last"
    )
    assert run.contents() == Run(records_per_second=1000.0, records=10).to_end().contents()


def test_records_are_due_at_their_time_and_bursts_are_bounded() -> None:
    run = Run(records_per_second=1000.0, max_burst=100)
    assert run.node.finite is False
    assert run.node.next_due_ns(START_NS) == START_NS
    run.poll(START_NS)
    assert run.node.report()["messages"] == 1
    assert run.node.next_due_ns(START_NS) == START_NS + 1_000_000
    run.poll(START_NS + 999_999)
    assert run.node.report()["messages"] == 1
    run.poll(START_NS + 2_000_000)
    assert run.node.report()["messages"] == 3
    pause_ns = START_NS + 10**9
    counts = []
    while (due_ns := run.node.next_due_ns(pause_ns)) is not None and due_ns <= pause_ns:
        run.poll(pause_ns)
        counts.append(run.node.report()["messages"])
    assert counts == [*range(103, 1001, 100), 1001]
    times = np.sort(np.concatenate([run.records("quote")["ts_event_ns"], run.records("trade")["ts_event_ns"]]))
    assert times.tolist() == [START_NS + number * 1_000_000 for number in range(1001)]


def test_a_number_of_records_makes_it_finite() -> None:
    run = Run(records=700)
    assert run.node.finite is True
    run.to_end()
    report = run.node.report()
    assert (report["messages"], report["malformed"]) == (700, 0)
    records = report["records"]
    assert records["quote"] + records["underlying"] + records["trade"] == 700
    assert len(run.records("quote")) == records["quote"] + records["underlying"]
    assert len(run.records("mark")) == records["mark"] == records["quote"]
    assert len(run.records("instrument")) == records["instrument"] == 2 * 4 * (1 + 2 * 15)


# The market


def test_definitions_come_first_with_names_that_do_not_depend_on_the_date() -> None:
    run = Run()
    run.poll(START_NS)
    definitions = run.records("instrument")
    assert definitions["instrument"].tolist() == list(range(1, 249))
    symbols = definitions["symbol"].tolist()
    assert len(set(symbols)) == 248
    assert {b"BTC-E1", b"ETH-E4", b"BTC-E1-50000-C", b"ETH-E4-2400-P"} <= set(symbols)
    later = Run()
    later.poll(START_NS + 3 * YEAR_NS)
    assert later.records("instrument")["symbol"].tolist() == symbols
    assert set((definitions["expiry_ns"] % (86_400 * 10**9)).tolist()) == {8 * 3600 * 10**9}
    assert (definitions["expiry_ns"] > START_NS).all()
    futures = definitions[definitions["kind"] == Kind.FUTURE]
    assert set(zip(definitions["underlying"].tolist(), definitions["expiry_ns"].tolist(), strict=True)) == set(
        zip(futures["underlying"].tolist(), futures["expiry_ns"].tolist(), strict=True)
    )


def test_every_future_is_quoted_before_any_option() -> None:
    run = Run(records=600).to_end()
    definitions = run.records("instrument")
    futures = definitions["instrument"][definitions["kind"] == Kind.FUTURE].tolist()
    assert run.records("quote")["instrument"][: len(futures)].tolist() == futures


@pytest.mark.parametrize("style", ["linear", "inverse"])
def test_quotes_hold_the_marks_value_and_shares_are_as_configured(style: str) -> None:
    run = Run(records=20_000, style=style, one_sided_share=0.1, empty_share=0.05).to_end()
    quotes, marks, definitions = run.records("quote"), run.records("mark"), run.records("instrument")
    assert definitions["style"].max() == (Style.INVERSE if style == "inverse" else Style.LINEAR)
    futures = np.isin(quotes["instrument"], definitions["instrument"][definitions["kind"] == Kind.FUTURE])
    assert 0.03 < futures.mean() < 0.07
    assert ((quotes["bid"] > 0) & (quotes["ask"] > quotes["bid"]))[futures].all()
    options = quotes[~futures]
    assert options["instrument"].tolist() == marks["instrument"].tolist()
    bid, ask, value = options["bid"], options["ask"], marks["mark_price"]
    assert (bid[bid > 0] <= value[bid > 0]).all()
    assert (ask[ask > 0] >= value[ask > 0]).all()
    assert 0.04 < ((bid == 0) & (ask == 0)).mean() < 0.06
    assert 0.08 < ((bid == 0) != (ask == 0)).mean() < 0.14
    assert ((bid > 0) == (options["bid_size"] > 0)).all()
    assert ((ask > 0) == (options["ask_size"] > 0)).all()
    assert (quotes["flags"] == Flags.LAST_IN_EVENT).all()
    assert 0.015 < len(run.records("trade")) / 20_000 < 0.025


def test_trades_are_at_the_touch_of_the_last_quote_with_that_side() -> None:
    run = Run(records=20_000, trade_share=0.2).to_end()
    quotes = run.records("quote")
    trades = run.records("trade")
    assert trades["id"].tolist() == list(range(1, len(trades) + 1))
    for trade in trades:
        before = quotes[: np.searchsorted(quotes["ts_event_ns"], trade["ts_event_ns"])]
        side, size = ("ask", "ask_size") if trade["side"] == Side.BID else ("bid", "bid_size")
        own = before[-60:]
        last = own[(own["instrument"] == trade["instrument"]) & (own[side] > 0)][-1]
        assert last[side] == trade["price"]
        assert 0 < trade["size"] <= last[size]


def test_the_spot_and_the_smile_move() -> None:
    run = Run(records=60_000, records_per_second=50.0).to_end()
    marks = run.records("mark")
    assert np.ptp(marks["index_price"][marks["index_price"] > 10_000]) > 10
    one = marks[marks["instrument"] == marks["instrument"][0]]
    assert np.ptp(one["mark_iv"]) > 0.001
    assert (marks["mark_iv"] > 0.05).all()
    assert (marks["mark_iv"] < 3.0).all()


def test_values_agree_with_exact_arithmetic() -> None:
    for x in np.linspace(-9, 9, 200):
        assert normal_cdf(np.array([x]))[0] == pytest.approx(0.5 * math.erfc(-x / math.sqrt(2)), abs=1e-7)
    forward, strike, years, iv = 100.0, 110.0, 0.5, 0.4
    one = np.ones(2)
    smile = np.array([[iv, iv], [0.0, 0.0], [0.0, 0.0]])

    def at(forward: float, years: float, iv_move: float = 0.0) -> Any:
        moved = smile + np.array([[iv_move], [0.0], [0.0]])
        return black76(forward * one, strike * one, years * one, moved, is_call=np.array([True, False]))

    def exact_call() -> float:
        deviation = iv * math.sqrt(years)
        d1 = math.log(forward / strike) / deviation + deviation / 2
        return 0.5 * (forward * math.erfc(-d1 / math.sqrt(2)) - strike * math.erfc(-(d1 - deviation) / math.sqrt(2)))

    value = at(forward, years)
    assert value.price == pytest.approx([exact_call(), exact_call() - forward + strike], abs=1e-4)
    bump = 0.5
    up, down = at(forward + bump, years).price, at(forward - bump, years).price
    assert value.delta == pytest.approx((up - down) / (2 * bump), abs=1e-3)
    assert value.gamma == pytest.approx((up - 2 * value.price + down) / bump**2, abs=1e-3)
    assert value.vega == pytest.approx(
        (at(forward, years, 0.01).price - at(forward, years, -0.01).price) / 0.02, rel=1e-3
    )
    assert value.theta == pytest.approx(
        (at(forward, years - 0.01).price - at(forward, years + 0.01).price) / 0.02, rel=1e-2
    )


# Config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("underlyings", []),
        ("underlyings", ["BTC", "BTC"]),
        ("underlyings", ["TOO_LONG_A_NAME"]),
        ("records_per_second", 0.0),
        ("records_per_second", math.inf),
        ("records_per_second", math.nan),
        ("seed", -1),
        ("expiries", 0),
        ("expiries", 9),
        ("strikes", 0),
        ("records", -1),
        ("max_burst", 0),
        ("burst", 0),
        ("burst", 1025),
        ("style", "other"),
        ("trade_share", 1.5),
        ("trade_share", 0.96),
        ("one_sided_share", 0.99),
        ("empty_share", math.nan),
    ],
)
def test_bad_config_is_refused_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Run(**{key: value})
    assert caught.value.key == f"nodes.feed.{key}"


@pytest.mark.parametrize("config", [{"strikes": 201, "underlyings": ["BTC", "XYZ"]}, {"expiries": 8, "strikes": 1}])
def test_unusual_sizes_work(config: dict[str, Any]) -> None:
    run = Run(**config, records=100).to_end()
    definitions = run.records("instrument")
    assert len(set(definitions["symbol"].tolist())) == len(definitions)
    assert (definitions["strike"][definitions["kind"] != Kind.FUTURE] > 0).all()


def test_ids_come_from_the_feeds_own_range(tmp_path: Path) -> None:
    SimulatedFeed("other", outputs={}, state_dir=tmp_path).on_start()
    run = Run(records=600, state_dir=tmp_path).to_end()
    for port in PORTS:
        assert run.records(port)["instrument"].min() > 2**20


def test_the_demos_positions_are_instruments_of_its_market() -> None:
    config = tomllib.loads((CONFIGS / "demo.toml").read_text())["nodes"]["feed"]
    node = SimulatedFeed(
        "feed", config={k: v for k, v in config.items() if k not in ("use", "outputs")}, outputs=config["outputs"]
    )
    sink = node.output_ports["instrument"].sink = Kept()
    node.on_start()
    node.on_poll(START_NS)
    node.output_ports["instrument"].flush(START_NS)
    symbols = {symbol.decode() for symbol in np.concatenate(sink.batches)["symbol"].tolist()}
    wanted = positions("demo-positions.csv")
    assert wanted
    assert set(wanted) <= symbols
