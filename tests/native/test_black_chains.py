"""Whole chains as venues published them, against the venues' own implied volatilities and greeks.

The limits are what the venues' rounding allows, by the notes of ../shared/data: Deribit rounds greeks to 5 decimals and
volatilities to 2 (of per cent); in its snapshots quotes and greeks were computed a moment apart.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from native import black, forms
from native.black import Status

pytestmark = pytest.mark.usefixtures("black_target")

YEAR = 365 * 86400  # seconds: ACT/365
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
EASTERN = dt.timezone(dt.timedelta(hours=-4))  # in summer
SPX = {
    "spx_20220712_intraday.csv.gz": (dt.datetime(2022, 7, 12, 11, 55, tzinfo=EASTERN), 3856.28, 1e-3),
    "spx_20230914_close.csv.gz": (dt.datetime(2023, 9, 14, 16, 31, tzinfo=EASTERN), 4505.10, 2e-3),
}


def tickers(path: Path) -> list[dict]:
    """The option tickers of a recorded websocket."""
    found = []
    for line in path.read_text().splitlines():
        _, _, text = line.partition(": ")
        if text.startswith('{"jsonrpc"') and '"channel":"ticker.' in text:
            found.append(json.loads(text)["params"]["data"])
    return found


def expires(day: str) -> float:
    """08:00 UTC of a day as Deribit writes it, such as 5MAR21."""
    date = dt.datetime(2000 + int(day[-2:]), 1 + MONTHS.index(day[-5:-2]), int(day[:-5]), 8, tzinfo=dt.UTC)
    return date.timestamp()


def numbers(rows: list[dict], name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows])


def off(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Median relative difference where theirs is not rounded to nothing."""
    some = theirs != 0
    return float(np.median(np.abs(ours[some] / theirs[some] - 1.0)))


@pytest.mark.parametrize(
    ("file", "count", "delta_limit"),
    [("ws_20210405_10options.log", 273, 1e-5), ("ws_20210722_10options.log", 89, 2e-4)],
)
def test_deribit_tickers(shared_data: Path, file: str, count: int, delta_limit: float) -> None:
    """Mark price and greeks of the mark volatility: undiscounted Black-76 of the ticker's own forward and time."""
    rows = tickers(shared_data / "deribit" / file)
    assert len(rows) == count
    names = [row["instrument_name"].split("-") for row in rows]
    forward = np.array([row["underlying_price"] for row in rows])
    strike, call = np.array([float(name[2]) for name in names]), np.array([name[3] == "C" for name in names])
    years = np.array([expires(name[1]) for name in names]) - np.array([row["timestamp"] / 1e3 for row in rows])
    years /= YEAR
    vol, mark = (np.array([row[key] for row in rows]) for key in ("mark_iv", "mark_price"))
    vol = vol / 100
    ours = black.greeks(forward, strike, years, vol, call)
    theirs = {name: np.array([row["greeks"][name] for row in rows]) for name in rows[0]["greeks"]}
    assert off(ours.price / forward, mark) <= 8e-5
    assert off(ours.delta, theirs["delta"]) <= delta_limit
    assert np.abs(ours.delta - theirs["delta"]).max() <= 3e-5
    assert off(forms.per_percent(ours.vega), theirs["vega"]) <= 8e-5
    assert off(forms.per_day(ours.theta), theirs["theta"]) <= 9e-5
    assert np.abs(ours.gamma - theirs["gamma"]).max() <= 0.51e-5
    # Deribit's rho lets the forward grow with the rate, and is per 1 %: K T N(d2) / 100 of a call
    digital = forms.digital_price(forward, strike, years, vol, call)
    theirs_rho = np.where(call, strike, -strike) * years * digital / 100
    assert off(theirs_rho, theirs["rho"]) <= 3e-5
    assert np.array_equal(forms.inverse_price(forward, strike, years, vol, call), ours.price / forward)
    status = np.empty(count, np.uint8)
    solved = forms.inverse_implied_vol(mark, forward, strike, years, call, status=status)
    some = status == Status.OK
    assert some.mean() > 0.95
    # mark prices have four to six decimals, and some are of a moment before: 1e-5 of a coin in the median
    missed = np.abs(solved - vol)[some]
    assert np.median(missed / vol[some]) <= 5e-4
    assert np.median(missed * ours.vega[some] / forward[some]) <= 1e-5
    assert set(status[~some]) <= {Status.BELOW_INTRINSIC, Status.NO_TIME_VALUE}


def snapshots(shared_data: Path) -> list[Path]:
    found = sorted((shared_data / "deribit").glob("**/options_snapshot_*.csv.gz"))
    assert len(found) == 22
    return found


