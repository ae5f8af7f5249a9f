"""The pricing kernel against tables: 80-digit reference values, own ones by kind of option, and printed or published ones.

Those of ../shared/data are skipped where it is absent; its notes say what each is good for.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from pricing_exact import HARD, Columns, chain, hard, value_errors, vol_errors

from native import black, forms

pytestmark = pytest.mark.usefixtures("black_target")

KIND = 40  # options of each kind of HARD
FIRST_ORDER = ("price", "delta", "gamma", "vega")


def out_of_the_money(columns: Columns) -> Columns:
    forward, strike, expiry, vol, _, discount = columns
    return forward, strike, expiry, vol, strike > forward, discount


def solve(columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Price, the volatility solved from it, status."""
    price = black.price(*columns)
    forward, strike, expiry, _, call, discount = columns
    status = np.empty(len(price), np.uint8)
    return price, black.implied_vol(price, forward, strike, expiry, call, discount, status=status), status


def test_80_digit_table(shared_data: Path) -> None:
    """Chain rows to 1e-14, hard rows to 5e-14, vanna and volga to 5e-14; the rest as well as its inputs allow."""
    table = np.load(shared_data / "pricing_reference" / "reference.npz")
    forward, strike, expiry, vol, call = table["F"], table["K"], table["T"], table["sigma"], table["flag"] > 0
    discount = np.exp(-table["r"] * expiry)
    chain_rows = table["group"] < 0
    assert chain_rows.sum() == 300
    assert len(chain_rows) == 400
    values = black.greeks2(forward, strike, expiry, vol, call, discount)
    for name in (*FIRST_ORDER, "vanna", "volga"):
        limit = np.where(chain_rows & (name in FIRST_ORDER), 1e-14, 5e-14)
        error = np.abs(getattr(values, name) - table[f"b76_{name}"]) / table[f"b76_{name}_scale"]
        assert (error <= limit).all(), (name, error.max())
    # theta needs the rate, of which a discount factor near 1 keeps few digits
    error = np.abs(values.theta - table["b76_theta"]) - 2.0**-52 * values.price / expiry
    assert (error <= 1e-14 * table["b76_theta_scale"]).all()
    assert (np.abs(values.rho / table["b76_rho"] - 1.0) <= 5e-14).all()
    status = np.empty(len(forward), np.uint8)
    for name, factor in (("b76", discount), ("undisc", 1.0)):
        solved = black.implied_vol(table[f"{name}_price"], forward, strike, expiry, call, factor, status=status)
        assert not status.any()
        error = np.abs(solved / table[f"{name}_iv"] - 1.0)
        attainable = np.maximum(table[f"{name}_iv_attainable"], 2.0**-53)
        assert (error <= 50 * attainable).all()
        if name == "undisc":  # exp(-r T) is rounded: of a discounted price the exact volatility is another one
            assert error[call == (forward < strike)].max() <= 1e-14


def test_80_digit_table_to_the_spot(shared_data: Path) -> None:
    """Forward and discount are rounded on the way: an error of 1e-16 in them is d/S of it in the value."""
    table = np.load(shared_data / "pricing_reference" / "reference.npz")
    spot, strike, expiry, vol, call = table["S"], table["K"], table["T"], table["sigma"], table["flag"] > 0
    values = forms.spot_greeks(spot, strike, expiry, vol, call, table["r"], table["q"])
    for name, gain in (("price", "delta"), ("delta", "gamma"), ("gamma", None), ("vega", "vanna")):
        size = table[f"bsm_{name}_scale"]
        if gain is None:  # density's relative change: d1 / (vol sqrt T), of the forward
            s = vol * np.sqrt(expiry)
            d1 = (np.log(spot / strike) + (table["r"] - table["q"]) * expiry) / s + s / 2
            carried = size * (1 + np.abs(d1) / s)
        else:
            carried = spot * np.abs(table[f"bsm_{gain}_scale"])
        error = np.abs(getattr(values, name) - table[f"bsm_{name}"])
        assert (error <= 5e-14 * size + 8 * 2.0**-53 * carried).all(), name


def test_a_chain() -> None:
    columns = chain(400, seed=1)
    for name, error in value_errors(black.greeks2(*columns), columns).items():
        assert error.max() <= 1e-14, (name, error.max())


def test_implied_volatilities_of_a_chain() -> None:
    """Of the exact volatility of the float64 price: 1e-14 out of the money, else 50 times what its last bit allows."""
    columns = chain(400, seed=2)
    price, solved, status = solve(out_of_the_money(columns))
    error, _ = vol_errors(solved, price, out_of_the_money(columns))
    assert not status.any()
    assert error.max() <= 1e-14
    forward, strike, expiry, vol, call, discount = out_of_the_money(columns)
    inside = (forward, strike, expiry, vol, ~call, discount)
    price, solved, status = solve(inside)
    error, attainable = vol_errors(solved, price, inside)
    assert not status.any()
    assert (error <= 50 * np.maximum(attainable, 2.0**-53)).all()


