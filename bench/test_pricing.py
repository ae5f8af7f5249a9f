"""Black-76 on a chain of 4,096 options: one call, one core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native import black

COUNT = 4096


@pytest.fixture(scope="module")
def chain() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    strike = np.exp(rng.normal(0.0, 0.2, COUNT)) * 100
    return {
        "forward": 100.0,
        "strike": strike,
        "expiry_years": rng.uniform(0.02, 1.5, COUNT),
        "vol": rng.uniform(0.2, 1.2, COUNT),
        "is_call": strike > 100.0,
    }


def test_price(benchmark: Any, chain: dict[str, Any]) -> None:
    assert np.isfinite(benchmark(lambda: black.price(**chain))).all()


def test_greeks(benchmark: Any, chain: dict[str, Any]) -> None:
    assert np.isfinite(benchmark(lambda: black.greeks(**chain)).vega).all()


def test_implied_vol(benchmark: Any, chain: dict[str, Any]) -> None:
    price = black.price(**chain)
    known = {name: value for name, value in chain.items() if name != "vol"}
    found = benchmark(lambda: black.implied_vol(price, **known))
    carried = price > 1e-200
    assert np.allclose(found[carried], chain["vol"][carried], rtol=1e-9)
