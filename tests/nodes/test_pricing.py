"""The pricing node: what it solves, carries, holds, counts and restores."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.records import Flags
from native import black
from nodes.pricing import Pricing
from nodes.records import GREEKS, INSTRUMENT, MARK, QUOTE, InstrumentState, Kind, Style

DAY_NS = 86_400 * 10**9
YEAR_NS = 365 * DAY_NS
NOW = 1_700_000_000 * 10**9
EXPIRY = NOW + 30 * DAY_NS
FUTURE, PERPETUAL, CALL, PUT, OTHER = 1, 2, 10, 11, 12


class Kept:
    """A sink that copies what is flushed."""

    def __init__(self):
        self.flushes = []

    def write(self, records, now_ns):
        self.flushes.append(records.copy())


def make(*, mark=False, define=True, **config):
    inputs = {"instrument": "i", "quote": "q"} | ({"mark": "m"} if mark else {})
    node = Pricing("pricing", config=config, inputs=inputs, outputs={"greeks": "g"})
    node.output_ports["greeks"].sink = Kept()
    node.on_start()
    if define:
        assert not len(send(node, node.instrument, definitions()))
    return node


def send(node, port, records, now=NOW):
    """One call of the node (its quotes, where no port is named); returns what it publishes."""
    sink = node.output_ports["greeks"].sink
    sink.flushes.clear()
    node.on_records(port or node.quote, records, now)
    node.greeks.flush(now)
    return np.concatenate(sink.flushes) if sink.flushes else GREEKS.zeros(0)


def definition(instrument, kind, strike=0.0, expiry=EXPIRY, style=Style.LINEAR, underlying="BTC", state=0):
    return INSTRUMENT.build(
        instrument=instrument,
        symbol=f"X-{instrument}".encode(),
        underlying=underlying.encode(),
        kind=kind,
        strike=strike,
        expiry_ns=expiry,
        style=style,
        state=state,
        multiplier=1.0,
    )


def definitions():
    return np.concatenate(
        [
            definition(FUTURE, Kind.FUTURE),
            definition(PERPETUAL, Kind.PERPETUAL, expiry=0),
            definition(CALL, Kind.CALL, 110.0),
            definition(PUT, Kind.PUT, 90.0, style=Style.INVERSE),
            definition(OTHER, Kind.CALL, 120.0, expiry=EXPIRY + 7 * DAY_NS),
        ]
    )


def quotes(*rows, flags=0, event=NOW):
    """(instrument, bid, ask) each; a millisecond apart."""
    ids, bids, asks = (np.array(column) for column in zip(*rows, strict=True))
    event = event + np.arange(len(rows)) * 10**6
    return QUOTE.build(
        instrument=ids, bid=bids, ask=asks, bid_size=bids > 0, ask_size=asks > 0, flags=flags,
        ts_event_ns=event, ts_origin_ns=event + 5,
    )  # fmt: skip


def years(event=NOW, expiry=EXPIRY):
    return (expiry - event) / YEAR_NS


def test_an_option_quote_is_solved_at_the_forward():
    node = make()
    out = send(node, node.quote, quotes((FUTURE, 99.0, 101.0), (CALL, 1.0, 1.2), (PUT, 0.01, 0.012)))
    assert out["instrument"].tolist() == [CALL, PUT]
    assert out["ts_event_ns"].tolist() == [NOW + 10**6, NOW + 2 * 10**6]
    assert out["ts_origin_ns"].tolist() == [NOW + 10**6 + 5, NOW + 2 * 10**6 + 5]
    assert (out["flags"] == Flags.LAST_IN_EVENT).all()
    for row, strike, is_call, bid, ask in ((out[0], 110.0, True, 1.0, 1.2), (out[1], 90.0, False, 1.0, 1.2)):
        expiry = years(row["ts_event_ns"])
        vols = [black.implied_vol(price, 100.0, strike, expiry, is_call) for price in (bid, ask)]
        assert [row["bid_iv"], row["ask_iv"]] == vols
        assert row["iv"] == 0.5 * sum(vols)
        expected = black.greeks2(100.0, strike, expiry, row["iv"], is_call)
        for name in ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga"):
            assert row[name] == getattr(expected, name)
        assert row["forward"] == 100.0
    assert node.report()["priced"] == 2


def test_one_sided_and_unsolvable_quotes():
    node = make()
    rows = [(FUTURE, 0.0, 100.0), (CALL, 0.0, 1.0), (CALL, 1.0, 0.0), (CALL, 0.0, 0.0), (CALL, 200.0, 0.0)]
    out = send(node, node.quote, quotes(*rows, (FUTURE, 130.0, 130.0), (CALL, 5.0, 25.0), (CALL, 5.0, 6.0)))
    assert out["instrument"].tolist() == [CALL] * 3
    assert np.isnan(out["bid_iv"]).tolist() == [True, False, True]
    assert np.isnan(out["ask_iv"]).tolist() == [False, True, False]
    assert (out["iv"] == np.where(np.isnan(out["bid_iv"]), out["ask_iv"], out["bid_iv"])).all()
    assert node.report()["unpriced"] == {"empty": 1, "above_maximum": 1, "below_intrinsic": 1}
    assert not len(send(node, node.quote, quotes((FUTURE, 131.0, 131.0)))), "nothing may be carried from such a market"


def test_a_move_carries_the_volatilities_of_its_chain():
    node = make()
    first = send(node, node.quote, quotes((FUTURE, 99.0, 101.0), (CALL, 1.0, 1.2), (PUT, 0.01, 0.012)))
    later = NOW + DAY_NS
    out = send(node, node.quote, quotes((FUTURE, 102.0, 104.0), event=later))
    assert out["instrument"].tolist() == [CALL, PUT]
    assert out["flags"].tolist() == [Flags.VOL_CARRIED, Flags.VOL_CARRIED | Flags.LAST_IN_EVENT]
    assert out["ts_event_ns"].tolist() == [later] * 2
    assert out["ts_origin_ns"].tolist() == [later + 5] * 2
    for name in ("iv", "bid_iv", "ask_iv"):
        assert np.array_equal(out[name], first[name])
    expected = black.greeks2(103.0, np.array([110.0, 90.0]), years(later), first["iv"], np.array([True, False]))
    assert np.array_equal(out["delta"], expected.delta)
    assert node.report()["carried"] == 2
    assert not len(send(node, node.quote, quotes((FUTURE, 102.0, 104.0), event=later))), "the forward did not move"


def test_resolve_keeps_the_prices_instead():
    node = make(vol_on_move="resolve")
    send(node, node.quote, quotes((FUTURE, 99.0, 101.0), (CALL, 1.0, 1.2)))
    out = send(node, node.quote, quotes((FUTURE, 102.0, 104.0), event=NOW + 10**9))
    assert out["flags"].tolist() == [Flags.LAST_IN_EVENT]
    assert out["ask_iv"][0] == black.implied_vol(1.2, 103.0, 110.0, years(NOW + 10**9), True)
    assert out["ts_origin_ns"].tolist() == [NOW + 10**6 + 5], "the older of quote and move"


def test_quotes_behind_an_undefined_one_keep_their_order_until_it_is_too_late():
    rows = [(FUTURE, 100.0, 100.0), (77, 1.0, 1.2), (CALL, 1.0, 1.2), (FUTURE, 101.0, 101.0)]
    node = make()
    assert not len(send(node, None, quotes(*rows, event=NOW)))
    defined = send(node, node.instrument, definition(77, Kind.CALL, 100.0))
    assert defined["instrument"].tolist() == [77, CALL, CALL, 77]
    node = make()
    send(node, None, quotes(*rows, event=NOW))
    assert node.report()["awaiting_definition"] == 3
    late = send(node, None, quotes((CALL, 1.0, 1.3), event=NOW), NOW + 6 * 10**9)
    assert late["instrument"].tolist() == [CALL, CALL, CALL], "after five seconds the defined ones go on"
    assert (node.report()["held"], node.report()["awaiting_definition"]) == (1, 1)


def test_every_move_reprices_its_chain_whatever_the_batches():
    rows = [
        (FUTURE, 100.0, 100.0),
        (CALL, 1.0, 1.2),
        (PUT, 0.01, 0.012),
        (FUTURE, 101.0, 101.0),
        (FUTURE, 102.0, 102.0),
    ]
    whole = send(make(), None, quotes(*rows, event=NOW))
    assert [(i, f) for i, f in zip(whole["instrument"].tolist(), whole["forward"].tolist(), strict=True)][2:] == [
        (CALL, 101.0), (PUT, 101.0), (CALL, 102.0), (PUT, 102.0),
    ]  # fmt: skip
    one_by_one = make()
    parts = [send(one_by_one, None, quotes(*rows, event=NOW)[n : n + 1]) for n in range(len(rows))]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_conflated_moves_in_one_batch_are_one_unless_an_option_lies_between():
    node = make(conflate_moves=True)
    send(node, node.quote, quotes((FUTURE, 100.0, 100.0), (CALL, 1.0, 1.2), (PUT, 0.01, 0.012)))
    batch = [(FUTURE, 101.0, 101.0), (FUTURE, 102.0, 102.0), (CALL, 1.4, 1.5), (FUTURE, 103.0, 103.0)]
    out = send(node, node.quote, quotes(*batch, event=NOW + 10**9))
    assert list(zip(out["instrument"].tolist(), out["forward"].tolist(), strict=True)) == [
        (CALL, 102.0), (PUT, 102.0), (CALL, 102.0), (CALL, 103.0), (PUT, 103.0),
    ]  # fmt: skip
    carried = [bool(flags & Flags.VOL_CARRIED) for flags in out["flags"].tolist()]
    assert carried == [True, True, False, True, True]
    assert out["iv"][3] == out["iv"][2] != out["iv"][0]
    assert node.report()["conflated_moves"] == 1


def test_a_perpetual_is_the_forward_of_expiries_without_a_future():
    node = make()
    rows = [(PERPETUAL, 100.0, 100.0), (OTHER, 0.5, 0.6), (CALL, 1.0, 1.1), (FUTURE, 104.0, 104.0)]
    out = send(node, node.quote, quotes(*rows))
    assert list(zip(out["instrument"].tolist(), out["forward"].tolist(), strict=True)) == [
        (OTHER, 100.0), (CALL, 100.0), (CALL, 104.0),
    ]  # fmt: skip
    out = send(node, node.quote, quotes((PERPETUAL, 101.0, 101.0)))
    assert out["instrument"].tolist() == [OTHER], "the chain with a future of its own stays"


def test_quotes_wait_for_definition_and_forward():
    node = make(define=False)
    assert not len(send(node, node.quote, quotes((CALL, 0.9, 1.0), (CALL, 1.0, 1.2), (PUT, 0.01, 0.012))))
    assert node.report()["awaiting_definition"] == 3
    assert not len(send(node, node.instrument, definitions()))
    report = node.report()
    assert (report["held"], report["awaiting_definition"]) == (0, 0)
    assert (report["held_no_forward"], report["awaiting_forward"]) == (3, 2)
    out = send(node, node.quote, quotes((FUTURE, 100.0, 100.0), event=NOW + 10**9))
    assert out["instrument"].tolist() == [CALL, PUT]
    assert not (out["flags"] & Flags.VOL_CARRIED).any()
    assert out["bid_iv"][0] == black.implied_vol(1.0, 100.0, 110.0, years(NOW + 10**9), True)
    assert node.report()["awaiting_forward"] == 0


def test_the_forward_itself_may_wait_for_its_definition():
    node = make(define=False)
    send(node, node.quote, quotes((FUTURE, 100.0, 100.0), (CALL, 1.0, 1.2)))
    out = send(node, node.instrument, definitions()[::-1].copy())
    assert out["instrument"].tolist() == [CALL]


def test_stale_in_stale_out():
    node = make()
    out = send(node, node.quote, np.concatenate([
        quotes((FUTURE, 100.0, 100.0)), quotes((CALL, 1.0, 1.2), flags=int(Flags.STALE)), quotes((PUT, 0.01, 0.012)),
    ]))  # fmt: skip
    assert (out["flags"] & Flags.STALE != 0).tolist() == [True, False]
    out = send(node, node.quote, quotes((FUTURE, 101.0, 101.0)))
    assert (out["flags"] & Flags.STALE != 0).tolist() == [True, False]
    out = send(node, node.quote, quotes((FUTURE, 101.0, 101.0), flags=int(Flags.STALE)))
    assert (out["flags"] & Flags.STALE != 0).tolist() == [True, True]
    out = send(node, node.quote, quotes((PUT, 0.01, 0.012)))
    assert (out["flags"] & Flags.STALE != 0).tolist() == [True], "its forward is stale"
    node.quote.stale = True
    out = send(node, node.quote, quotes((FUTURE, 102.0, 102.0)))
    assert (out["flags"] & Flags.STALE != 0).all()


def test_expired_and_closed_options_have_no_greeks():
    node = make()
    send(node, node.quote, quotes((FUTURE, 100.0, 100.0), (CALL, 1.0, 1.2)))
    assert not len(send(node, node.quote, quotes((CALL, 1.0, 1.2), (FUTURE, 101.0, 101.0), event=EXPIRY)))
    assert node.report()["unpriced"] == {"expired": 1}
    node = make()
    send(node, node.quote, quotes((FUTURE, 100.0, 100.0), (CALL, 1.0, 1.2)))
    send(node, node.instrument, definition(CALL, Kind.CALL, 110.0, state=InstrumentState.CLOSED))
    assert not len(send(node, node.quote, quotes((CALL, 1.0, 1.2), (FUTURE, 101.0, 101.0))))
    assert node.report()["unpriced"] == {"closed": 1}


def test_marks_are_compared_in_the_venues_units():
    node = make(mark=True, define=False)
    expected = black.greeks(100.0, 90.0, years(), 0.6, False)
    marks = MARK.build(
        instrument=[PUT, PUT, PUT], ts_event_ns=[NOW, NOW, EXPIRY - DAY_NS], forward=100.0, mark_iv=0.6,
        mark_price=[expected.price / 100, 0, 1], delta=expected.delta * 1.01, vega=expected.vega / 100,
        theta=[expected.theta / 365, 0.0, 1.0],
    )  # fmt: skip
    send(node, node.mark, marks[:1])
    send(node, node.instrument, definitions())
    send(node, node.mark, marks[1:])
    check = node.report()["top"]["venue_check"]
    assert {name: value["count"] for name, value in check.items()} == {
        "delta": 2, "vega": 2, "theta": 1, "mark_price": 1,
    }  # fmt: skip
    assert check["delta"]["median_relative"] == pytest.approx(1 - 1 / 1.01)
    assert check["mark_price"]["median_relative"] < 1e-14


def random_batches(seed, count=60):
    rng = np.random.default_rng(seed)
    event = NOW
    for _ in range(count):
        rows = []
        for _ in range(int(rng.integers(1, 12))):
            instrument = int(rng.choice([FUTURE, PERPETUAL, CALL, PUT, OTHER, 77]))
            middle = rng.uniform(95, 105) if instrument in (FUTURE, PERPETUAL) else rng.uniform(0.01, 3.0)
            sides = middle * np.array([0.99, 1.01]) * (rng.random(2) < 0.8)
            rows.append((instrument, *sides))
        event += int(rng.integers(10**6, 10**12))
        yield quotes(*rows, event=event, flags=int(rng.choice([0, 0, Flags.STALE])))


@pytest.mark.parametrize("vol_on_move", ["sticky_strike", "resolve"])
@pytest.mark.parametrize("seed", range(5))
def test_restored_it_goes_on_with_the_same_bits(seed, vol_on_move):
    whole = make(define=False, vol_on_move=vol_on_move)
    other = make(define=False, vol_on_move=vol_on_move)
    defined = definitions()
    cut = int(np.random.default_rng(seed).integers(0, 60))
    for i, batch in enumerate(random_batches(seed)):
        if i == cut:
            state = other.checkpoint()
            other = make(define=False, vol_on_move=vol_on_move)
            other.restore(state)
        now = NOW + i * 1_500_000_000  # quotes of instrument 77, which is never defined, age by this
        if i % 5 == 0 and i // 5 < len(defined):
            row = defined[i // 5 : i // 5 + 1]
            assert (
                send(whole, whole.instrument, row, now).tobytes() == send(other, other.instrument, row, now).tobytes()
            )
        assert send(whole, whole.quote, batch, now).tobytes() == send(other, other.quote, batch, now).tobytes()
    assert whole.report() == other.report()
    assert whole.report()["priced"] > 50
    assert (whole.report()["carried"] > 0) == (vol_on_move == "sticky_strike")


@pytest.mark.parametrize("conflate", [False, True])
def test_moves_carried_at_once_are_the_same_as_one_by_one(conflate, monkeypatch):
    rng = np.random.default_rng(9)
    rows = [definition(FUTURE, Kind.FUTURE), definition(PERPETUAL, Kind.PERPETUAL)]
    count = 700  # more than the columns have room for at first
    strikes = 100.0 * np.exp(rng.normal(0.0, 0.2, count))
    expiries = EXPIRY + rng.integers(0, 4, count) * 7 * DAY_NS
    for i in range(count):
        kind = Kind.CALL if rng.random() < 0.5 else Kind.PUT
        rows.append(definition(100 + i, kind, strike=float(strikes[i]), expiry=int(expiries[i])))

    def play():
        node = make(define=False, conflate_moves=conflate)
        rng = np.random.default_rng(10)
        out = [send(node, node.instrument, np.concatenate([np.atleast_1d(row) for row in rows[:300]]))]
        for step in range(60):
            if step == 30:
                out.append(send(node, node.instrument, np.concatenate([np.atleast_1d(row) for row in rows[300:]])))
            quotes = QUOTE.zeros(int(rng.integers(1, 40)))
            ids = rng.choice(
                [FUTURE, PERPETUAL, PERPETUAL, *range(100, 100 + (count if step >= 30 else 290))], len(quotes)
            )
            quotes["instrument"], quotes["ts_event_ns"] = ids, NOW + step
            quotes["flags"] = np.where(rng.random(len(quotes)) < 0.1, int(Flags.STALE), 0)
            spot = ids < 100
            quotes["bid"] = np.where(spot, rng.uniform(99.0, 101.0, len(quotes)), rng.uniform(0.0, 30.0, len(quotes)))
            quotes["ask"], quotes["bid_size"], quotes["ask_size"] = quotes["bid"] * 1.01, 1, 1
            out.append(send(node, None, quotes, NOW + step))
        return np.concatenate(out), node.report()

    fast, fast_report = play()
    monkeypatch.setattr(Pricing, "_carry", lambda *_: False)
    slow, slow_report = play()
    assert fast_report == slow_report
    assert fast_report["carried"] > 1000
    assert fast.tobytes() == slow.tobytes()


def test_a_checkpoint_restored_into_a_node_that_was_at_work_is_all_that_counts():
    first, second = make(), make()
    for node, bid in ((first, 3.0), (second, 7.0)):
        send(node, None, quotes((FUTURE, 99.0, 101.0), (CALL, bid, 1.1 * bid), (FUTURE, 100.0, 102.0)))
    second.restore(first.checkpoint())
    move = quotes((FUTURE, 98.0, 100.0))
    assert send(second, None, move).tobytes() == send(first, None, move).tobytes() != b""
