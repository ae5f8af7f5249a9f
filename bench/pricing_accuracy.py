"""`.venv/bin/python bench/pricing_accuracy.py`: the errors of native.black against 60-digit arithmetic, by function, kind of
option and target. Writes the table of docs/pricing.md, and with matplotlib there (extra `docs`) docs/pricing-errors.png.

Seeds are fixed, so a kernel gives the same page again. Takes about two minutes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "native")]

import numpy as np  # noqa: E402
from pricing_exact import HARD, NAMES, Columns, chain, hard, value_errors, vol_errors  # noqa: E402

from native import black  # noqa: E402

PAGE, PICTURE = ROOT / "docs" / "pricing.md", ROOT / "docs" / "pricing-errors.png"
BEGIN, END = "<!-- accuracy table: bench/pricing_accuracy.py -->", "<!-- end of accuracy table -->"
COLUMNS = (*NAMES, "iv out", "iv in")
SHOWN = ("price", "delta", "vega", "implied vol")
EACH = 400
COLOURS = {"v4": "#0b6e99", "v3": "#5b8c2a", "baseline": "#d9660b"}


def sets() -> dict[str, Columns]:
    """Options by kind, seeds their own: not those of the tests."""
    found = {"chain": chain(4 * EACH, seed=101), "to 12 deviations": chain(2 * EACH, seed=102, width=12.0)}
    kinds = hard(EACH, seed=103)
    for kind, name in enumerate(HARD):
        found[name] = tuple(column[kind * EACH : (kind + 1) * EACH] for column in kinds)
    found["20 to 36 deviations out, s from 0.5"] = outside(np.random.default_rng(104), 4 * EACH, 20.0, 36.0, 0.5, 0.8)
    return found


def outside(rng: np.random.Generator, count: int, near: float, far: float, least: float, most: float) -> Columns:
    """Out of the money by ``near`` to ``far`` deviations, at total volatilities from ``least`` to ``most``."""
    s, call = np.exp(rng.uniform(np.log(least), np.log(most), count)), rng.random(count) < 0.5
    x, forward, expiry = (
        rng.uniform(near, far, count) * s,
        rng.uniform(50.0, 150.0, count),
        rng.uniform(0.01, 2.0, count),
    )
    return forward, forward * np.exp(np.where(call, x, -x)), expiry, s / np.sqrt(expiry), call, np.ones(count)


def solved_errors(columns: Columns, inside: bool) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the volatilities that there are, of prices out of or in the money, and what is attainable."""
    forward, strike, expiry, vol, _, discount = columns
    option = (forward, strike, expiry, vol, (strike > forward) != inside, discount)
    price, status = black.price(*option), np.empty(len(forward), np.uint8)
    solved = black.implied_vol(price, forward, strike, expiry, option[4], discount, status=status)
    some = (status == black.Status.OK) & (price > 1e-290)
    return vol_errors(solved[some], price[some], tuple(column[some] for column in option))


def largest(columns: Columns) -> tuple[str, ...]:
    """A cell for each of COLUMNS: the largest error in units of 1e-16; ``iv in`` in units of what is attainable."""
    found = [errors.max() * 1e16 for errors in value_errors(black.greeks2(*columns), columns).values()]
    error, attainable = solved_errors(columns, inside=False)
    found.append(np.max(error - np.where(attainable > 1e-15, attainable, 0.0)).clip(0.0) * 1e16)
    error, attainable = solved_errors(columns, inside=True)
    found.append(np.max(error / np.maximum(attainable, 2.0**-53)))
    return tuple(f"{value:.0f}" if value >= 9.5 else f"{value:.1f}" for value in found)


