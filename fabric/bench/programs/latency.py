"""Latency, open loop: from the intended time of sending to the record in the receiver's hands.

    schedule: t0 + i / rate                                      now - intended
          |                                                           ^
    [ sender process ]  --- 64-byte records, one a message --->  [ receiver process ]
          CPU a                                                    CPU a, or CPU b

A sender that is late sends at once, with the time at which it should have sent, so that a pause counts for every record
that had to wait for it. same-cpu blocking: both processes on one CPU, each sleeps until it has something to do. two-cpu
spinning: a CPU each, neither sleeps (who can't spin blocks; the table says so). "from send": since the sender's call.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options
from fabric.bench.job import PACED


def cases(options: Options) -> list[Case]:
    modes = (("same-cpu", "block", "blocking"), ("two-cpu", "spin", "spinning"))
    return [
        Case("latency", f"{pins} {word}, {rate:,.0f} records/s", PACED, pins, idle, rate=rate)
        for pins, idle, word in modes
        for rate in (options.rates[:1] if options.quick else options.rates)
    ]
