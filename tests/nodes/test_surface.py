"""The surface: fits by expiry, between expiries, kept and restored; the node: when it fits, what it says, what it restores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fabric.errors import ConfigError
from fabric.records import Flags
from fabric.testing import check_restart, run_node
from fabric.units import Duration
from native import svi
from native.svi import Slice, Status
from nodes.records import GREEKS, INSTRUMENT, SURFACE, InstrumentState, Kind, SurfaceState
from nodes.surface import Surface
from nodes.volsurface import VolSurface

DAY_NS = 86_400 * 10**9
YEAR_NS = 365 * DAY_NS
SECOND = 10**9
NOW = 1_700_000_000 * SECOND
NEAR, FAR = NOW + 30 * DAY_NS, NOW + 90 * DAY_NS
FORWARD = {NEAR: 100.0, FAR: 102.0}
STRIKES = np.arange(60.0, 150.0, 5.0)
SLICES = {NEAR: Slice(0.008, 0.06, -0.3, 0.0, 0.15), FAR: Slice(0.03, 0.10, -0.3, 0.02, 0.25)}
"""Total variance at NOW."""
SEED = 3


def market(expiry: int, now: int = NOW, spread: float = 0.01, of: Slice | None = None) -> tuple[np.ndarray, ...]:
    """Strikes, volatilities of bid and ask."""
    k = np.log(STRIKES / FORWARD[expiry])
    vol = np.sqrt(svi.total_variance(of or SLICES[expiry], k) / ((expiry - NOW) / YEAR_NS))
    return STRIKES, vol - spread / 2, vol + spread / 2


def surface(**options) -> VolSurface:
    built = VolSurface(**options)
    for expiry in (FAR, NEAR):
        built.fit(expiry, NOW, FORWARD[expiry], *market(expiry))
    return built


# The surface


def test_slices_of_exact_markets() -> None:
    built = surface()
    assert list(built.slices) == [NEAR, FAR]
    for expiry, fitted in built.slices.items():
        assert fitted.status == Status.CONVERGED
        assert (fitted.strikes, fitted.inside) == (len(STRIKES), len(STRIKES))
        assert fitted.rmse < 1e-6
        assert fitted.params == pytest.approx(SLICES[expiry], abs=1e-4)
        assert fitted.min_g > 0
        strikes, bid, ask = market(expiry)
        assert built.vol(strikes, expiry, NOW) == pytest.approx((bid + ask) / 2, abs=1e-6)
    assert math.isnan(built.slices[FAR].min_gap), "it was fitted first"
    gap = built.gap(FAR, NOW)
    assert gap is not None
    assert gap.value > 0
    assert built.gap(NEAR, NOW) is None
    assert built.crossed(NOW) == []


def test_one_sided_and_broken_quotes_are_passed_over_and_weights_are_spreads() -> None:
    strikes, bid, ask = market(NEAR)
    bid, ask = bid.copy(), ask.copy()
    bid[1], ask[2], bid[3] = np.nan, np.inf, 0.0
    bid[4], ask[4] = ask[4], bid[4]
    bid[5], ask[5] = bid[5] - 0.1, ask[5] + 0.5  # off, but wide
    fitted = VolSurface().fit(NEAR, NOW, 100.0, strikes, bid, ask)
    assert fitted.strikes == len(strikes) - 4
    assert fitted.rmse > 0.04, "the wide one counts in full there"
    assert fitted.params == pytest.approx(SLICES[NEAR], abs=3e-3), "but hardly in the fit"


def test_too_few_strikes_leave_the_slice_of_before() -> None:
    built = surface()
    before = built.slices[NEAR]
    found = built.fit(NEAR, NOW + SECOND, 100.0, *(each[:4] for each in market(NEAR)))
    assert found.status == Status.TOO_FEW
    assert built.slices[NEAR] is before
    twice = (np.repeat(each[:4], 2) for each in market(NEAR))
    assert built.fit(NEAR, NOW + SECOND, 100.0, *twice).status == Status.TOO_FEW, "not enough different ones"
    assert np.isnan(VolSurface().vol(100.0, NEAR, NOW))


def test_a_tick_starts_from_the_last_slice() -> None:
    chance = np.random.default_rng(SEED)
    strikes, bid, ask = market(NEAR)
    built = VolSurface()
    cold = built.fit(NEAR, NOW, 100.0, strikes, bid + 0.002 * chance.standard_normal(len(bid)), ask).passes
    for tick in range(1, 20):
        noise = 0.002 * chance.standard_normal(len(bid))
        warm = built.fit(NEAR, NOW + tick * SECOND, 100.0 + 0.01 * tick, strikes, bid + noise, ask + noise)
        assert warm.status == Status.CONVERGED
        assert warm.passes < cold / 4
        again = VolSurface().fit(NEAR, NOW + tick * SECOND, 100.0 + 0.01 * tick, strikes, bid + noise, ask + noise)
        assert warm.rms == pytest.approx(again.rms, rel=1e-3)
        assert warm.min_g >= 0


def test_after_a_jump_a_cold_start_helps() -> None:
    built = surface()
    jumped = Slice(0.02, 0.3, 0.8, -0.2, 0.02)
    found = built.fit(NEAR, NOW + SECOND, 100.0, *market(NEAR, of=jumped))
    fresh = VolSurface().fit(NEAR, NOW + SECOND, 100.0, *market(NEAR, of=jumped))
    assert found.rms <= fresh.rms * 1.01 + 1e-9


def test_between_expiries_total_variance_is_linear_in_time() -> None:
    built = surface()
    middle = (NEAR + 3 * FAR) // 4
    forward = 101.0
    for k in (-0.3, 0.0, 0.2):
        near = built.vol(100.0 * math.exp(k), NEAR, NOW) ** 2 * (NEAR - NOW)
        far = built.vol(102.0 * math.exp(k), FAR, NOW) ** 2 * (FAR - NOW)
        found = built.vol(forward * math.exp(k), middle, NOW, forward) ** 2 * (middle - NOW)
        assert found == pytest.approx(0.25 * near + 0.75 * far, rel=1e-12)
    logged = 100.0**0.25 * 102.0**0.75
    assert built.vol(105.0, middle, NOW) == pytest.approx(built.vol(105.0, middle, NOW, logged), rel=1e-9)
    assert built.vol(110.0, NOW + DAY_NS, NOW) == built.vol(110.0, NEAR, NOW), "before the first: its volatilities"
    assert built.vol(110.0, FAR + DAY_NS, NOW) == built.vol(110.0, FAR, NOW)
    assert built.vol(STRIKES, middle, NOW).shape == STRIKES.shape
    assert np.isnan(built.vol(110.0, NOW, NOW))


def test_time_passes_at_constant_volatility_and_expiries_end() -> None:
    built = surface()
    assert built.vol(90.0, NEAR, NOW + 10 * DAY_NS) == pytest.approx(built.vol(90.0, NEAR, NOW), rel=1e-12)
    assert built.vol(90.0, FAR, NEAR) == pytest.approx(built.vol(90.0, FAR, NOW), rel=1e-12)
    assert built.drop_expired(NEAR) == 1
    assert list(built.slices) == [FAR]


def test_calendar_arbitrage_of_quotes_is_told_or_taken_out() -> None:
    below = Slice(0.002, 0.03, 0.1, 0.0, 0.2)
    free, told = VolSurface(), VolSurface(arbitrage_free=False)
    for built in (free, told):
        built.fit(NEAR, NOW, 100.0, *market(NEAR))
        built.fit(FAR, NOW, 102.0, *market(FAR, of=below))
    assert told.crossed(NOW) == [FAR]
    assert told.slices[FAR].min_gap < -0.005
    assert free.crossed(NOW) == []
    assert free.slices[FAR].min_gap >= 0
    late = VolSurface()
    late.fit(FAR, NOW, 102.0, *market(FAR, of=below))
    late.fit(NEAR, NOW, 100.0, *market(NEAR))
    assert late.crossed(NOW) == [FAR], "a later one that was there before is named"
    late.fit(FAR, NOW, 102.0, *market(FAR, of=below))
    assert late.crossed(NOW) == []


def test_a_restored_surface_is_the_same_to_the_bit() -> None:
    built, other = surface(), VolSurface()
    other.restore(built.checkpoint())
    assert repr(other.slices) == repr(built.slices)
    strikes, bid, ask = market(FAR)
    one, two = (each.fit(FAR, NOW + SECOND, 102.1, strikes, bid + 0.001, ask) for each in (built, other))
    assert repr(one) == repr(two)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="time to expiry"):
        VolSurface().fit(NOW, NOW, 100.0, *market(NEAR))
    with pytest.raises(ValueError, match="equally long"):
        VolSurface().fit(NEAR, NOW, 100.0, STRIKES, STRIKES, STRIKES[1:])


# The node


def node(**config) -> Surface:
    inputs = {"instrument": "i", "greeks": "g"}
    return Surface("surface", config=config, inputs=inputs, outputs={"surface": "s"})


def definitions(*, state: int = InstrumentState.OPEN, expiries: tuple[int, ...] = (FAR, NEAR)) -> np.ndarray:
    rows = [
        INSTRUMENT.build(
            instrument=instrument_of(expiry, place, kind), symbol=b"X", underlying=b"BTC", kind=kind, strike=strike,
            expiry_ns=expiry, state=state, multiplier=1.0,
        )
        for expiry in expiries for place, strike in enumerate(STRIKES) for kind in (Kind.CALL, Kind.PUT)
    ]  # fmt: skip
    return np.concatenate([*rows, INSTRUMENT.build(instrument=9, kind=Kind.FUTURE, underlying=b"BTC", expiry_ns=NEAR)])


def instrument_of(expiry: int, place: int, kind: int) -> int:
    return 1000 * (1 + (expiry == FAR)) + 10 * place + kind


def greeks(expiry: int, event: int = NOW, *, shift: float = 0.0, flags: int = 0, of: Slice | None = None) -> np.ndarray:
    """Of all out-of-the-money options, a microsecond apart; and of those in the money, which are nonsense."""
    strikes, bid, ask = market(expiry, of=of)
    rows = []
    for place, (strike, one, other) in enumerate(zip(strikes, bid + shift, ask + shift, strict=True)):
        for kind in (Kind.CALL, Kind.PUT):
            outside = (kind == Kind.CALL) == (strike >= FORWARD[expiry])
            rows.append(
                GREEKS.build(
                    instrument=instrument_of(expiry, place, kind), forward=FORWARD[expiry], flags=flags,
                    bid_iv=one if outside else 5.0, ask_iv=other if outside else 6.0,
                    ts_event_ns=event + 1000 * len(rows), ts_origin_ns=event + 1000 * len(rows) + 5,
                )
            )  # fmt: skip
    return np.concatenate(rows)


def test_an_interval_that_is_over_is_fitted_once() -> None:
    feed = [
        ("instrument", definitions()),
        ("greeks", greeks(FAR, NOW)),
        ("greeks", greeks(NEAR, NOW + 10**6)),
        ("greeks", greeks(FAR, NOW + 10**8, shift=0.001)),
        ("greeks", greeks(NEAR, NOW + SECOND)),
    ]
    out = run_node(node(), feed)["surface"]
    assert out["expiry_ns"].tolist() == [NEAR, FAR]
    assert out["underlying"].tolist() == [b"BTC"] * 2
    assert out["flags"].tolist() == [0, Flags.LAST_IN_EVENT]
    assert out["state"].tolist() == [0, 0]
    assert out["strikes"].tolist() == out["inside"].tolist() == [len(STRIKES)] * 2
    assert out["forward"].tolist() == [100.0, 102.0]
    known = NOW + 10**8 + 1000 * (2 * len(STRIKES) - 1)
    assert out["ts_event_ns"][1] == known
    assert out["ts_origin_ns"].tolist() == [NOW + 10**6 + 5, NOW + 5], "the oldest since the last fit"
    assert out["years"] == pytest.approx((np.array([NEAR, FAR]) - known) / YEAR_NS, rel=1e-15)
    for row in out:
        expiry = int(row["expiry_ns"])
        strikes, bid, ask = market(expiry)
        k = np.log(strikes / row["forward"])
        of = [row[name] for name in ("a", "b", "rho", "m", "sigma")]
        vol = np.sqrt(svi.total_variance(of, k) / row["years"])
        assert vol == pytest.approx((bid + ask) / 2 + 0.001 * (expiry == FAR), abs=1e-4)
        assert row["min_g"] >= 0
    assert np.isnan(out["min_gap"][0])
    assert out["min_gap"][1] > 0


def test_what_did_not_move_is_not_fitted_again_and_the_batches_do_not_matter() -> None:
    stream = np.concatenate(
        [
            greeks(FAR), greeks(NEAR, NOW + 10**6),
            greeks(FAR, NOW + SECOND), greeks(NEAR, NOW + SECOND + 10**6, shift=0.01), greeks(FAR, NOW + 2 * SECOND),
            greeks(NEAR, NOW + 60 * SECOND, shift=0.02), greeks(FAR, NOW + 61 * SECOND),
        ]
    )  # fmt: skip
    whole = run_node(node(), [("instrument", definitions()), ("greeks", stream)])["surface"]
    assert whole["expiry_ns"].tolist() == [NEAR, FAR, NEAR, NEAR]
    parts = [("greeks", part) for part in np.array_split(stream, 23)]
    split = run_node(node(), [("instrument", definitions()), *parts])["surface"]
    whole["ts_publish_ns"] = split["ts_publish_ns"] = 0
    assert split.tobytes() == whole.tobytes()
    assert whole["passes"][2:].max() < whole["passes"][:2].min() / 4, "warm"


def test_the_end_of_the_greeks_fits_what_is_left() -> None:
    kept = node()
    kept.on_start()
    kept.on_records(kept.instrument, definitions(), NOW)
    kept.on_records(kept.greeks, greeks(NEAR), NOW)
    assert kept.surface.staged == 0
    kept.on_ended(kept.greeks, NOW)
    kept.on_ended(kept.greeks, NOW)
    assert kept.surface.staged == 1
    report = kept.report()
    assert (report["rounds"], report["fits"]) == (1, 1)
    assert report["slices"]["BTC"][0]["rmse_points"] < 1e-3
    assert report["slices"]["BTC"][0]["min_gap"] is None


def ended(*feed: tuple[str, np.ndarray], **config) -> tuple[np.ndarray, dict]:
    """What is published once the greeks have ended, the last of each expiry, and the report."""
    kept = node(**config)
    caught: list[np.ndarray] = []
    kept.output_ports["surface"].sink = type(
        "Sink", (), {"write": lambda _, records, now: caught.append(records.copy())}
    )()
    kept.on_start()
    for name, records in feed:
        kept.on_records(kept.input_ports[name], records, NOW)
    kept.on_ended(kept.greeks, NOW)
    kept.surface.flush(NOW)
    return np.concatenate([SURFACE.zeros(0), *caught]), kept.report()


def test_stale_quotes_make_stale_slices() -> None:
    stream = greeks(NEAR)
    stream["flags"][-1] = Flags.STALE  # a call, out of the money
    stream["flags"][0] = Flags.STALE
    out, _ = ended(("instrument", definitions()), ("greeks", stream))
    assert out["flags"].tolist() == [0 | Flags.LAST_IN_EVENT], "those in the money are not used"
    out, _ = ended(("instrument", definitions()), ("greeks", greeks(NEAR, flags=Flags.STALE)))
    assert out["flags"].tolist() == [Flags.STALE | Flags.LAST_IN_EVENT]


def test_too_few_strikes_are_told_with_the_last_slice() -> None:
    closed = definitions(state=InstrumentState.CLOSED, expiries=(NEAR,))
    stream = ("instrument", definitions()), ("greeks", greeks(NEAR)), ("greeks", greeks(FAR, NOW + SECOND))
    out, report = ended(*stream, ("instrument", closed), ("greeks", greeks(FAR, NOW + 2 * SECOND)))
    assert out["expiry_ns"].tolist() == [NEAR, NEAR, FAR]
    assert out["state"].tolist() == [0, SurfaceState.TOO_FEW, 0]
    assert out["flags"].tolist() == [Flags.LAST_IN_EVENT, Flags.STALE, Flags.LAST_IN_EVENT]
    assert out["a"][0] == out["a"][1]
    assert (report["fits"], report["too_few"]) == (2, 1)
    out, report = ended(("instrument", definitions()), ("greeks", greeks(NEAR)), min_strikes=40)
    assert len(out) == 0
    assert report["too_few"] == 1


def test_crossing_quotes_are_kept_apart_or_told() -> None:
    below = Slice(0.002, 0.03, 0.1, 0.0, 0.2)
    stream = [
        ("instrument", definitions()),
        ("greeks", greeks(FAR, of=below)),
        ("greeks", greeks(NEAR, NOW + SECOND)),
        ("greeks", greeks(NEAR, NOW + 2 * SECOND)),
    ]
    out, report = ended(*stream)
    assert out["expiry_ns"].tolist() == [FAR, NEAR, FAR], "the far one follows, though it did not move"
    assert report["fits_for_the_one_before"] == 1
    assert out["min_gap"][2] >= 0
    assert report["arbitrage"] == 0
    out, report = ended(*stream, ("greeks", greeks(FAR, NOW + 3 * SECOND, shift=1e-4, of=below)), arbitrage_free=False)
    assert out["expiry_ns"].tolist() == [FAR, NEAR, FAR]
    assert out["state"][2] & SurfaceState.CALENDAR
    assert out["min_gap"][2] < 0
    assert report["arbitrage"] == 1


def test_greeks_wait_for_their_definition_and_expiries_end() -> None:
    out, report = ended(("greeks", greeks(NEAR)), ("instrument", definitions()))
    assert out["strikes"].tolist() == [len(STRIKES)]
    assert (report["held"], report["awaiting_definition"]) == (2 * len(STRIKES), 0)
    out, report = ended(("instrument", definitions()), ("greeks", greeks(NEAR)), ("greeks", greeks(FAR, NEAR + SECOND)))
    assert out["expiry_ns"].tolist() == [NEAR, FAR]
    assert report["expired"] == 1
    assert [each["expiry_ns"] for each in report["slices"]["BTC"]] == [FAR]


def test_it_goes_on_from_any_checkpoint_as_if_nothing_had_happened() -> None:
    chance = np.random.default_rng(SEED)
    feed = [("greeks", greeks(NEAR)[:7]), ("instrument", definitions())]
    for step in range(10):
        expiry = (NEAR, FAR)[int(chance.integers(2))]
        stream = greeks(expiry, NOW + step * SECOND // 2, shift=float(chance.normal(0, 0.01)))
        stream["bid_iv"][chance.integers(0, len(stream), 2)] = np.nan
        feed += [("greeks", part) for part in np.array_split(stream, 2)]
    assert check_restart(node, feed) == len(feed) - 1
    assert len(run_node(node(), feed)["surface"]) >= 4


@pytest.mark.parametrize(
    ("config", "says"),
    [({"interval": Duration("0s")}, "interval"), ({"min_strikes": 4}, "min_strikes")],
)
def test_keys_that_make_no_sense_are_refused(config: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        node(**config).on_start()
