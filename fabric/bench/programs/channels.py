"""Many channels: records by turns on each of them, all from one process to one reader.

                        === channel 0 ===
    [ sender process ]  === channel 1 ===  [ receiver process ]
                        ===    ...    ===

Ours: a log, a sequence and a subscription for each channel. Others: a topic each, on one socket. The cost of a record is
the processor time of both processes, in microseconds.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options


def cases(options: Options) -> list[Case]:
    many = (1, 10) if options.quick else (1, 10, 100, 1000)
    return [Case("channels", f"{channels:,} channel{'s' * (channels > 1)}", channels=channels) for channels in many]
