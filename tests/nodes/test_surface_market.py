"""Surfaces of recorded markets: every expiry of the Deribit snapshots and the SPX chains, and how good the fits are.

The thresholds are what was measured, with a little room. `python -m pytest tests/nodes/test_surface_market.py -s` prints the
figures of docs/surface.md.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from native import black, svi
from native.svi import Status
from nodes.volsurface import YEAR_NS, FittedSlice, VolSurface

FEWEST = 8
Quotes = list[tuple[float, float, float, float, bool]]
"""Strike, bid and ask in strike currency, forward, whether it is a call; out of the money, two-sided."""
Market = dict[tuple[str, int], tuple[int, Quotes]]
"""By underlying and expiry_ns: the time of the quotes, and these."""


def nanoseconds(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * 10**9


def deribit(path: Path) -> Market:
    now, found = 0, defaultdict(list)
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            forward, strike, call = float(row["futures_price"]), float(row["strike"]), row["option_type"] == "call"
            bid, ask = float(row["bid_price"] or 0), float(row["ask_price"] or 0)
            now = nanoseconds(row["timestamp"])
            if ask >= bid > 0 and call == (strike >= forward):
                key = row["currency"], nanoseconds(row["expiry_datetime"])
                found[key].append((strike, bid * forward, ask * forward, forward, call))
    return {key: (now, quotes) for key, quotes in found.items() if key[1] > now}


def cboe(path: Path) -> Market:
    """Forward and discount of each expiry from put-call parity near the money; SPX is settled at the open, SPXW at the close."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    written = re.search(r'"Date: (\w+ \d+, \d+),?(?: at)? (\d+:\d+ [AP]M) EDT"', "\n".join(lines))
    assert written
    eastern = dt.timezone(dt.timedelta(hours=-4))
    at = dt.datetime.strptime(f"{written[1]} {written[2]}", "%B %d, %Y %I:%M %p").replace(tzinfo=eastern)
    now = int(at.timestamp()) * 10**9
    first = next(i for i, line in enumerate(lines) if line.startswith("Expiration"))
    legs = defaultdict(list)
    for row in csv.reader(lines[first + 1 :]):
        weekly = row[1].startswith("SPXW")
        day = dt.datetime.strptime(row[0], "%a %b %d %Y").replace(tzinfo=eastern)
        expiry = day + (dt.timedelta(hours=16) if weekly else dt.timedelta(hours=9, minutes=30))
        key = "SPXW" if weekly else "SPX", int(expiry.timestamp()) * 10**9
        legs[key].append([float(row[i]) for i in (11, 4, 5, 15, 16)])
    market: Market = {}
    for key, rows in legs.items():
        strike, call_bid, call_ask, put_bid, put_ask = np.array(sorted(rows)).T
        parity = 0.5 * (call_bid + call_ask - put_bid - put_ask)
        both = (call_bid > 0) & (put_bid > 0)
        if key[1] <= now or both.sum() < FEWEST:
            continue
        money = strike[np.argmin(np.where(both, np.abs(parity), np.inf))]
        near = both & (np.abs(strike / money - 1) < 0.05)
        if near.sum() < 3:
            continue
        weight = 1 / np.maximum(call_ask - call_bid + put_ask - put_bid, 0.05)[near]
        columns = np.stack([np.ones(near.sum()), -strike[near]], 1) * weight[:, None]
        (value, discount), *_ = np.linalg.lstsq(columns, parity[near] * weight, rcond=None)
        forward = float(value / discount)
        call = strike >= forward
        bid, ask = np.where(call, call_bid, put_bid) / discount, np.where(call, call_ask, put_ask) / discount
        use = (ask >= bid) & (bid > 0)
        chosen = zip(strike[use].tolist(), bid[use].tolist(), ask[use].tolist(), call[use].tolist(), strict=True)
        market[key] = now, [(k, one, other, forward, is_call) for k, one, other, is_call in chosen]
    return market


def fitted(market: Market, *, arbitrage_free: bool) -> Iterator[tuple[VolSurface, FittedSlice]]:
    surfaces: dict[str, VolSurface] = defaultdict(lambda: VolSurface(arbitrage_free=arbitrage_free))
    for (underlying, expiry), (now, quotes) in sorted(market.items()):
        strike, bid, ask, forwards, call = (np.array(column) for column in zip(*sorted(quotes), strict=True))
        forward, years = float(np.median(forwards)), (expiry - now) / YEAR_NS
        status = np.zeros(len(strike), np.uint8)
        vols = [black.implied_vol(side, forward, strike, years, call, status=status) for side in (bid, ask)]
        if np.isfinite(vols).all(axis=0).sum() >= FEWEST:
            yield surfaces[underlying], surfaces[underlying].fit(expiry, now, forward, strike, *vols)


