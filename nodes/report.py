"""What the market's nodes add to the page of a run: volatility smiles, exposures, the risk grid, breaches, venue check."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from fabric.records import Records
from fabric.report import Cell, Heatmap, Item, Lines, RunView, Section, Series, Table
from nodes.records import Kind

_DAY_NS = 86_400 * 10**9
_MOST_EXPIRIES = 8
"""Of each underlying, the nearest ones: a venue has dozens, and the page is to be looked at."""
_MOST_BREACHES = 30
_NEAR = 0.05
"""In ln(strike / forward): what may be called at the money."""
_TOTAL = "total"


def smile(run: RunView) -> list[Section]:
    """Implied volatility against log-moneyness, a chart for each expiry: out-of-the-money options by their last greeks."""
    sections = []
    for channel in run.channels("greeks"):
        greeks, definitions = run.image(channel), _definitions(run, channel)
        charts, left_out = _smiles(greeks, definitions) if len(greeks) and definitions else ([], 0)
        if charts:
            note = (
                "The last implied volatility of each out-of-the-money option; whiskers are those of its bid and ask. "
                "Charts of one underlying have the same axes."
            )
            if left_out:
                note += f" {left_out} later expiries are not shown."
            sections.append(Section(f"Implied volatility ({channel})", charts, note))
    return sections


def _definitions(run: RunView, channel: str) -> dict[int, Any]:
    """By instrument: from the definitions that the greeks' own node reads, or else from any."""
    known = run.channels("instrument")
    read = [name for name in run.inputs_of_writer(channel) if name in known]
    return {int(row["instrument"]): row for name in read or known for row in run.image(name)}


def _smiles(greeks: Records, definitions: dict[int, Any]) -> tuple[list[Item], int]:
    """The charts, by underlying and expiry, and how many expiries were left out."""
    points: dict[str, dict[int, list[tuple[float, Any]]]] = {}
    for row in greeks:
        option = definitions.get(int(row["instrument"]))
        if option is None or int(option["kind"]) not in (Kind.CALL, Kind.PUT):
            continue
        if not (row["iv"] > 0 and row["forward"] > 0 and option["strike"] > 0):
            continue
        moneyness = math.log(float(option["strike"]) / float(row["forward"]))
        if (moneyness >= 0) == (int(option["kind"]) == Kind.CALL):
            by_expiry = points.setdefault(_text(option["underlying"]), {})
            by_expiry.setdefault(int(option["expiry_ns"]), []).append((moneyness, row))
    charts: list[Item] = []
    left_out = 0
    for underlying, by_expiry in sorted(points.items()):
        shown = {
            expiry: sorted(by_expiry[expiry], key=lambda each: each[0]) for expiry in sorted(by_expiry)[:_MOST_EXPIRIES]
        }
        left_out += len(by_expiry) - len(shown)
        everything = [each for rows in shown.values() for each in rows]
        ivs = np.array([float(row["iv"]) for _, row in everything])
        # A far wing that is quoted from nothing to anything must not flatten all the rest.
        top = min(float(ivs.max()) * 1.05, float(np.median(ivs)) * 3.0)
        bottom = float(ivs.min()) * 0.95
        reach = max(abs(moneyness) for moneyness, _ in everything) * 1.04 or 1.0
        for expiry, rows in shown.items():
            charts.append(_smile(underlying, expiry, rows, (-reach, reach), (bottom, top)))
    return charts, left_out


def _smile(
    underlying: str, expiry_ns: int, rows: list[tuple[float, Any]], across: tuple[float, float], up: tuple[float, float]
) -> Lines:
    days = (expiry_ns - max(int(row["ts_event_ns"]) for _, row in rows)) / _DAY_NS
    nearest, middle = min(rows, key=lambda each: abs(each[0]))
    at_the_money = f", at the money {float(middle['iv']):.1%}" if abs(nearest) < _NEAR else ""
    columns = {name: [float(row[name]) for _, row in rows] for name in ("iv", "bid_iv", "ask_iv")}
    series = Series("iv", [moneyness for moneyness, _ in rows], columns["iv"], columns["bid_iv"], columns["ask_iv"])
    return Lines(
        f"{underlying}, {time.strftime('%-d %b %Y', time.gmtime(expiry_ns / 1e9))} ({days:.1f} days)",
        [series],
        x_label="ln(strike / forward)",
        y_label=f"forward {float(middle['forward']):,.0f}{at_the_money}",
        x_format="g",
        y_format=".0%",
        x_range=across,
        y_range=up,
        description=f"{len(rows)} options; {float(middle['iv']):.1%} at ln(strike / forward) = {nearest:+.3f}, "
        f"from {min(columns['iv']):.1%} to {max(columns['iv']):.1%}.",
    )


