"""Fan-out: every reader gets every record, without loss.

                                        +-->  [ receiver process 1 ]
    [ sender process ]  --- records ----+-->  [ receiver process 2 ]
                         64 bytes       +-->  ...

Records a second of the sender, until the slowest reader has them all. 16 readers are more processes than most machines
have CPUs: those figures are reported, not compared.
"""

from __future__ import annotations

from fabric.bench.case import Case, Options


def cases(options: Options) -> list[Case]:
    readers = (1, 4) if options.quick else (1, 4, 16)
    return [Case("fanout", f"1 to {many}", readers=many, judged=many <= 4) for many in readers]
