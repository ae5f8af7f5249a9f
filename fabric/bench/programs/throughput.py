"""Throughput without loss: ready-made records, each a message of its own, as fast as the receiver gets them.

    [ sender process ]  --- 64-byte records, one a message --->  [ receiver process ]
                              as fast as they are taken            keeps all, then checks count, order, content

From the first record's sending to the last one's arrival. Whoever can't keep up is held back by the library's own flow
control, which is named for each; nobody may drop a record. Both processes anywhere, as the system puts them.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options


def cases(options: Options) -> list[Case]:
    return [Case("throughput", "one record a message")]
