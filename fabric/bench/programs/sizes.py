"""Record sizes: throughput of larger records, each a message of its own.

    [ sender process ]  --- records of 64 to 1,024 bytes, one a message --->  [ receiver process ]

Otherwise as throughput.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options


def cases(options: Options) -> list[Case]:
    sizes = (64, 1024) if options.quick else (64, 128, 256, 512, 1024)
    return [Case("sizes", f"{size:,} bytes a record", size_bytes=size) for size in sizes]
