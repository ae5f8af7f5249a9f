"""What `import fabric` costs a program that embeds the client."""

from __future__ import annotations

import os
import subprocess
import sys

HEAVY = ("rich", "plotly", "pyarrow", "pandas", "polars", "uvloop", "asyncio", "click", "nodes")


def test_import_fabric_loads_nothing_heavy() -> None:
    code = f"import sys, fabric; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_import_fabric_takes_less_than_three_times_numpy_and_zmq() -> None:
    """By the processor's time, of which other load takes less than of the clock's."""

    def best_of(code: str, rounds: int = 7) -> float:
        times = []
        for _ in range(rounds):
            with subprocess.Popen([sys.executable, "-c", code]) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            times.append(usage.ru_utime + usage.ru_stime)
        return min(times)

    fabric, others = best_of("import fabric"), best_of("import numpy, zmq")
    assert fabric < 3 * others
