"""Throughput with natural batching: records that are there together go in one message.

    [ sender process ]  --- messages of 64 records --->  [ receiver process ]
                             64 bytes each                 keeps all, then checks count, order, content

A feed's burst, or a node's flush after a cycle. Otherwise as throughput.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options

RECORDS_A_MESSAGE = 64


def cases(options: Options) -> list[Case]:
    return [
        Case("throughput-batch", f"{RECORDS_A_MESSAGE} records a message", per_message=RECORDS_A_MESSAGE),
    ]
