"""The decoder alone: messages built here, in the shapes of the venue's API documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fabric.records import Flags, find_record
from fabric.runtime.checkpoint import pack, unpack
from nodes.feed.definitions import records_of
from nodes.feed.deribit_decoder import ChainBreak, DecodeError, DeribitDecoder, Event
from nodes.feed.deribit_names import define, underlying_symbol
from nodes.feed.instruments import InstrumentIds
from nodes.feed.last_quotes import LastQuotes
from nodes.records import Action, InstrumentState, Kind, Side, Style

OPTION = "ETH-9APR21-1950-C"
MS = 1_600_000_000_000
ORIGIN_NS = 7


def subscription(channel: str, data: Any) -> bytes:
    message = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
    return json.dumps(message).encode()


def ticker(name: str = OPTION, **fields: Any) -> bytes:
    data = {
        "instrument_name": name,
        "timestamp": MS,
        "best_bid_price": 0.05,
        "best_bid_amount": 3.0,
        "best_ask_price": 0.06,
        "best_ask_amount": 4.0,
        "underlying_index": "ETH-9APR21",
        "underlying_price": 2000.5,
        "index_price": 1999.0,
        "mark_price": 0.055,
        "mark_iv": 80.0,
        "bid_iv": 75.0,
        "ask_iv": None,
        "open_interest": 12.0,
        "greeks": {"delta": 0.5, "gamma": 0.001, "vega": 0.4, "theta": -5.0, "rho": 0.1},
        "some_new_field": {"x": [1]},
        **fields,
    }
    return subscription(f"ticker.{name}.raw", data)


def book(change_id: int, prev: int | None, *, name: str = OPTION, bids: Any = (), asks: Any = ()) -> bytes:
    data = {
        "type": "snapshot" if prev is None else "change",
        "instrument_name": name,
        "timestamp": MS,
        "change_id": change_id,
        "bids": list(bids),
        "asks": list(asks),
    }
    if prev is not None:
        data["prev_change_id"] = prev
    return subscription(f"book.{name}.raw", data)


def trade(trade_id: str = "ETH-42", **fields: Any) -> dict[str, Any]:
    return {
        "instrument_name": OPTION,
        "timestamp": MS,
        "trade_id": trade_id,
        "price": 0.05,
        "amount": 2.0,
        "direction": "buy",
        **fields,
    }


def listing(name: str = "BTC-24SEP21-40000-P", **fields: Any) -> dict[str, Any]:
    return {
        "instrument_name": name,
        "kind": "option",
        "tick_size": 0.0005,
        "contract_size": 1.0,
        "min_trade_amount": 0.1,
        "strike": 40000.0,
        "expiration_timestamp": 1632470400000,
        "option_type": "put",
        "base_currency": "BTC",
        "quote_currency": "BTC",
        **fields,
    }


def result(value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


@pytest.fixture
def decoder() -> DeribitDecoder:
    return DeribitDecoder(InstrumentIds())


# Names


def ns(*date: int) -> int:
    return int(datetime(*date, 8, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc,arg-type]


def test_names_of_every_form() -> None:
    option = define("BTC-25MAR22-400000-C")
    assert (option.underlying, option.currency, option.strike) == ("BTC", "BTC", 400_000.0)
    assert (option.kind, option.style, option.expiry_ns) == (Kind.CALL, Style.INVERSE, ns(2022, 3, 25))
    assert define(OPTION).expiry_ns == ns(2021, 4, 9)
    assert define("ETH-24SEP21-320-P").kind == Kind.PUT
    linear = define("XRP_USDC-30JUN23-0d625-C")
    assert (linear.underlying, linear.currency, linear.strike, linear.style) == ("XRP", "USDC", 0.625, Style.LINEAR)
    future = define("BTC-24SEP21")
    assert (future.kind, future.expiry_ns, future.strike) == (Kind.FUTURE, ns(2021, 9, 24), 0.0)
    synthetic = define("SYN.ETH-6APR21")
    assert (synthetic.symbol, synthetic.underlying, synthetic.kind) == ("SYN.ETH-6APR21", "ETH", Kind.FUTURE)
    assert synthetic.expiry_ns == ns(2021, 4, 6)
    assert define("BTC-PERPETUAL")[4] == 0
    assert define("BTC-PERPETUAL").kind == Kind.PERPETUAL
    assert define("BTC_USDC").kind == Kind.SPOT


@pytest.mark.parametrize(
    "name",
    [
        "",
        "BTC",
        "btc-24SEP21",
        "BTC-32SEP21",
        "BTC-30FEB21",
        "BTC-24SEX21",
        "BTC-24SEP21-1-X",
        "BTC-24SEP21-1",
        "BTC-0SEP21",
        "BTC-FS-30JUN23_PERP",
        "ABCDEFGHI-24SEP21",
        "BTC-24SEP21-" + "1" * 30 + "-C",
        "BTC-24SEP21\n",
        "BTC-٢٤SEP21",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        define(name)


def test_the_underlying_of_an_option() -> None:
    assert underlying_symbol("ETH-9APR21", OPTION) == "ETH-9APR21"
    assert underlying_symbol("SYN.ETH-6APR21", "ETH-6APR21-2400-P") == "SYN.ETH-6APR21"
    assert underlying_symbol("index_price", OPTION) == "SYN.ETH-9APR21"


# Tickers


def test_a_ticker_is_one_quote_and_one_mark_after_definitions_and_its_underlying(decoder: DeribitDecoder) -> None:
    event = decoder.decode(ticker(), ORIGIN_NS)
    assert [row[5] for row in event.instrument] == [OPTION, "ETH-9APR21"]
    option_id, forward_id = (row[3] for row in event.instrument)
    head = (MS * 10**6, ORIGIN_NS, 0)
    assert event.quote == [
        (*head, forward_id, 0, 2000.5, 2000.5, 0.0, 0.0),
        (*head, option_id, 0, 0.05, 0.06, 3.0, 4.0),
    ]
    (mark,) = event.mark
    assert mark[:8] == (*head, option_id, 0, 2000.5, 0.055, 0.8)
    assert mark[8:15] == (0.5, 0.001, 0.4, -5.0, 0.1, 1999.0, 12.0)
    assert mark[15] == 0.75
    assert math.isnan(mark[16])
    assert decoder.records == {
        "quote": 1,
        "underlying": 1,
        "mark": 1,
        "instrument": 2,
        "book": 0,
        "trade": 0,
        "stale": 0,
    }


def test_the_underlying_is_quoted_again_only_when_its_price_moves(decoder: DeribitDecoder) -> None:
    other = "ETH-9APR21-2000-P"
    decoder.decode(ticker(), 0)
    assert len(decoder.decode(ticker(other), 0).quote) == 1
    assert len(decoder.decode(ticker(other, underlying_price=2001.0), 0).quote) == 2
    assert len(decoder.decode(ticker(underlying_price=2001.0), 0).quote) == 1
    assert decoder.records["underlying"] == 2


@pytest.mark.parametrize("absent", [None, 0.0])
def test_absent_sides_are_zero(decoder: DeribitDecoder, absent: float | None) -> None:
    event = decoder.decode(ticker(best_bid_price=absent, best_ask_amount=None, best_ask_price=absent), 0)
    assert event.quote[-1][5:] == (0.0, 0.0, 0.0, 0.0)


def test_a_ticker_of_a_future_has_no_underlying_and_no_greeks(decoder: DeribitDecoder) -> None:
    data = {"instrument_name": "BTC-PERPETUAL", "timestamp": MS, "best_bid_price": 50_000.0, "best_bid_amount": 10}
    event = decoder.decode(subscription("ticker.BTC-PERPETUAL.raw", data), 0)
    assert [row[5:] for row in event.quote] == [(50_000.0, 0.0, 10.0, 0.0)]
    assert all(math.isnan(value) for value in event.mark[0][5:])


# Books


def test_a_snapshot_clears_and_builds_and_changes_follow(decoder: DeribitDecoder) -> None:
    event = decoder.decode(book(10, None, bids=[["new", 0.05, 3.0]], asks=[["new", 0.06, 4.0], ["new", 0.07, 1]]), 0)
    assert [row[6:] for row in event.book] == [
        (0.0, 0.0, Action.CLEAR, Side.NONE, 0),
        (0.05, 3.0, Action.NEW, Side.BID, 0),
        (0.06, 4.0, Action.NEW, Side.ASK, 0),
        (0.07, 1.0, Action.NEW, Side.ASK, 0),
    ]
    event = decoder.decode(book(11, 10, bids=[["change", 0.05, 2.0]], asks=[["delete", 0.06, 0.0]]), 0)
    assert [row[6:] for row in event.book] == [
        (0.05, 2.0, Action.CHANGE, Side.BID, 0),
        (0.06, 0.0, Action.DELETE, Side.ASK, 0),
    ]
    assert not event.breaks
    assert decoder.chain_breaks == 0
    assert decoder.records["book"] == 6


def test_a_break_is_told_with_both_ids_and_the_book_is_stale_until_the_next_snapshot(decoder: DeribitDecoder) -> None:
    level = [["new", 0.05, 3.0]]
    other = "ETH-9APR21-2000-P"
    decoder.decode(book(10, None, bids=level), 0)
    decoder.decode(book(10, None, bids=level, name=other), 0)
    event = decoder.decode(book(13, 12, bids=level), 0)
    assert event.breaks == [ChainBreak(OPTION, 10, 12)]
    assert event.book[0][4] == Flags.STALE
    event = decoder.decode(book(14, 13, bids=level), 0)
    assert event.breaks == []
    assert event.book[0][4] == Flags.STALE
    assert decoder.decode(book(11, 10, bids=level, name=other), 0).book[0][4] == 0
    assert decoder.broken == {OPTION}
    assert decoder.resubscribe == [f"book.{OPTION}.raw"]
    event = decoder.decode(book(20, None, bids=level), 0)
    assert [row[4] for row in event.book] == [0, 0]
    assert decoder.broken == set()
    assert decoder.chain_breaks == 1


def test_a_change_before_any_snapshot_is_a_break(decoder: DeribitDecoder) -> None:
    assert decoder.decode(book(5, 4), 0).breaks == [ChainBreak(OPTION, None, 4)]


# Trades, definitions, others


def test_trades(decoder: DeribitDecoder) -> None:
    trades = [trade(), trade("18446744073709551615", direction="sell", timestamp=MS + 1)]
    event = decoder.decode(subscription(f"trades.{OPTION}.raw", trades), 0)
    assert [row[5:] for row in event.trade] == [(0.05, 2.0, 42, Side.BID), (0.05, 2.0, 2**64 - 1, Side.ASK)]
    assert event.trade[1][0] == (MS + 1) * 10**6
    assert decoder.records["trade"] == 2
    assert not decoder.decode(subscription(f"trades.{OPTION}.raw", []), 0).trade


def test_listed_definitions_win_over_names_and_are_published_once(decoder: DeribitDecoder) -> None:
    listings = [
        listing(tick_size=0.001, contract_size=2.0, is_active=False),
        listing("BTC-24SEP21", kind="future", quote_currency="USD", strike=None, option_type=None, contract_size=10),
        listing("BTC-PERPETUAL", kind="future", expiration_timestamp=32503708800000, strike=None, option_type=None),
        listing("SOL_USDC-24SEP21-20-C", base_currency="SOL", quote_currency="USDC", strike=20.0, option_type="call"),
        listing("BTC-FS-24SEP21_PERP", kind="future_combo"),
        listing("A-NEW-FORM", kind="option"),
    ]
    records = records_of(find_record("instrument"), decoder.decode(result(listings), 0).instrument)
    assert records["symbol"].tolist()[:2] == [b"BTC-24SEP21-40000-P", b"BTC-24SEP21"]
    assert records["tick"][0] == 0.001
    assert records["multiplier"].tolist()[:2] == [2.0, 10.0]
    assert records["state"].tolist()[:2] == [InstrumentState.CLOSED, InstrumentState.OPEN]
    assert records["style"].tolist() == [Style.INVERSE, Style.LINEAR, Style.LINEAR, Style.LINEAR]
    assert records["currency"].tolist() == [b"BTC", b"USD", b"BTC", b"USDC"]
    assert records["expiry_ns"].tolist() == [ns(2021, 9, 24), ns(2021, 9, 24), 0, ns(2021, 9, 24)]
    assert not decoder.decode(result(listings), 0).instrument
    odd = decoder.decode(result([listing("BTC-24SEP21-1-P", base_currency="\x80", quote_currency="TOO_LONG_ONE")]), 0)
    assert odd.instrument[0][6:8] == ("BTC", "BTC")
    assert not decoder.decode(ticker("BTC-24SEP21-40000-P", underlying_index="BTC-24SEP21"), 0).instrument


def test_published_definitions_are_taken_over(decoder: DeribitDecoder) -> None:
    published = records_of(find_record("instrument"), decoder.decode(ticker(), 0).instrument)
    again = DeribitDecoder(InstrumentIds())
    again.adopt(published[::-1])
    event = again.decode(ticker(), 0)
    assert not event.instrument
    assert [row[3] for row in event.quote] == [2, 1]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"id": 1, "result": ["ticker.X.raw"], "usIn": 1}, "answer"),
        ({"id": 1, "result": "ok"}, "answer"),
        ({"id": 1, "result": None}, "answer"),
        ({"id": 1, "error": {"code": -32600}}, "error"),
        ({"method": "heartbeat", "params": {"type": "test_request"}}, "test_request"),
        ({"method": "heartbeat", "params": {"type": "heartbeat"}}, "heartbeat"),
        ({"method": "subscription", "params": {"channel": "deribit_price_index.btc_usd", "data": {}}}, "other"),
        ({"method": "something"}, "other"),
    ],
)
def test_other_messages_are_counted_by_kind(decoder: DeribitDecoder, message: Any, kind: str) -> None:
    assert decoder.decode(json.dumps(message).encode(), 0) == Event()
    assert decoder.kinds == {kind: 1}
    assert decoder.messages == 1


# Bad input


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        ticker()[:-1],
        ticker(best_bid_price="0.05"),
        ticker(timestamp=-1),
        ticker(timestamp=10**13),
        ticker(timestamp=None),
        ticker("NOT A NAME"),
        ticker(underlying_index="ETH-31FEB21"),
        ticker(greeks=[1]),
        ticker().replace(b"2000.5", b"1e999"),
        book(1, None, bids=[["new", 0.05]]),
        book(1, None, bids=[["moved", 0.05, 1.0]]),
        book(1, None).replace(b'"snapshot"', b'"change"'),
        book(2**63, None),
        subscription("trades.X.raw", [trade(direction="up")]),
        subscription("trades.X.raw", [trade(), trade("none")]),
        subscription("trades.X.raw", [trade("18446744073709551616")]),
        subscription("trades.X.raw", [trade(), trade(instrument_name="x")]),
        result([listing(), listing(strike="x")]),
        b'{"method":"subscription"}',
        b'{"result":' + b"[" * 100_000,
    ],
)
def test_a_message_that_does_not_decode_leaves_no_trace_but_the_count(decoder: DeribitDecoder, payload: bytes) -> None:
    decoder.decode(book(1, None), 0)
    before = decoder.checkpoint()
    with pytest.raises(DecodeError) as caught:
        decoder.decode(payload, 0)
    assert 0 < len(str(caught.value)) <= 300
    after = decoder.checkpoint()
    for name in ("definitions", "last_quotes"):
        assert np.array_equal(before.pop(name), after.pop(name))
    assert after.pop("malformed") == before.pop("malformed") + 1
    assert after == before


SHAPES: list[Callable[[], bytes]] = [
    ticker,
    lambda: ticker("BTC-PERPETUAL", underlying_index=None),
    lambda: ticker(underlying_index="index_price", best_bid_price=None),
    lambda: book(10, None, bids=[["new", 0.05, 3.0]], asks=[["new", 0.06, 4.0]]),
    lambda: book(11, 10, bids=[["change", 0.05, 2.0]], asks=[["delete", 0.06, 0.0]]),
    lambda: subscription("trades.X.raw", [trade(), trade("7", direction="sell")]),
    lambda: result([listing(), listing("BTC-24SEP21", kind="future")]),
    lambda: result(["a", "b"]),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def feed_anything(payload: bytes) -> None:
    """Whatever comes, there are records that fit their dtypes, or a DecodeError."""
    decoder = DeribitDecoder(InstrumentIds())
    try:
        event = decoder.decode(payload, 0)
    except DecodeError:
        return
    for name in ("instrument", "quote", "trade", "book", "mark"):
        records_of(find_record(name), getattr(event, name))
    again = DeribitDecoder(InstrumentIds())
    again.restore(decoder.checkpoint())


@given(st.binary(max_size=200))
@example(b'{"error":"\xff","result":"\xff\\ud800"}')
def test_random_bytes(payload: bytes) -> None:
    feed_anything(payload)


@given(st.sampled_from(SHAPES), st.data())
def test_messages_with_random_bytes_in_them(shape: Callable[[], bytes], data: st.DataObject) -> None:
    payload = bytearray(shape())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload)))
        end = data.draw(st.integers(start, min(start + 6, len(payload))))
        payload[start:end] = data.draw(st.binary(max_size=6))
    feed_anything(bytes(payload))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, inner in items for found in _paths(inner, (*path, key)))]


@given(st.sampled_from(SHAPES), st.data())
def test_messages_with_random_values_in_them(shape: Callable[[], bytes], data: st.DataObject) -> None:
    message = json.loads(shape())
    path = data.draw(st.sampled_from(_paths(message)[1:]))
    parent = message
    for key in path[:-1]:
        parent = parent[key]
    if isinstance(parent, dict) and data.draw(st.booleans()):
        del parent[path[-1]]
    else:
        parent[path[-1]] = data.draw(JSON_VALUES)
    feed_anything(json.dumps(message).encode("utf-8", "surrogatepass"))


def test_records_have_zeros_in_their_padding(decoder: DeribitDecoder) -> None:
    """Bytes must follow from the input alone, those between the fields too."""
    event = decoder.decode(subscription(f"trades.{OPTION}.raw", [trade()]), 0)
    assert records_of(find_record("trade"), event.trade).view(np.uint8)[-7:].tolist() == [0] * 7


def test_a_connections_begin_or_end_makes_books_doubtful_until_their_snapshots() -> None:
    decoder = DeribitDecoder(InstrumentIds())
    decoder.on_mark(ORIGIN_NS)
    assert decoder.disconnects == 0, "nothing was known before"
    decoder.decode(book(1, None, bids=[["new", 0.05, 1.0]]), ORIGIN_NS)
    decoder.on_mark(ORIGIN_NS)
    decoder.on_mark(ORIGIN_NS)
    assert (decoder.broken, decoder.disconnects) == ({OPTION}, 1)
    late = decoder.decode(book(2, 1, bids=[["change", 0.05, 2.0]]), ORIGIN_NS)
    assert [row[4] & Flags.STALE for row in late.book] == [Flags.STALE]
    assert decoder.resubscribe == [], "a new connection subscribes to everything"
    fresh = decoder.decode(book(7, None, bids=[["new", 0.06, 1.0]]), ORIGIN_NS)
    assert not any(row[4] & Flags.STALE for row in fresh.book)
    assert decoder.broken == set()


def test_a_connections_end_makes_last_quotes_stale_until_their_next_ticker() -> None:
    decoder = DeribitDecoder(InstrumentIds())
    first = decoder.decode(ticker(), ORIGIN_NS).quote
    assert len(first) == 2, "of the forward and the option"
    again = decoder.on_mark(ORIGIN_NS + 5)
    assert [row[4] for row in again.quote] == [Flags.STALE] * 2
    for row, before in zip(again.quote, first, strict=True):
        assert (row[0], row[3], row[5:]) == (before[0], before[3], before[5:]), "the same quote, at its own event time"
        assert row[1] == ORIGIN_NS + 5, "caused by the end of the connection"
    assert decoder.on_mark(ORIGIN_NS + 6).quote == [], "stale already"
    assert decoder.records["stale"] == 2
    other = DeribitDecoder(InstrumentIds())
    other.restore(unpack(pack(decoder.checkpoint())))
    for each in (decoder, other):
        fresh = each.decode(ticker(), ORIGIN_NS + 7)
        assert [row[4] for row in fresh.quote] == [0, 0], "the same prices again: they hold"
        assert len(each.on_mark(ORIGIN_NS + 8).quote) == 2
    assert pack(other.checkpoint()) == pack(decoder.checkpoint())


@given(actions=st.lists(st.tuples(st.sampled_from(["keep", "keep", "drop", "stale", "restart"]), st.integers(1, 6))))
def test_last_quotes_are_each_instruments_last(actions: list[tuple[str, int]]) -> None:
    quotes, model = LastQuotes(), {}
    for number, (action, instrument) in enumerate(actions):
        if action == "keep":
            row = (number, number, 0, instrument, 0, float(number), 0.0, 1.0, 0.0)
            quotes.keep(row)
            model[instrument] = row
        elif action == "drop":
            quotes.drop(instrument)
            model.pop(instrument, None)
        elif action == "restart":
            state = unpack(pack(quotes.checkpoint()))
            quotes = LastQuotes()
            quotes.restore(state)
        else:
            expected = {
                (*row[:1], number, *row[2:4], int(Flags.STALE), *row[5:]) for row in model.values() if not row[4]
            }
            assert {tuple(row) for row in quotes.all_stale(number)} == expected
            model.update({row[3]: row for row in expected})
        assert len(quotes) == len(model)


def test_what_is_no_longer_listed_or_expired_is_closed() -> None:
    decoder = DeribitDecoder(InstrumentIds())
    names = ["ETH-27DEC30-1950-C", "ETH-27DEC30-1950-P", "ETH-9APR21-1950-C"]

    def answer(kept: list[str], *, us_out: int = 0) -> list[tuple[str, int]]:
        listed = [{"instrument_name": name, "kind": "option"} for name in kept]
        message = {"jsonrpc": "2.0", "id": "7/instruments/ETH/option", "result": listed, "usOut": us_out}
        return [(row[5], row[15]) for row in decoder.decode(json.dumps(message).encode(), ORIGIN_NS).instrument]

    assert answer(names) == [(name, InstrumentState.OPEN) for name in names]
    assert answer(names) == []
    after_expiry_us = int(datetime(2021, 4, 10, tzinfo=UTC).timestamp()) * 1_000_000
    assert answer(names, us_out=after_expiry_us) == [], "still listed, while it is settled"
    assert answer(names[:1], us_out=after_expiry_us) == [
        (names[2], InstrumentState.CLOSED),
        (names[1], InstrumentState.CLOSED),
    ]
    assert answer(names[:2]) == [(names[1], InstrumentState.OPEN)]
    state = {"instrument_name": names[0], "state": "delivered", "timestamp": MS}
    event = decoder.decode(subscription("instrument.state.option.ETH", state), ORIGIN_NS)
    assert [(row[5], row[15]) for row in event.instrument] == [(names[0], InstrumentState.CLOSED)]
    restored = DeribitDecoder(InstrumentIds())
    restored.restore(decoder.checkpoint())
    assert restored.checkpoint()["listed"] == decoder.checkpoint()["listed"] == {"ETH/option": names[:2]}


def test_the_channel_of_a_broken_book_is_the_one_it_came_by() -> None:
    decoder = DeribitDecoder(InstrumentIds())
    decoder.decode(book(1, None), ORIGIN_NS)
    decoder.decode(book(9, 8).replace(b".raw", b".100ms"), ORIGIN_NS)
    assert decoder.resubscribe == [f"book.{OPTION}.100ms"]
