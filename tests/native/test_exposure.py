"""Sums over a book's positions: the bits of numpy's, finished records, nothing out of bounds."""

from __future__ import annotations

import numpy as np
import pytest

from fabric.records import Flags
from native.chain import RECORD_FIELDS
from native.exposure import RISK_FIELDS, Exposures, sum_of
from nodes.positions import Positions
from nodes.records import GREEKS, INSTRUMENT, RISK, Kind

COUNT = 300
FLAGS = np.array([0, Flags.STALE, Flags.VOL_CARRIED, Flags.STALE | Flags.VOL_CARRIED], np.uint32)


def book(seed: int = 3) -> Positions:
    rng = np.random.default_rng(seed)
    made = Positions({f"S{i}": float(rng.normal()) for i in range(COUNT)})
    for i in range(COUNT + 20):
        kind = Kind.FUTURE if i % 10 == 0 else Kind.CALL
        row = INSTRUMENT.build(
            instrument=i, symbol=f"S{i}".encode(), underlying=f"U{i % 7}".encode(), kind=kind, multiplier=1 + i % 3
        )
        made.define(row[0])
    return made


def greeks(rng: np.random.Generator, count: int):
    values = {name: rng.normal(size=count) * 10.0 ** rng.integers(-3, 6, count) for name in RECORD_FIELDS[5:]}
    values["price"][rng.random(count) < 0.05] = np.nan
    stamps = {"ts_event_ns": rng.integers(1, 10**6, count), "ts_origin_ns": rng.integers(0, 5, count)}
    return GREEKS.build(
        instrument=rng.integers(0, COUNT + 20, count), flags=rng.choice(FLAGS, count), **stamps, **values
    )


def test_the_layout_is_that_of_the_risk_record():
    fields = RISK.dtype.fields
    assert tuple(sorted(fields, key=lambda name: fields[name][1])) == RISK_FIELDS
    assert RISK.dtype.itemsize == 136


def test_sums_have_the_bits_of_numpys():
    rng = np.random.default_rng(1)
    for count in range(600):
        values = rng.normal(size=count) * 10.0 ** rng.integers(-8, 8, count)
        assert sum_of(values) == values.sum()


@pytest.mark.parametrize("seed", range(5))
def test_it_does_what_update_and_exposure_do(seed):
    rng, native, plain = np.random.default_rng(seed), book(), book()
    for size in (1, 1, 2, 3, 40, 400):
        batch = greeks(rng, size)
        rows, places = plain.update(batch)
        of = plain.rows["underlying"][places]
        exposures = native.exposures()
        assert exposures.take(batch) == len(np.unique(of))
        assert exposures.touched == np.unique(of).tolist()
        for name in Exposures.columns:
            assert native.rows[name].tobytes() == plain.rows[name].tobytes()
        assert native.forwards["forward"].tobytes() == plain.forwards["forward"].tobytes()
        out = RISK.zeros(len(exposures.touched) + 1)
        out.view(np.uint8)[:] = 0xAA
        for position, key in enumerate([*exposures.touched, None] if len(rows) else []):
            causes = batch[rows] if key is None else batch[rows][of == key]
            exposures.fill(out, position, -1 if key is None else position, b"" if key is None else b"NAME", 3.0, -0.5)
            record, origins = out[position], causes["ts_origin_ns"][causes["ts_origin_ns"] > 0]
            for name, value in plain.exposure(key).items():
                assert record[name] == value, name
            assert record["underlying"] == (b"" if key is None else b"NAME")
            assert record["ts_event_ns"] == causes["ts_event_ns"].max()
            assert record["ts_origin_ns"] == (origins.min() if len(origins) else 0)
            assert record["flags"] == (Flags.STALE if record["stale"] else 0)
            assert (record["worst_pnl"], record["worst_spot_move"]) == (3.0, -0.5)
            assert not record["ts_publish_ns"]


def test_an_unknown_instrument_changes_nothing():
    native = book()
    batch = greeks(np.random.default_rng(2), 5)
    batch["instrument"][4] = 10**6
    before = native.rows.checkpoint()
    assert native.exposures().take(batch) == -1
    assert all(native.rows[name].tobytes() == column.tobytes() for name, column in before.items())


def test_nothing_is_read_or_written_out_of_bounds():
    native = book()
    exposures = native.exposures()
    with pytest.raises(TypeError):
        exposures.take(RISK.zeros(4)[::2])
    exposures.take(greeks(np.random.default_rng(2), 5))
    with pytest.raises(TypeError):
        exposures.fill(GREEKS.zeros(4)[::2], 0, -1, b"", 0.0, 0.0)
    for position, which, name in ((1, -1, b""), (0, 60, b""), (0, -2, b""), (0, -1, b"123456789")):
        with pytest.raises(IndexError):
            exposures.fill(RISK.zeros(1), position, which, name, 0.0, 0.0)
    rows = {name: native.rows.whole(name) for name in Exposures.columns}
    with pytest.raises(ValueError, match="columns"):
        Exposures({}, {**rows, "iv": np.zeros(3)}, COUNT, np.zeros(7), stale_flag=2, carried_flag=4)
    with pytest.raises(IndexError):
        Exposures({1: (COUNT, 0)}, rows, COUNT, np.zeros(7), stale_flag=2, carried_flag=4).take(
            GREEKS.build(1, instrument=1)
        )
