"""Chains carried to a new forward: the same bits as native.black gives, finished records, nothing out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.records import Flags
from native import black
from native.chain import RECORD_FIELDS, Carrier
from nodes.records import GREEKS, Kind

YEAR_NS = 365 * 86_400 * 10**9
NOW_NS = 1_700_000_000 * 10**9
LAST = int(Flags.LAST_IN_EVENT)


def columns(count: int, seed: int = 5):
    rng = np.random.default_rng(seed)
    iv = rng.uniform(0.1, 1.5, count)
    iv[rng.random(count) < 0.2] = np.nan
    return {
        "instrument": rng.permutation(count).astype(np.uint32),
        "kind": rng.choice([int(Kind.CALL), int(Kind.PUT)], count).astype(np.uint8),
        "stale": rng.random(count) < 0.1,
        "waiting": np.zeros(count, bool),
        "expiry_ns": np.full(count, NOW_NS + YEAR_NS // 7),
        "strike": 100.0 * np.exp(rng.normal(0.0, 0.6, count)),
        "iv": iv,
        "bid_iv": iv - 0.01,
        "ask_iv": iv + 0.01,
    }


def carry(carrier, slots, bounds, room=None, **changes):
    group = carrier.chains(np.asarray(slots, np.int64), np.asarray(bounds, np.int64))
    records = GREEKS.zeros(group.carried(NOW_NS) if room is None else room)
    records.view(np.uint8)[:] = 0xAA
    given = {"forward": 103.0, "event_ns": NOW_NS, "origin_ns": 17, "flags": 8, "last": LAST} | changes
    group.carry(records, **given)
    return records


def test_the_layout_is_that_of_the_greeks_record():
    fields = GREEKS.dtype.fields
    assert tuple(sorted(fields, key=lambda name: fields[name][1])) == RECORD_FIELDS
    assert GREEKS.dtype.itemsize == 128


@pytest.mark.parametrize("count", [0, 1, 7, 255, 256, 257, 1000])
def test_values_have_the_bits_of_greeks2(count):
    rows = columns(1200)
    carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **rows)
    slots = np.random.default_rng(count).permutation(1200)[:count]
    records = carry(carrier, slots, [0, count])
    slots = slots[~np.isnan(rows["iv"][slots])]
    years = (rows["expiry_ns"][slots] - NOW_NS) / YEAR_NS
    values = black.greeks2(103.0, rows["strike"][slots], years, rows["iv"][slots], rows["kind"][slots] == Kind.CALL)
    for name in ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga"):
        assert records[name].tobytes() == getattr(values, name).tobytes()
    for name in ("instrument", "iv", "bid_iv", "ask_iv"):
        assert np.array_equal(records[name], rows[name][slots])
    assert (records["forward"] == 103.0).all()
    assert (records["ts_event_ns"] == NOW_NS).all()
    assert (records["ts_origin_ns"] == 17).all()
    assert (records["ts_publish_ns"] == 0).all()
    flags = 8 | np.where(rows["stale"][slots], int(Flags.STALE), 0)
    if len(flags):
        flags[-1] |= LAST
    assert np.array_equal(records["flags"], flags)


def test_each_chain_ends_with_its_own_last_record_at_its_own_expiry():
    rows = columns(300)
    rows["expiry_ns"][:] = NOW_NS + (1 + np.arange(300) % 3) * YEAR_NS
    carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **rows)
    chains = [np.flatnonzero(np.arange(300) % 3 == i) for i in range(3)]
    joined = carry(carrier, np.concatenate(chains), [0, 100, 100, 200, 300])
    apart = np.concatenate([carry(carrier, chain, [0, 100]) for chain in chains])
    assert joined.tobytes() == apart.tobytes()
    assert (joined["flags"] & LAST > 0).sum() == 3


def test_what_needs_more_is_told():
    rows = columns(20)
    rows["iv"][:] = 0.5
    carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **rows)
    group = carrier.chains(np.arange(20), np.array([0, 20]))
    assert group.carried(NOW_NS) == 20
    rows["waiting"][19] = True
    assert group.carried(NOW_NS) == -1
    rows["waiting"][19] = False
    assert group.carried(int(rows["expiry_ns"][0])) == -1
    rows["iv"][:] = np.nan
    assert group.carried(int(rows["expiry_ns"][0])) == 0


def test_a_group_keeps_numbers_of_its_own():
    carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **(columns(20) | {"iv": np.full(20, 0.5)}))
    slots, bounds = np.arange(4), np.array([0, 4])
    group = carrier.chains(slots, bounds)
    slots[:], bounds[:] = 10**6, 10**6
    assert group.carried(NOW_NS) == 4


def test_nothing_is_read_or_written_out_of_bounds():
    rows = columns(20)
    rows["iv"][:] = 0.5
    carrier = Carrier(int(Kind.CALL), int(Flags.STALE), **rows)
    for slots in ([20], [-1]):
        with pytest.raises(IndexError):
            carrier.chains(np.array(slots), np.array([0, 1]))
    for bounds in ([0, 3, 1, 4], [1, 4], [0, 3], [], [0]):
        with pytest.raises(ValueError, match="bounds must ascend"):
            carrier.chains(np.arange(4), np.array(bounds, np.int64))
    with pytest.raises(IndexError):
        carrier.chains(np.arange(4), np.array([0, 5]))
    with pytest.raises(ValueError, match="int64"):
        carrier.chains(np.arange(4, dtype=np.int32), np.array([0, 4]))
    for room in (3, 5):
        with pytest.raises(ValueError, match="not as many"):
            carry(carrier, np.arange(4), [0, 4], room=room)
    group = carrier.chains(np.arange(4), np.array([0, 4]))
    for records in (np.zeros(4), GREEKS.zeros(8)[::2], [1, 2, 3, 4]):
        with pytest.raises(TypeError):
            group.carry(records, forward=1.0, event_ns=NOW_NS, origin_ns=0, flags=0, last=0)
    with pytest.raises(ValueError, match="columns are"):
        Carrier(2, 1, iv=rows["iv"])
    for wrong in (rows["iv"][:-1], rows["iv"].astype(np.float32), np.repeat(rows["iv"], 2)[::2]):
        with pytest.raises(ValueError, match="right type and length"):
            Carrier(2, 1, **(rows | {"iv": wrong}))