def risk(run: RunView) -> list[Section]:
    """Exposures by underlying, the last grid as heat maps, and the limits that were crossed."""
    items: list[Item] = []
    for channel in run.channels("grid"):
        items += _grids(run.image(channel))
    items += [_exposures(records) for channel in run.channels("risk") if len(records := run.image(channel))]
    for channel in run.channels("breach"):
        if len(records := run.newest(channel, _MOST_BREACHES)):
            items.append(_breaches(records, run.started_ns))
    note = "Profit and loss if forwards move by a fraction (rows) and all volatilities by an amount (columns): the last grid."
    return [Section("Risk", items, note if any(isinstance(item, Heatmap) for item in items) else "")] if items else []


def _grids(cells: Records) -> list[Item]:
    maps: list[Item] = []
    for name in sorted({_text(cell["underlying"]) for cell in cells}, key=lambda name: (not name, name)):
        mine = [cell for cell in cells if _text(cell["underlying"]) == name]
        spots = {int(cell["row"]): float(cell["spot_move"]) for cell in mine}
        vols = {int(cell["column"]): float(cell["vol_move"]) for cell in mine}
        profit = {(int(cell["row"]), int(cell["column"])): float(cell["pnl"]) for cell in mine}
        maps.append(
            Heatmap(
                f"{name or _TOTAL}: P&L by spot and volatility",
                [_move(spots[row], " %") for row in sorted(spots)],
                [_move(vols[column], " pt") for column in sorted(vols)],
                [[profit.get((row, column), math.nan) for column in sorted(vols)] for row in sorted(spots)],
                row_label="spot",
                column_label="vol",
            )
        )
    return maps


def _move(share: float, unit: str) -> str:
    return f"{share * 100:+.4g}{unit}".replace("-", "−") if share else f"0{unit}"


def _exposures(records: Records) -> Table:
    sums = ("value", "delta", "gamma", "vega", "theta", "rho")
    rows: list[list[Cell]] = [
        [_text(row["underlying"]) or _TOTAL, *(float(row[name]) for name in sums), float(row["worst_pnl"]),
         int(row["positions"]), int(row["priced"]), int(row["stale"]),
         float(row["stale_delta"]), float(row["stale_vega"])]
        for row in sorted(records, key=lambda row: (not _text(row["underlying"]), _text(row["underlying"])))
    ]  # fmt: skip
    formats = ["", ",.0f", ",.2f", ",.4f", ",.0f", ",.0f", ",.0f", ",.0f", "d", "d", "d", ",.2f", ",.0f"]
    return Table(
        "Exposure by underlying",
        ["underlying", *sums, "worst P&L", "positions", "priced", "stale", "stale |delta|", "stale |vega|"],
        rows,
        formats,
        "In strike currency; vega and rho per 1.00, theta a year. Worst P&L: of the last grid.",
    )


def _breaches(records: Records, began_ns: int) -> Table:
    rows: list[list[Cell]] = [
        [f"{(int(row['ts_publish_ns']) - began_ns) / 1e9:.2f} s", _text(row["underlying"]) or _TOTAL, _text(row["measure"]),
         float(row["value"]), float(row["limit"]), "crossed" if row["active"] else "kept again"]
        for row in records
    ]  # fmt: skip
    header = ["after", "underlying", "measure", "value", "limit", ""]
    return Table("Limits crossed and kept again", header, rows, [">", "", "", ",.2f", ",.2f"])


def venue_check(run: RunView) -> list[Section]:
    """How far our greeks are from the venue's own, where marks were compared."""
    rows = [
        [measure, entry["count"], f"{entry['median_relative']:.1e}"]
        for measure, entry in run.report.get("venue_check", {}).items()
        if entry["count"]
    ]
    title = "Our greeks against the venue's"
    header = ["measure", "compared", "median relative difference"]
    return [Section(title, [Table("", header, rows, ["", ",d", ">"])])] if rows else []


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")