def figures(name: str, slices: list[FittedSlice]) -> tuple[np.ndarray, float]:
    """Median, 90th and 95th percentile of the root mean square errors in points, and the share of strikes inside; printed."""
    errors = np.percentile([100 * each.rmse for each in slices], [50, 90, 95])
    inside = sum(each.inside for each in slices) / sum(each.strikes for each in slices)
    median = np.median([each.inside / each.strikes for each in slices])
    crossed = sum(each.min_gap < 0 for each in slices)
    dipped = sum(each.min_g < 0 for each in slices)
    ended = {status.name: sum(each.status == status for each in slices) for status in Status}
    print(
        f"\n{name}: {len(slices)} slices, {sum(each.strikes for each in slices)} strikes; rmse median {errors[0]:.2f}, "
        f"90 % {errors[1]:.2f}, 95 % {errors[2]:.2f} points; inside {inside:.3f} of all, {median:.3f} of the median slice's; "
        f"g < 0 {dipped}, gap < 0 {crossed}; {ended}"
    )
    return errors, inside


def snapshots(shared_data: Path) -> list[Market]:
    files = [
        *sorted(shared_data.glob("deribit/options_snapshot_*.csv.gz")),
        *sorted(shared_data.glob("deribit/series*/*.gz")),
    ]
    if not files:
        pytest.skip("no Deribit snapshots in ../shared/data/deribit")
    return [deribit(path) for path in files]


def chains(shared_data: Path) -> list[Market]:
    files = sorted(shared_data.glob("equity-option-chains/spx_*.csv.gz"))
    if not files:
        pytest.skip("no SPX chains in ../shared/data/equity-option-chains")
    return [cboe(path) for path in files]


MARKETS = {"deribit": snapshots, "spx": chains}
FITS = list(itertools.product(MARKETS, (False, True)))
MOST = {  # slices at least; rmse in points, median, 90 %, 95 %, at most; inside, at least
    ("deribit", False): (510, (0.62, 1.6, 2.2), 0.96),
    ("deribit", True): (510, (0.65, 1.6, 2.4), 0.955),
    ("spx", False): (105, (0.68, 1.45, 1.7), 0.44),
    ("spx", True): (105, (0.76, 1.8, 2.0), 0.33),
}


@pytest.mark.parametrize(("name", "arbitrage_free"), FITS)
def test_every_expiry_fits(shared_data: Path, name: str, arbitrage_free: bool) -> None:
    slices: list[FittedSlice] = []
    for market in MARKETS[name](shared_data):
        for surface, each in fitted(market, arbitrage_free=arbitrage_free):
            assert each.status in (Status.CONVERGED, Status.NOT_CONVERGED)
            assert each.strikes >= FEWEST
            slices.append(each)
            if arbitrage_free:
                assert each.min_g >= 0
                assert svi.butterfly_g(each.params, np.linspace(-20, 20, 2001)).min() > -1e-7
                floor = surface.gap(each.expiry_ns, each.as_of_ns)
                assert floor is None or floor.value >= 0
                assert surface.crossed(each.as_of_ns) == []
    errors, inside = figures(f"{name}, {'free of arbitrage' if arbitrage_free else 'plain'}", slices)
    count, most, least = MOST[name, arbitrage_free]
    assert len(slices) >= count
    assert (errors <= most).all()
    assert inside >= least
    assert np.mean([each.status == Status.CONVERGED for each in slices]) > 0.8


def test_warm_starts_follow_a_market_that_moves(shared_data: Path) -> None:
    """Seconds apart in the way of ticks: a fifth of a point of noise on each strike, anew each time."""
    chance = np.random.default_rng(1)
    passes, worse = [], []
    for market in snapshots(shared_data)[:2]:
        for _, (now, quotes) in ((key[1], value) for key, value in sorted(market.items())):
            strike, bid, ask, forwards, call = (np.array(column) for column in zip(*sorted(quotes), strict=True))
            expiry = next(key[1] for key, value in market.items() if value[1] is quotes)
            forward, years = float(np.median(forwards)), (expiry - now) / YEAR_NS
            status = np.zeros(len(strike), np.uint8)
            one, other = (black.implied_vol(side, forward, strike, years, call, status=status) for side in (bid, ask))
            if np.isfinite([one, other]).all(axis=0).sum() < FEWEST:
                continue
            kept = VolSurface(arbitrage_free=False)
            for _ in range(5):
                noise = 0.002 * chance.standard_normal(len(strike))
                warm = kept.fit(expiry, now, forward, strike, one + noise, other + noise)
                cold = VolSurface(arbitrage_free=False).fit(expiry, now, forward, strike, one + noise, other + noise)
                worse.append(warm.rms / cold.rms)
                passes.append(warm.passes)
    print(f"\nwarm: {np.median(passes)} passes at the median, {np.percentile(passes, 90)} at 90 %")
    assert np.median(passes) <= 10
    assert np.percentile(worse, 95) < 1.001
