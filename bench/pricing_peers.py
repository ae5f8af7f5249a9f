"""`make bench-pricing`: the pricing kernel beside the Python libraries that do the same, in one run on one core.

Runs under the interpreter of an environment that holds the peers (var/peers). A peer that is not there, does not run,
or gives another answer is named and left out. Peers that take only normalised input (forward 1, one year, calls) get
it ready-made, out of the clock; the kernel takes forwards, strikes, expiries, volatilities, flags and discounts as
they are. Not tried: opengreeks (its wheel does not load on Python 3.11), polars-vol (data frames). All options are out
of the money. Times are medians over rounds, nanoseconds an option.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from native import black  # noqa: E402

ROUNDS = 15
SIZES = (1, 16, 256, 4096, 1_000_000)
MUST = {  # by size; half of it for arrays without AVX-512
    "price": {1: 1.0, 16: 4.0, 4096: 3.5, 1_000_000: 6.0},
    "greeks": {1: 6.0, 16: 8.0, 4096: 4.0, 1_000_000: 6.0},
    "implied vol": {1: 1.0, 16: 5.0, 4096: 10.0, 1_000_000: 15.0},
    "hard implied vol": {4096: 8.0},
}
Case = dict[str, Any]
Peer = Callable[[Case], dict[str, Callable[[], Any]]]


def workload(count: int, hard: bool = False) -> Case:
    """A chain: within three deviations. ``hard``: a quarter each deep out of the money (5 to 12), with seconds to
    expiry, at the money with next to no volatility, and of total volatility 3.5 to 12."""
    rng = np.random.default_rng(1)
    forward = rng.uniform(20e3, 120e3, count)
    expiry = np.exp(rng.uniform(np.log(1 / 8760), np.log(2.0), count))
    vol = rng.uniform(0.05, 2.5, count)
    deviations = rng.uniform(-3.0, 3.0, count)
    if hard:
        group = np.arange(count) % 4
        deviations = np.where(group == 0, rng.choice([-1.0, 1.0], count) * rng.uniform(5.0, 12.0, count), deviations)
        expiry = np.where(group == 1, rng.uniform(1.0, 60.0, count) / 31_536_000, expiry)
        vol = np.where(group == 2, 10.0 ** rng.uniform(-6.0, -3.0, count), vol)
        vol = np.where(group == 3, rng.uniform(3.5, 12.0, count) / np.sqrt(expiry), vol)
        deviations = np.where(group == 3, rng.uniform(-1.0, 1.0, count), deviations)
    strike = forward * np.exp(deviations * vol * np.sqrt(expiry))
    call = strike > forward
    case: Case = {"f": forward, "k": strike, "t": expiry, "v": vol, "call": call, "d": np.ones(count)}
    case["p"] = black.price(forward, strike, expiry, vol, call, 1.0)
    ratio = np.maximum(strike / forward, forward / strike)
    case |= {"nk": ratio, "ns": vol * np.sqrt(expiry), "x": np.log(ratio)}
    case["np"] = black.price(1.0, ratio, 1.0, case["ns"], True)
    case["flag"] = np.where(call, "c", "p")
    if count == 1:
        case = {name: array[0].item() for name, array in case.items()}
    return case


def kernel(c: Case) -> dict[str, Callable[[], Any]]:
    if isinstance(c["f"], float):  # here and in the fastest peers: names looked up once, no discount
        f, k, t, v, call, p = (c[name] for name in ("f", "k", "t", "v", "call", "p"))
        price, greeks, implied_vol = black.price, black.greeks, black.implied_vol
        return {
            "price": lambda: price(f, k, t, v, call),
            "greeks": lambda: greeks(f, k, t, v, call),
            "implied vol": lambda: implied_vol(p, f, k, t, call),
        }
    option = tuple(c[name] for name in ("f", "k", "t", "v", "call", "d"))
    priced = tuple(c[name] for name in ("p", "f", "k", "t", "call", "d"))
    return {
        "price": lambda: black.price(*option),
        "greeks": lambda: black.greeks(*option),
        "implied vol": lambda: black.implied_vol(*priced),
    }


def scipy_textbook(c: Case) -> dict[str, Callable[[], Any]]:
    from scipy.special import ndtr

    def run(full: bool) -> Any:
        sign = np.where(c["call"], 1.0, -1.0)
        root = np.sqrt(c["t"])
        s = c["v"] * root
        d1 = np.log(c["f"] / c["k"]) / s + 0.5 * s
        n1 = ndtr(sign * d1)
        price = c["d"] * sign * (c["f"] * n1 - c["k"] * ndtr(sign * (d1 - s)))
        if not full:
            return price
        density = c["d"] * np.exp(-0.5 * d1 * d1) * 0.3989422804014327
        vega = c["f"] * density * root
        theta = -np.log(c["d"]) / c["t"] * price - vega * c["v"] / (2.0 * c["t"])
        return price, c["d"] * sign * n1, density / (c["f"] * s), vega, theta, -c["t"] * price

    return {"price": lambda: run(False), "greeks": lambda: run(True)}


def numba_textbook(c: Case) -> dict[str, Callable[[], Any]]:
    import numba

    @numba.njit(fastmath=True)
    def one(f: float, k: float, t: float, v: float, call: bool, d: float) -> Any:
        sign = 1.0 if call else -1.0
        root = math.sqrt(t)
        s = v * root
        d1 = math.log(f / k) / s + 0.5 * s
        n1 = 0.5 * math.erfc(-sign * d1 * 0.7071067811865476)
        price = d * sign * (f * n1 - k * 0.5 * math.erfc(-sign * (d1 - s) * 0.7071067811865476))
        density = d * math.exp(-0.5 * d1 * d1) * 0.3989422804014327
        vega = f * density * root
        theta = -math.log(d) / t * price - vega * v / (2.0 * t)
        return price, d * sign * n1, density / (f * s), vega, theta, -t * price

    @numba.njit(fastmath=True)
    def prices(f: Any, k: Any, t: Any, v: Any, call: Any, d: Any) -> Any:
        out = np.empty(len(f))
        for i in range(len(f)):
            out[i] = one(f[i], k[i], t[i], v[i], call[i], d[i])[0]
        return out

    @numba.njit(fastmath=True)
    def greeks(f: Any, k: Any, t: Any, v: Any, call: Any, d: Any) -> Any:
        out = np.empty((6, len(f)))
        for i in range(len(f)):
            out[0, i], out[1, i], out[2, i], out[3, i], out[4, i], out[5, i] = one(
                f[i], k[i], t[i], v[i], call[i], d[i]
            )
        return out

    args = tuple(c[name] for name in ("f", "k", "t", "v", "call", "d"))
    single = isinstance(c["f"], float)
    return {
        "price": lambda: one(*args)[0] if single else prices(*args),
        "greeks": lambda: (one if single else greeks)(*args),
    }


def py_vollib_vectorized(c: Case) -> dict[str, Callable[[], Any]]:
    import py_vollib_vectorized as lib

    return {
        "price": lambda: lib.vectorized_black(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"], return_as="numpy"),
        "implied vol": lambda: lib.vectorized_implied_volatility_black(
            c["p"], c["f"], c["k"], 0.0, c["t"], c["flag"], return_as="numpy"
        ),
    }


def fast_vollib(c: Case) -> dict[str, Callable[[], Any]]:
    import fast_vollib as lib

    def greeks() -> Any:
        found = lib.get_all_greeks(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"], model="black", return_as="numpy")
        return lib.fast_black(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"], return_as="numpy"), found["delta"]

    return {
        "price": lambda: lib.fast_black(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"], return_as="numpy"),
        "greeks": greeks,
        "implied vol": lambda: lib.fast_implied_volatility_black(
            c["p"], c["f"], c["k"], 0.0, c["t"], c["flag"], return_as="numpy"
        ),
    }


def pyvolr(c: Case) -> dict[str, Callable[[], Any]]:
    from pyvolr import black76 as lib

    def greeks() -> Any:
        found = lib.greeks(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"])
        return lib.price(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"]), found["delta"]

    return {
        "price": lambda: lib.price(c["flag"], c["f"], c["k"], c["t"], 0.0, c["v"]),
        "greeks": greeks,
        "implied vol": lambda: lib.implied_vol(c["p"], c["flag"], c["f"], c["k"], c["t"], 0.0),
    }


def iv_engine(c: Case) -> dict[str, Callable[[], Any]]:
    import iv_engine as lib

    if isinstance(c["f"], float):
        f, k, t, v, call, p = (c[name] for name in ("f", "k", "t", "v", "call", "p"))
        price, implied_vol = lib.black_price, lib.implied_volatility
        return {"price": lambda: price(f, k, t, v, call), "implied vol": lambda: implied_vol(p, f, k, t, call)}
    one = np.ones(len(c["f"]))
    return {
        "normalised price": lambda: lib.black_prices(one, c["nk"], one, c["ns"], True, False),
        "normalised vol": lambda: lib.implied_volatilities(c["np"], one, c["nk"], one, True, False),
    }


def lbriv(c: Case) -> dict[str, Callable[[], Any]]:
    import lbriv as lib

    if isinstance(c["f"], float):
        p, k, implied_vol = c["np"], c["nk"], lib.implied_vol
        return {"normalised vol": lambda: implied_vol(p, 1.0, k, 1)}
    return {
        "normalised price": lambda: lib.black76_undiscounted(1.0, c["nk"], c["ns"], 1),
        "normalised vol": lambda: lib.vectorized_implied_vol_strikes(c["np"], 1.0, c["nk"], 1),
    }


def lets_be_precise(c: Case) -> dict[str, Callable[[], Any]]:
    import lbp

    if not isinstance(c["f"], float):
        return {}  # one option a call
    s, k, p = c["ns"], c["nk"], c["np"]
    price, implied_vol = lbp.black, lbp.black_iv
    return {"normalised price": lambda: price(s, k), "normalised vol": lambda: implied_vol(p, k)}


def vanilla_option_pricers(c: Case) -> dict[str, Callable[[], Any]]:
    from vanilla_option_pricers import black_scholes as lib

    if isinstance(c["f"], float):
        return {
            "price": lambda: lib.compute_bsm_vanilla_price(c["f"], c["k"], c["t"], c["v"], "C" if c["call"] else "P")
        }
    kinds = np.full(len(c["f"]), "C")
    return {
        "normalised price": lambda: lib.compute_bsm_vanilla_slice_prices(1.0, 1.0, c["nk"], c["ns"], kinds),
        "normalised vol": lambda: lib.infer_bsm_ivols_from_slice_prices(1.0, 1.0, 1.0, c["nk"], kinds, c["np"]),
    }


def quantlib(c: Case) -> dict[str, Callable[[], Any]]:
    import QuantLib as lib  # noqa: N813

    columns = [np.ravel(c[name]).tolist() for name in ("f", "k", "ns", "call", "p")]
    rows = [
        (lib.Option.Call if call else lib.Option.Put, k, f, s, p) for f, k, s, call, p in zip(*columns, strict=True)
    ]
    root = np.sqrt(c["t"])
    return {
        "price": lambda: [lib.blackFormula(kind, k, f, s) for kind, k, f, s, _ in rows],
        "implied vol": lambda: [lib.blackFormulaImpliedStdDevLiRS(kind, k, f, p) for kind, k, f, _, p in rows] / root,
    }


PEERS: list[Peer] = [scipy_textbook, numba_textbook, py_vollib_vectorized, fast_vollib, pyvolr, iv_engine, lbriv]
PEERS += [lets_be_precise, vanilla_option_pricers, quantlib]


def repeats_of(function: Callable[[], Any]) -> int:
    started = time.perf_counter()
    function()
    return max(1, min(2000, int(0.01 / max(time.perf_counter() - started, 1e-7))))


def clock(function: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - started) / repeats


def right(kind: str, result: Any, case: Case) -> bool:
    """The same task as ours, by the median: some libraries give up far out."""
    key = {"implied vol": "v", "normalised vol": "ns", "normalised price": "np"}.get(kind, "p")
    error = np.abs(np.ravel(result[0] if kind == "greeks" else result) / np.ravel(case[key]) - 1.0)
    return bool(np.median(np.nan_to_num(error, nan=1.0)) < 1e-6)


def contenders(case: Case, hard: bool, left_out: dict[str, str]) -> dict[str, dict[str, Callable[[], Any]]]:
    """By task and library, those that give the right answer."""
    found: dict[str, dict[str, Callable[[], Any]]] = {}
    for peer in PEERS:
        try:
            tasks = peer(case)
        except Exception as error:
            left_out[peer.__name__] = repr(error)[:90]
            continue
        for kind, function in tasks.items():
            if hard and not kind.endswith("vol"):
                continue
            try:
                if not right(kind, function(), case):
                    raise ValueError("another answer than ours")
            except Exception as error:
                left_out[f"{peer.__name__}, {kind}"] = repr(error)[:90]
                continue
            task = {"normalised price": "price", "normalised vol": "implied vol"}.get(kind, kind)
            note = " (normalised)" if kind.startswith("normalised") else ""
            found.setdefault(task, {})[peer.__name__ + note] = function
    return found


def race(ours: Callable[[], Any], peers: dict[str, Callable[[], Any]], count: int) -> tuple[float, float, float, str]:
    """Our time, the best peer's, the ratio and the peer's name: medians over rounds in which all take turns, so that
    what else the machine does meets all of them. Peers five times slower than the best run in three rounds only."""
    runners = {"": ours, **peers}
    repeats = {name: repeats_of(function) for name, function in runners.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(ROUNDS):
        for name, function in runners.items():
            if name in times:
                times[name].append(clock(function, repeats[name]) / count * 1e9)
        if turn == 2:
            limit = 5.0 * min((statistics.median(times[name]) for name in peers), default=0.0)
            times = {name: found for name, found in times.items() if not name or statistics.median(found) < limit}
    own, rest = times[""], {name: found for name, found in times.items() if name}
    if not rest:
        return statistics.median(own), math.nan, math.nan, ""
    who = min(rest, key=lambda name: statistics.median(rest[name]))
    ratio = statistics.median(theirs / mine for theirs, mine in zip(rest[who], own, strict=True))
    return statistics.median(own), statistics.median(rest[who]), ratio, who


def compare(count: int, left_out: dict[str, str], hard: bool = False) -> None:
    case = workload(count, hard)
    ours, peers = kernel(case), contenders(case, hard, left_out)
    if hard:
        report("hard implied vol", count, *race(ours["implied vol"], peers.get("implied vol", {}), count))
        return
    for task in ("price", "greeks", "implied vol"):
        report(task, count, *race(ours[task], peers.get(task, {}), count))
    if count > 1:
        report("greeks, out=", count, *race(into(case, count), peers.get("greeks", {}), count))


def into(case: Case, count: int) -> Callable[[], Any]:
    """Our greeks into arrays that are there already."""
    option = tuple(case[name] for name in ("f", "k", "t", "v", "call", "d"))
    out = black.Greeks(*(np.empty(count) for _ in range(6)))
    return lambda: black.greeks(*option, out=out)


def report(task: str, count: int, ours: float, took: float, ratio: float, who: str) -> None:
    must = MUST.get(task, {}).get(count)
    if must is not None and count > 1 and black.target() != "v4":
        must /= 2.0
    verdict = "" if must is None else f"must {must:4.1f} {'met' if ratio >= must else 'MISSED'}"
    print(f"{task:16} {count:>8} {ours:>9.1f} {took:>10.1f} {ratio:>7.1f}  {verdict:16} {who}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    left_out: dict[str, str] = {}
    print(f"target {black.target()} of {', '.join(black.targets())}; ns an option, one core, medians")
    print(f"{'task':16} {'options':>8} {'ours':>9} {'best peer':>10} {'ratio':>7}")
    for count in SIZES:
        compare(count, left_out)
    compare(4096, left_out, hard=True)
    for who, why in left_out.items():
        print(f"left out: {who}: {why}")


if __name__ == "__main__":
    main()
