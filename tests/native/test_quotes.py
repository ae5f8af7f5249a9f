"""Quotes of single options: the same bits as native.black gives, finished records, nothing out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.records import Flags
from native import black
from native.quotes import QUOTE_FIELDS, QuotePricer, Stop
from nodes.records import GREEKS, QUOTE, Kind

YEAR_NS = 365 * 86_400 * 10**9
NOW_NS = 1_700_000_000 * 10**9
STALE, LAST = int(Flags.STALE), int(Flags.LAST_IN_EVENT)
COUNT = 500


def columns(seed: int = 5):
    rng = np.random.default_rng(seed)
    slots = {name: np.zeros(COUNT, code) for name, code in (
        ("kind", "u1"), ("inverse", "?"), ("open", "?"), ("chain", "i8"), ("expiry_ns", "i8"), ("strike", "f8"),
        ("bid", "f8"), ("ask", "f8"), ("iv", "f8"), ("bid_iv", "f8"), ("ask_iv", "f8"), ("origin_ns", "i8"),
        ("stale", "?"), ("waiting", "?"),
    )}  # fmt: skip
    slots["kind"][:] = rng.choice([int(Kind.CALL), int(Kind.PUT)], COUNT)
    slots["inverse"][:] = rng.random(COUNT) < 0.5
    slots["open"][:] = True
    slots["chain"][:] = rng.integers(0, 3, COUNT)
    slots["expiry_ns"][:] = NOW_NS + YEAR_NS // 7 + rng.integers(-1, 2, COUNT) * YEAR_NS // 6
    slots["strike"][:] = 100.0 * np.exp(rng.normal(0.0, 0.3, COUNT))
    forwards = {
        "own": np.array([103.0, np.nan, 97.0]),
        "fallback": np.array([0, 2, 2]),
        "stale": np.array([False, False, True]),
    }
    return slots, forwards


def pricer_of(slots, forwards, **changes):
    given = {"call": int(Kind.CALL), "put": int(Kind.PUT), "stale_flag": STALE, "last": LAST} | changes
    return QuotePricer({1000 + slot: slot for slot in range(COUNT)}, slots, forwards, **given)


def quotes_of(slots, seed: int = 6):
    rng = np.random.default_rng(seed)
    mid = slots["strike"] * rng.uniform(0.005, 0.4, COUNT) / np.where(slots["inverse"], 100.0, 1.0)
    bid = np.where(rng.random(COUNT) < 0.1, 0.0, 0.95 * mid)
    ask = np.where(rng.random(COUNT) < 0.1, 0.0, 1.05 * mid)
    stamps = {"ts_event_ns": NOW_NS + np.arange(COUNT), "ts_origin_ns": NOW_NS + 5 + np.arange(COUNT)}
    flags = np.where(rng.random(COUNT) < 0.2, STALE, 0)
    return QUOTE.build(instrument=1000 + np.arange(COUNT), bid=bid, ask=ask, flags=flags, **stamps)


def test_the_layout_is_that_of_the_quote_record():
    fields = QUOTE.dtype.fields
    assert tuple(sorted(fields, key=lambda name: fields[name][1])) == QUOTE_FIELDS
    assert QUOTE.dtype.itemsize == 64


def test_values_have_the_bits_of_the_array_kernel():
    slots, forwards = columns()
    quotes = quotes_of(slots)
    pricer = pricer_of(slots, forwards)
    row, parts, reasons = 0, [], {}
    while row < COUNT:
        out = GREEKS.zeros(COUNT - row)
        out.view(np.uint8)[:] = 0xAA
        stop = pricer.take(quotes, row, COUNT, False, out)
        parts.append(out[: pricer.written])
        if stop != Stop.ALL_TAKEN:
            reasons[pricer.row - 1] = stop
        row = pricer.row
    records = np.concatenate(parts)

    own = np.array([103.0, 97.0, 97.0])[slots["chain"]]
    stale = np.array([False, True, True])[slots["chain"]] | (quotes["flags"] & STALE != 0)
    years = (slots["expiry_ns"] - quotes["ts_event_ns"]) / YEAR_NS
    sides = np.stack([quotes["bid"], quotes["ask"]])
    status = np.empty(sides.shape, np.uint8)
    call = slots["kind"] == Kind.CALL
    scale = np.where(slots["inverse"], own, 1.0)
    both = black.implied_vol(sides * scale, own, slots["strike"], years, call, status=status)
    both[~(sides > 0)] = np.nan
    bid_iv, ask_iv = both
    iv = np.where(np.isnan(bid_iv), ask_iv, np.where(np.isnan(ask_iv), bid_iv, 0.5 * (bid_iv + ask_iv)))
    priced = ~np.isnan(iv)
    assert sorted(reasons) == np.flatnonzero(~priced).tolist()
    assert {Stop.EMPTY, black.Status.EXPIRED, black.Status.BELOW_INTRINSIC} <= set(reasons.values())
    values = black.greeks2(own, slots["strike"], years, iv, call)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga"):
        assert records[name].tobytes() == getattr(values, name)[priced].tobytes()
    for name, column in (("iv", iv), ("bid_iv", bid_iv), ("ask_iv", ask_iv), ("forward", own)):
        assert records[name].tobytes() == column[priced].tobytes()
    for name in ("instrument", "ts_event_ns", "ts_origin_ns"):
        assert records[name].tolist() == quotes[name][priced].tolist()
    assert records["flags"].tolist() == np.where(stale, STALE | LAST, LAST)[priced].tolist()
    assert not records["ts_publish_ns"].any()
    for name in ("bid", "ask"):
        assert slots[name].tobytes() == quotes[name].tobytes()
    assert slots["iv"].tobytes() == iv.tobytes()
    assert slots["origin_ns"].tolist() == quotes["ts_origin_ns"].tolist()
    assert slots["stale"].tolist() == (quotes["flags"] & STALE != 0).tolist()


def test_it_stops_where_it_can_go_no_further():
    slots, forwards = columns()
    slots["open"][2], slots["kind"][3] = False, int(Kind.FUTURE)
    forwards["own"][:] = np.nan
    slots["expiry_ns"][:] = NOW_NS + YEAR_NS
    pricer = pricer_of(slots, forwards)
    quotes = quotes_of(slots)
    quotes["bid"] = 1.0
    out = GREEKS.zeros(COUNT)
    assert pricer.take(quotes, 0, 5, False, out) == Stop.NO_FORWARD
    assert (pricer.row, pricer.slot, pricer.written) == (1, 0, 0)
    assert slots["waiting"][0]
    for row in (2, 3):
        assert pricer.take(quotes, row, 5, False, out) == Stop.NOT_AN_OPEN_OPTION
        assert (pricer.row, pricer.slot) == (row, row)
    assert pricer.defined(quotes)
    quotes["instrument"][4] = 1
    assert not pricer.defined(quotes)
    assert pricer.take(quotes, 4, 5, False, out) == Stop.NOT_AN_OPEN_OPTION
    assert pricer.slot == -1


def test_nothing_is_read_or_written_out_of_bounds():
    slots, forwards = columns()
    pricer, quotes = pricer_of(slots, forwards), quotes_of(slots)
    with pytest.raises(IndexError):
        pricer.take(quotes, 0, COUNT + 1, False, GREEKS.zeros(COUNT + 1))
    for records in (GREEKS.zeros(1), GREEKS.zeros(8)[::2], QUOTE.zeros(8)):
        with pytest.raises(TypeError):
            pricer.take(quotes, 0, 4, False, records)
    with pytest.raises(TypeError):
        pricer.take(GREEKS.zeros(4), 0, 4, False, GREEKS.zeros(4))
    slots["chain"][0] = 3
    with pytest.raises(IndexError):
        pricer.take(quotes, 0, 1, False, GREEKS.zeros(1))
    with pytest.raises(ValueError, match="iv"):
        pricer_of({**slots, "iv": np.zeros(COUNT, "f4")}, forwards)
    with pytest.raises(ValueError, match="equally long"):
        pricer_of({**slots, "iv": np.zeros(COUNT - 1)}, forwards)
