"""One call in Python for each record, made there from its values: what a plain loop in a program of one's own costs.

    for ...: send(number=..., bid=..., ask=..., quantity=...)          ours
    for ...: send(struct.pack("<qqqIIQddd", ...))                      others

    [ sender process ]  --- 64-byte records, one a message --->  [ receiver process ]

Otherwise as throughput.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options
from fabric.bench.job import VALUES


def cases(options: Options) -> list[Case]:
    return [Case("python-send", "one call a record", VALUES)]