def table() -> str:
    rows = [f"| options | target | {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * len(COLUMNS)]
    for name, columns in sets().items():
        targets: dict[tuple[str, ...], list[str]] = {}
        for target in black.targets():
            black.select_target(target)
            targets.setdefault(largest(columns), []).append(target)
        shown = name
        for cells, same in targets.items():
            rows.append(f"| {shown} | {', '.join(same)} | {' | '.join(cells)} |")
            shown = ""
        print(name, flush=True)
    black.select_target(None)
    return "\n".join(rows)


def picture_errors(columns: Columns) -> dict[str, np.ndarray]:
    errors = value_errors(black.greeks2(*columns), columns, SHOWN[:3])
    price = black.price(*columns)
    forward, strike, expiry, _, call, discount = columns
    solved = black.implied_vol(price, forward, strike, expiry, call, discount)
    return {**errors, "implied vol": vol_errors(solved, price, columns)[0]}


def by_target(columns: Columns) -> dict[str, dict[str, np.ndarray]]:
    """The errors of each target; targets with the same are one."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for target in black.targets():
        black.select_target(target)
        errors = picture_errors(columns)
        for names, others in list(found.items()):
            if all(np.array_equal(errors[name], others[name]) for name in SHOWN):
                found[f"{names}, {target}"] = found.pop(names)
                break
        else:
            found[target] = errors
    black.select_target(None)
    return found


def draw(count: int = 6000) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    columns = outside(np.random.default_rng(105), count, 0.0, 34.0, 1e-5, 12.0)
    columns = tuple(column[black.price(*columns) > 1e-280] for column in columns)
    forward, strike, expiry, vol, *_ = columns
    s = vol * np.sqrt(expiry)
    across = {"deviations out of the money, |ln(F/K)| / s": abs(np.log(forward / strike)) / s, "total volatility s": s}
    edges = {0: np.linspace(0.0, 34.0, 52), 1: np.geomspace(1e-5, 12.0, 52)}
    figure, axes = plt.subplots(4, 2, figsize=(11, 10.5), sharey="row", sharex="col", layout="constrained")
    for target, errors in by_target(columns).items():
        for row, name in enumerate(SHOWN):
            for side, place in enumerate(across.values()):
                paint(axes[row][side], place, np.maximum(errors[name], 2e-19), edges[side], target)
    for row, name in enumerate(SHOWN):
        for axis in axes[row]:
            axis.set(yscale="log", ylim=(1e-18, 2e-13))
            axis.axhline(2.0**-53, color="#999", lw=0.8, ls=":")
            axis.axhline(1e-14, color="#c33", lw=0.8, ls="--")
            axis.axhline(5e-14, color="#c33", lw=0.8, ls="-.")
            axis.grid(alpha=0.25, which="major")
        axes[row][0].set_ylabel(f"{name}\nrelative error")
    for text, place in (("2^-53: half a last bit", 2.0**-53), ("1e-14: limit on a chain", 1e-14), ("5e-14", 5e-14)):
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5}
        axes[2][0].annotate(text, (0.2, place * 1.15), va="bottom", color="#444", fontsize=8, bbox=box)
    for side, title in enumerate(across):
        axes[3][side].set_xlabel(title)
    for axis in axes[:, 1]:
        axis.set_xscale("log")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(PICTURE, dpi=90, metadata={"Software": None})
    with Image.open(PICTURE) as image:
        small = image.convert("RGB").quantize(32)
    small.save(PICTURE, optimize=True)


def paint(axis: Any, place: np.ndarray, errors: np.ndarray, edges: np.ndarray, target: str) -> None:
    """A dot for each option, and the largest of each bin as a line."""
    colour = COLOURS[target.partition(",")[0]]
    axis.plot(place, errors, ".", ms=1.3, alpha=0.15, color=colour, rasterized=True)
    bins = np.digitize(place, edges)
    tops = [errors[bins == i].max() if (bins == i).any() else np.nan for i in range(1, len(edges))]
    middle = np.sqrt(edges[1:] * edges[:-1]) if edges[0] > 0 else (edges[1:] + edges[:-1]) / 2
    axis.plot(middle, tops, lw=1.6, color=colour, label=f"{target}: largest of each bin")


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
    if importlib.util.find_spec("matplotlib"):
        draw()
    else:
        print("no picture without matplotlib: pip install matplotlib, or the extra `docs`")


if __name__ == "__main__":
    main()
