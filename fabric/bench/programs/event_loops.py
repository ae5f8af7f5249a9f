"""Receivers in an event loop, asyncio's own and uvloop: throughput, and latency on one CPU.

    [ sender process ]  --- 64-byte records --->  [ receiver process: async for / await recv() ]
          blocking                                   asyncio or uvloop

Throughput: one record a message, without loss. Latency: open loop, both processes on one CPU.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options
from fabric.bench.job import PACED


def cases(options: Options) -> list[Case]:
    rate = options.rates[0]
    return [
        Case("asyncio", "throughput, one record a message", loop=True),
        Case("asyncio", f"same-cpu, {rate:,.0f} records/s", PACED, "same-cpu", loop=True, rate=rate),
    ]