@pytest.mark.parametrize("kind", range(len(HARD)), ids=HARD)
def test_hard_options(kind: int) -> None:
    rows = slice(kind * KIND, (kind + 1) * KIND)
    columns = tuple(column[rows] for column in hard(KIND, seed=1))
    for name, error in value_errors(black.greeks2(*columns), columns).items():
        assert error.max() <= 5e-14, (name, error.max())
    price, solved, status = solve(columns)
    some = status == black.Status.OK
    error, attainable = vol_errors(solved[some], price[some], tuple(column[some] for column in columns))
    assert (error <= 50 * np.maximum(attainable, 2.0**-53)).all()
    outside = out_of_the_money(columns)
    price, solved, status = solve(outside)
    assert not status.any()
    error, attainable = vol_errors(solved, price, outside)
    assert (error <= np.maximum(1e-14, 50 * attainable)).all()  # huge volatility: the price is near its maximum


def test_haugs_values_and_greeks(shared_data: Path) -> None:
    """Printed to four digits: E. G. Haug, Option pricing formulas, 1998."""
    with (shared_data / "reference" / "haug_european_values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 43
    for row in rows:
        x = {key: float(row[key]) for key in ("strike", "spot", "q", "r", "t", "vol", "value")}
        forward = x["spot"] * np.exp((x["r"] - x["q"]) * x["t"])
        value = black.price(forward, x["strike"], x["t"], x["vol"], row["type"] == "call", np.exp(-x["r"] * x["t"]))
        assert value == pytest.approx(x["value"], abs=6e-5), row
    with (shared_data / "reference" / "haug_european_greeks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    for row in rows:
        x = {key: float(row[key]) for key in ("strike", "spot", "q", "r", "t", "vol", "value")}
        of = forms.spot_greeks(x["spot"], x["strike"], x["t"], x["vol"], row["type"] == "call", x["r"], x["q"])
        ours = {
            "elasticity": of.delta * x["spot"] / of.price,
            "theta_per_day": forms.per_day(of.theta),
            "dividendRho": -x["t"] * x["spot"] * of.delta,
        }
        found = ours.get(row["greek"]) if row["greek"] in ours else getattr(of, row["greek"])
        assert found == pytest.approx(x["value"], abs=6e-5), row


def test_lets_be_rational(shared_data: Path) -> None:
    """Random cases with the output of P. Jaeckel's own program; in 36 its volatility does not return (no time value)."""
    with gzip.open(shared_data / "reference" / "lets_be_rational_values_0001-0700.json.gz", "rt") as file:
        table = json.load(file)
    inputs, outputs = table["input"], table["output"]
    forward, strike, expiry, vol = (np.array([float(case[key]) for case in inputs]) for key in ("F", "K", "T", "sigma"))
    call = np.array([case["q"] > 0 for case in inputs])
    theirs = np.array([case["black"] for case in outputs])
    ours = black.price(forward, strike, expiry, vol, call)
    assert (np.abs(ours - theirs) <= 1e-14 * np.maximum(forward, strike)).all()
    x, s = (np.array([float(case[key]) for case in inputs]) for key in ("x", "s"))
    some = s > 0
    normalised = np.array([case["normalised_black"] for case in outputs])
    mine = black.price(np.exp(x / 2), np.exp(-x / 2), 1.0, s, call)
    assert (np.abs(mine - normalised)[some] <= 2e-14 * np.exp(np.abs(x) / 2)[some]).all()
    status = np.empty(len(ours), np.uint8)
    solved = black.implied_vol(ours, forward, strike, expiry, call, status=status)
    theirs_iv = np.array([case["implied_volatility_from_a_transformed_rational_guess"] for case in outputs])
    both = (status == black.Status.OK) & (np.abs(theirs_iv - vol) < 1e-9 * vol)
    assert both.sum() >= 700 - 36
    last_bit = ours * 2.0**-52 / black.greeks(forward, strike, expiry, vol, call).vega.clip(1e-300)
    assert (np.abs(solved - vol)[both] <= (50 * last_bit + 1e-14 * vol)[both]).all()
    assert (np.abs(solved - theirs_iv)[both] <= (100 * last_bit + 1e-13 * vol)[both]).all()


def test_vollib_ladder(shared_data: Path) -> None:
    """Prices and greeks to the spot; many cells of the table are rounded to 1e-10 or ten digits."""
    table = json.loads((shared_data / "reference" / "vollib_bs_values.json").read_text())
    columns = zip(*table["data"], strict=True)
    rows = {name: np.array(column, float) for name, column in zip(table["columns"], columns, strict=True)}
    assert len(rows["S"]) == 101
    letters = {"delta": "D", "gamma": "G", "theta": "T", "vega": "V", "rho": "R"}
    for flag, side, price in ((True, "C", "bs_call"), (False, "P", "bs_put")):
        of = forms.spot_greeks(rows["S"], rows["K"], rows["t"], rows["v"], flag, rows["R"])
        np.testing.assert_allclose(of.price, rows[price], rtol=1e-9, atol=1e-9)
        for name, letter in letters.items():
            np.testing.assert_allclose(getattr(of, name), rows[side + letter], rtol=1e-9, atol=1e-9, err_msg=name)
