"""Latency beside a thread that computes in Python, in the receiver's process.

    [ sender process ]  --- 64-byte records --->  [ receiver process                  ]
          CPU a             on a schedule         [   reads   |  a thread that computes ]
                                                              CPU b

The interpreter lets one thread run at a time and takes it away every 5 ms (sys.getswitchinterval). A client that needs
two turns for a record pays twice.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options
from fabric.bench.job import PACED


def cases(options: Options) -> list[Case]:
    rate = options.rates[0] / 10
    return [Case("gil", f"computing thread, {rate:,.0f} records/s", PACED, "two-cpu", rate=rate, busy=True)]
