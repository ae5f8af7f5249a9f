"""The builds of the pricing kernel for each instruction set: which runs, and that an element's place does not matter."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from native import black

LONGEST = 600


def forced(target: str) -> subprocess.CompletedProcess[str]:
    code = "from native import black; print(black.target(), black.price(100.0, 110.0, 0.5, 0.3, True).hex())"
    environment = {**os.environ, "FABRIC_BLACK_TARGET": target}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def mixed(count: int) -> list[np.ndarray]:
    """Options of all regions, limits and senseless ones among them."""
    rng = np.random.default_rng(5)
    forward = rng.uniform(50.0, 150.0, count)
    expiry = np.exp(rng.uniform(np.log(1e-4), np.log(4.0), count))
    vol = rng.uniform(0.05, 3.0, count)
    strike = forward * np.exp(rng.uniform(-4.0, 4.0, count) * vol * np.sqrt(expiry))
    strike[::17] = forward[::17]
    for column, bad in ((forward, np.nan), (strike, 0.0), (expiry, 0.0), (vol, -1.0), (vol, 1e-100), (forward, 1e200)):
        column[rng.integers(0, count, 4)] = bad
    return [forward, strike, expiry, vol, rng.random(count) < 0.5, rng.uniform(0.8, 1.0, count)]


def everything(columns: list[np.ndarray], price: np.ndarray) -> list[bytes]:
    forward, strike, expiry, _, call, discount = columns
    status = np.empty(len(price), np.uint8)
    solved = black.implied_vol(price, forward, strike, expiry, call, discount, status=status)
    values = [*black.greeks2(*columns), *black.greeks(*columns), black.price(*columns), solved]
    return [*(value.view(np.uint64).tolist() for value in values), status.tolist()]


def test_the_best_target_runs_unless_another_is_forced():
    names = black.targets()
    assert names[-1] == "baseline"
    for name in names:
        done = forced(name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == name
    assert forced("").stdout.split()[0] == names[0]
    assert "FABRIC_BLACK_TARGET" in forced("v9").stderr
    with pytest.raises(ValueError, match="v9"):
        black.select_target("v9")


@pytest.mark.usefixtures("black_target")
def test_length_and_place_do_not_change_a_bit():
    columns = mixed(LONGEST)
    price = black.price(*columns)
    whole = everything(columns, price)
    for count in range(1, LONGEST + 1):
        first = everything([column[:count] for column in columns], price[:count])
        last = everything([column[-count:] for column in columns], price[-count:])
        assert first == [values[:count] for values in whole], count
        assert last == [values[-count:] for values in whole], count


@pytest.mark.usefixtures("black_target")
def test_one_option_has_the_bits_of_an_element():
    columns = mixed(LONGEST)
    price = black.price(*columns)
    whole = [*black.greeks2(*columns), price]
    forward, strike, expiry, vol, call, discount = (column.tolist() for column in columns)
    solved = black.implied_vol(price, columns[0], columns[1], columns[2], columns[4], columns[5])
    for i in np.flatnonzero(np.isfinite(price)).tolist():
        option = (forward[i], strike[i], expiry[i], vol[i], call[i], discount[i])
        alone = [*black.greeks2(*option), black.price(*option)]
        assert np.array_equal(alone, [values[i] for values in whole], equal_nan=True)
        if np.isfinite(solved[i]):
            assert black.implied_vol(float(price[i]), *option[:3], *option[4:]) == solved[i]


@pytest.mark.usefixtures("black_target")
def test_shared_expiry_form_is_the_same_as_columns_filled_up():
    _, strike, _, vol, call, _ = mixed(LONGEST)
    filled = [np.full(LONGEST, value) for value in (100.0, 0.25, 0.99)]
    for function in (black.price, black.greeks, black.greeks2):
        shared = np.array(function(100.0, strike, 0.25, vol, call, 0.99))
        whole = np.array(function(filled[0], strike, filled[1], vol, call, filled[2]))
        assert np.array_equal(shared, whole, equal_nan=True)


def test_targets_agree():
    forward, strike, expiry, vol, call, discount = mixed(LONGEST)
    values = []
    for name in black.targets():
        black.select_target(name)
        values.append(np.array(black.greeks(forward, strike, expiry, vol, call, discount)))
    black.select_target(None)
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=2e-13, atol=1e-290)
