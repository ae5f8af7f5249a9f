"""Recorded Deribit sessions through the whole fabric: nothing lost, with and without dropped packets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric.log import open_log

pytestmark = pytest.mark.system
DERIBIT = Path(__file__).resolve().parents[3] / "shared" / "data" / "deribit"
CAPTURES = {
    # file: messages, tickers, tickers that carry an implied volatility, greeks that compare with the venue's
    "ws_20210405_10options.log": (461, 273, 223),
    "ws_20210722_10options.log": (136, 89, 82),
}


def play(up: Any, name: str, *arguments: str) -> tuple[Any, dict[str, Any]]:
    if not (DERIBIT / name).exists():
        pytest.skip(f"the recorded session {name} is not beside this checkout")
    fabric = up("deribit-capture", "--until-done", "--set", f"nodes.feed.source=capture:{DERIBIT / name}", *arguments)
    return fabric, fabric.report()


def content(path: Path, *, without: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Records as tuples, without the fields that depend on when they were made."""
    log = open_log(path)
    rows = [view for _, view in log.read_range(log.base, log.next - 1)]
    records = np.concatenate(rows) if rows else log.record.zeros(0)
    names = [name for name in records.dtype.names or () if name not in without]
    columns = [np.nan_to_num(records[name], nan=-1e99).tolist() if records[name].dtype.kind == "f" else
               records[name].tolist() for name in names]  # fmt: skip
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("name", CAPTURES)
def test_every_ticker_becomes_a_quote_and_greeks_agree_with_the_venue(up: Any, name: str) -> None:
    messages, tickers, with_volatility = CAPTURES[name]
    _, report = play(up, name)
    assert report["ended"] == "done"
    source = report["sources"]["feed"]
    assert (source["messages"], source["malformed"], source["chain_breaks"]) == (messages, 0, 0)
    assert source["records"]["quote"] == tickers
    quotes = report["channels"]["deribit.quote"]
    assert quotes["published"] == tickers + source["records"]["underlying"]
    assert quotes["subscribers"]["pricing"]["received"] == quotes["published"]
    pricing = report["nodes"]["pricing"]
    assert pricing["priced"] == with_volatility
    greeks = report["channels"]["deribit.greeks"]
    assert greeks["published"] == pricing["priced"] + pricing["carried"]
    assert greeks["subscribers"]["risk"]["received"] == greeks["published"]
    assert greeks["subscribers"]["risk"]["path"] in ("local", "ipc"), (
        "a short recording may be over before its log is found"
    )
    assert report["channels"]["deribit.risk"]["published"] > 0
    assert all(
        counts["lost"] == counts["skipped"] == 0
        for channel in report["channels"].values()
        for counts in channel["subscribers"].values()
    )
    limits = {"delta": 5e-4, "vega": 2e-4, "theta": 2e-4, "mark_price": 2e-4}
    for measure, limit in limits.items():
        assert report["venue_check"][measure]["count"] > 50
        assert report["venue_check"][measure]["median_relative"] < limit, measure
    for hop in ("feed>pricing", "pricing>risk", "feed>risk"):
        entry = report["hops"][hop]
        assert entry["count"] > 0
        assert 0 < entry["p50_ns"] <= entry["p99_ns"] <= entry["max_ns"]


@pytest.mark.parametrize("drop", ["0.01", "0.2"])
def test_dropped_packets_change_nothing_for_any_consumer(up: Any, drop: str) -> None:
    name = "ws_20210405_10options.log"
    clean, plain = play(up, name)
    faulty, report = play(up, name, "--fault", f"drop={drop},seed=7")
    assert "dropped on purpose" in faulty.output
    readers = [counts for channel in report["channels"].values() for counts in channel["subscribers"].values()]
    assert sum(counts["missed"] for counts in readers) > 0
    assert [counts["missed"] for counts in readers] == [counts["recovered"] for counts in readers]
    assert all(counts["lost"] == counts["skipped"] == 0 for counts in readers)
    times = ("ts_origin_ns", "ts_publish_ns")
    for channel, entry in report["channels"].items():
        for counts in entry["subscribers"].values():
            assert counts["received"] == entry["published"] == plain["channels"][channel]["published"], channel
        if entry["subscribers"]:
            before, after = (content(fabric.log(channel), without=times) for fabric in (clean, faulty))
            assert before == after, channel


def test_a_corrupt_line_is_counted_and_named_and_the_rest_is_read(up: Any, tmp_path: Path) -> None:
    source = DERIBIT / "ws_20210722_10options.log"
    if not source.exists():
        pytest.skip("the recorded session is not beside this checkout")
    lines = source.read_bytes().split(b"\n")
    lines[49] = lines[49][:80]
    broken = tmp_path / "broken.log"
    broken.write_bytes(b"\n".join(lines))
    fabric = up("deribit-capture", "--until-done", "--set", f"nodes.feed.source=capture:{broken}")
    report = fabric.report()
    assert (report["sources"]["feed"]["messages"], report["sources"]["feed"]["malformed"]) == (135, 1)
    assert "broken.log:50" in fabric.output
