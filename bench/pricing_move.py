"""`python bench/pricing_move.py`: one underlying moves, 2,000 live options follow; processor time, hop by hop.

A pricing node and the log it writes, in one thread, as its process runs them (tick in as records, greeks committed to
a mapped log in memory), without sockets. Each round is one tick whose forward differs from the one before. Times are
those of the thread's processor clock, medians over rounds, in microseconds; a call of that clock is subtracted.

    chains      expiries that the options are spread over, all with the perpetual as their forward
    tick        the tick taken in and its chains found
    records     greeks computed and written as records
    commit      the records copied to the log, stamped and committed: after this any reader may have them
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fabric.log.writer import LogOptions, LogWriter
from native import black
from nodes.pricing import Pricing
from nodes.records import GREEKS, INSTRUMENT, QUOTE, Kind

OPTIONS = 2_000
NOW_NS = 1_700_000_000 * 10**9
DAY_NS = 86_400 * 10**9
SPOT = 60_000.0
PERPETUAL = 1


class Hops:
    """Stamps of one round, by the thread's processor clock."""

    def __init__(self, log: LogWriter) -> None:
        self.log = log
        self.stamps: list[int] = []

    def mark(self) -> None:
        self.stamps.append(time.thread_time_ns())

    def write(self, records: Any, now_ns: int) -> None:
        self.mark()
        self.log.write(records, now_ns)
        self.mark()


def definitions(chains: int) -> Any:
    rows = [INSTRUMENT.build(instrument=PERPETUAL, symbol=b"BTC-PERP", underlying=b"BTC", kind=Kind.PERPETUAL)]
    rows += [
        INSTRUMENT.build(
            instrument=10 + i,
            symbol=f"BTC-{i}".encode(),
            underlying=b"BTC",
            kind=Kind.CALL if i % 2 else Kind.PUT,
            strike=SPOT * float(np.exp(-0.3 + 0.6 * (i // chains) / (OPTIONS // chains))),
            expiry_ns=NOW_NS + (30 + 7 * (i % chains)) * DAY_NS,
            multiplier=1.0,
        )
        for i in range(OPTIONS)
    ]
    return np.concatenate([np.atleast_1d(row) for row in rows])


def tick(price: float) -> Any:
    return np.atleast_1d(
        QUOTE.build(
            instrument=PERPETUAL,
            ts_event_ns=NOW_NS,
            ts_origin_ns=NOW_NS,
            bid=price - 1,
            ask=price + 1,
            bid_size=1,
            ask_size=1,
        )
    )


def started(chains: int, vol_on_move: str, hops: Hops) -> Pricing:
    node = Pricing(
        "pricing",
        config={"vol_on_move": vol_on_move},
        inputs={"instrument": "i", "quote": "q"},
        outputs={"greeks": "g"},
    )
    node.on_start()
    node.on_records(node.instrument, definitions(chains), NOW_NS)
    node.on_records(node.quote, tick(SPOT), NOW_NS)
    options = definitions(chains)[1:]
    years = (options["expiry_ns"] - NOW_NS) / (365 * DAY_NS)
    bid, ask = (black.price(SPOT, options["strike"], years, vol, options["kind"] == Kind.CALL) for vol in (0.59, 0.61))
    quotes = QUOTE.zeros(len(options))
    quotes["instrument"], quotes["ts_event_ns"] = options["instrument"], NOW_NS
    quotes["bid"], quotes["ask"], quotes["bid_size"], quotes["ask_size"] = bid, ask, 1, 1
    node.on_records(node.quote, quotes, NOW_NS)
    node.greeks.flush(NOW_NS)
    node.output_ports["greeks"].sink = hops
    return node


def measure(chains: int, vol_on_move: str, rounds: int, folder: Path) -> tuple[dict[str, float], int]:
    options = LogOptions(retain_bytes=1 << 30, segment_bytes=64 << 20)
    log = LogWriter(folder, "g", 1, GREEKS, options, now_ns=NOW_NS)
    hops = Hops(log)
    node = started(chains, vol_on_move, hops)
    follow = node._follow

    def timed_follow(*arguments: Any) -> None:
        hops.mark()
        follow(*arguments)

    node._follow = timed_follow  # type: ignore[method-assign]
    prices = SPOT + 50.0 * np.sin(1 + np.arange(rounds + 20))
    clock = statistics.median(-time.thread_time_ns() + time.thread_time_ns() for _ in range(1000))
    found: list[list[float]] = []
    before = log.next
    for price in prices:
        records = tick(float(price))
        hops.stamps.clear()
        hops.mark()
        node.on_records(node.quote, records, NOW_NS)
        node.greeks.flush(NOW_NS)
        stamps = hops.stamps  # start, each follow (the first one that has work), before and after the commit
        found.append([stamps[1] - stamps[0] - clock, stamps[-2] - stamps[1] - clock, stamps[-1] - stamps[-2] - clock])
        log.maintain(NOW_NS, time.monotonic_ns())  # the helper thread's work, not of this path
    written = log.next - before
    log.close()
    hop_times = [statistics.median(column) / 1e3 for column in zip(*found[20:], strict=True)]
    total = statistics.median(sum(row) for row in found[20:]) / 1e3
    return dict(zip(("tick", "records", "commit"), hop_times, strict=True)) | {"all": total}, written // len(prices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    print(f"target {black.target()}; {OPTIONS:,} options, microseconds of processor time a tick")
    print(f"{'volatilities':14} {'chains':>6} {'greeks':>7} {'tick':>7} {'records':>8} {'commit':>7} {'all':>7}")
    for vol_on_move, chains in (("sticky_strike", 1), ("sticky_strike", 10), ("resolve", 1), ("resolve", 10)):
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            hops, written = measure(chains, vol_on_move, arguments.rounds, Path(folder))
        name = "carried" if vol_on_move == "sticky_strike" else "solved again"
        print(f"{name:14} {chains:>6} {written:>7} " + " ".join(f"{hops[hop]:>7.1f}" for hop in hops), flush=True)


if __name__ == "__main__":
    main()