def test_deribit_snapshots(shared_data: Path) -> None:
    """22 whole chains of BTC and ETH, some 37,000 options: volatilities of mark prices, and delta, vega of mark volatilities."""
    options = 0
    for path in snapshots(shared_data):
        with gzip.open(path, "rt") as file:
            rows = list(csv.DictReader(file))
        forward, strike, mark = (numbers(rows, name) for name in ("futures_price", "strike", "mark_price"))
        vol, delta, vega = (numbers(rows, name) for name in ("implied_volatility", "delta", "vega"))
        call = np.array([row["option_type"] == "call" for row in rows])
        left = [
            dt.datetime.fromisoformat(r["expiry_datetime"]) - dt.datetime.fromisoformat(r["timestamp"]) for r in rows
        ]
        years = np.array([each.total_seconds() for each in left]) / YEAR
        status = np.empty(len(rows), np.uint8)
        solved = forms.inverse_implied_vol(mark, forward, strike, years, call, status=status)
        assert np.array_equal(np.isfinite(solved), status == Status.OK)
        outside = (call == (strike > forward)) & (mark > 0.002)
        assert (status[outside] == Status.OK).all()
        assert np.median(np.abs(solved / vol - 1.0)[outside]) <= 1e-3
        ours = black.greeks(forward, strike, years, vol, call)
        assert np.nanmedian(np.abs(ours.delta - delta)) <= 1.5e-3
        assert off(forms.per_percent(ours.vega)[vega > 0.5], vega[vega > 0.5]) <= 1.5e-2
        options += len(rows)
    assert options > 35_000


def spx(path: Path) -> dict[tuple[dt.datetime, bool], np.ndarray]:
    """By expiry and whether it settles in the afternoon: strike, then bid, ask, IV, delta, gamma of call and put."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.reader(line for line in file if line.strip(" ,\r\n")))
    start = next(i for i, row in enumerate(rows) if row[0] == "Expiration Date") + 1
    found: dict[tuple[dt.datetime, bool], list[list[float]]] = {}
    for row in rows[start:]:
        afternoon = row[1].startswith("SPXW")
        day = dt.datetime.strptime(row[0], "%a %b %d %Y").replace(tzinfo=EASTERN)
        expiry = day.replace(hour=16) if afternoon else day.replace(hour=9, minute=30)
        picked = (11, 4, 5, 7, 8, 9, 15, 16, 18, 19, 20)
        found.setdefault((expiry, afternoon), []).append([float(row[i]) for i in picked])
    return {key: np.array(rows).T for key, rows in found.items()}


@pytest.mark.parametrize("file", SPX)
def test_spx_chains(shared_data: Path, file: str) -> None:
    """Forward and discount from put-call parity of the mid prices near the money; times to 09:30 (AM) or 16:00 (PM) New York.

    The venue uses a rate and dividends of its own: volatilities agree to a few parts in a thousand, deltas to 0.01.
    """
    now, spot, limit = SPX[file]
    errors, deltas, gammas, kinds = [], [], [], set()
    for (expiry, afternoon), columns in spx(shared_data / "equity-option-chains" / file).items():
        strike, sides = columns[0], (columns[1:6], columns[6:11])
        years = (expiry - now).total_seconds() / YEAR
        mids = [(bid + ask) / 2 for bid, ask, *_ in sides]
        near = (sides[0][0] > 0) & (sides[1][0] > 0) & (np.abs(strike / spot - 1) < 0.1)
        if years < 2 / 365 or near.sum() < 8:
            continue
        slope, start = np.polyfit(strike[near], (mids[0] - mids[1])[near], 1)
        discount, forward = -slope, -start / slope
        assert 0.8 < discount < 1.01
        for call, mid, (bid, _, their_vol, their_delta, their_gamma) in zip((True, False), mids, sides, strict=True):
            some = (bid > 0) & (their_vol > 0) & (mid > 0.5) & ((strike > forward) == call)
            vol = black.implied_vol(mid[some], forward, strike[some], years, call, discount)
            ours = black.greeks(forward, strike[some], years, their_vol[some], call)
            errors += (np.abs(vol / their_vol[some] - 1)).tolist()
            deltas += np.abs(ours.delta - their_delta[some]).tolist()
            gammas += np.abs(ours.gamma * (forward / spot) ** 2 - their_gamma[some]).tolist()
            kinds.add(afternoon)
    assert len(errors) > 5_000
    assert kinds == {True, False}
    assert all(math.isfinite(error) for error in errors)
    assert np.median(errors) <= limit
    assert np.quantile(errors, 0.9) <= 10 * limit
    assert np.median(deltas) <= 2e-3
    assert np.quantile(deltas, 0.9) <= 1e-2
    assert np.median(gammas) <= 1e-4
