"""Did other load disturb a run? The processor time that was not ours, against what the run had.

    busy   = elapsed * CPUs - idle time of the counted CPUs (/proc/stat); what the hypervisor stole is in it
    others = busy - our processes' own user and system time (rusage)
    disturbed   if   others > SHARE * elapsed * CPUs + SLACK

By idle time, because busy time is sampled by ticks on many kernels, and a schedule of whole milliseconds keeps step with
them. /proc/stat counts in units of 10 ms, hence the slack. Where it can't be read (macOS) no run counts as disturbed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHARE = 0.08
SLACK_NS = 30_000_000
RULE = (
    f"a run is disturbed if other processes (and the hypervisor) used more than {SHARE:.0%} of its CPUs' time + "
    f"{SLACK_NS // 1_000_000} ms: what was not idle by /proc/stat (steal is in it), less our processes' rusage"
)
_STAT = Path("/proc/stat")
_IDLE, _IOWAIT = 3, 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """At one moment: the time, and how long the counted CPUs have been idle since they were started."""

    at_ns: int
    idle_ns: int
    cpus: int


def idle_ticks(stat: str, cpus: Sequence[int]) -> tuple[int, int]:
    """Idle ticks of some CPUs (none: of all) from /proc/stat's text, and how many CPUs that are. Waiting for a disk is idle."""
    wanted = {f"cpu{cpu}" for cpu in cpus}
    total, counted = 0, 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu"):
            break
        if name == "cpu" or (wanted and name not in wanted):
            continue
        total += int(fields[_IDLE]) + int(fields[_IOWAIT])
        counted += 1
    return total, counted


def snapshot(cpus: Sequence[int] = ()) -> Snapshot | None:
    """None where the system does not tell."""
    try:
        ticks, counted = idle_ticks(_STAT.read_text(), sorted(set(cpus)))
    except (OSError, ValueError):
        return None
    return Snapshot(time.monotonic_ns(), ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK")), counted)


def others_share(before: Snapshot | None, after: Snapshot | None, own_ns: int) -> float:
    """What others used of the CPUs' time, less the slack; 0.0 where that is not known."""
    if before is None or after is None or after.at_ns <= before.at_ns or not after.cpus:
        return 0.0
    elapsed_ns = (after.at_ns - before.at_ns) * after.cpus
    others_ns = elapsed_ns - (after.idle_ns - before.idle_ns) - own_ns - SLACK_NS
    return max(0.0, others_ns / elapsed_ns)


def disturbed(share: float) -> bool:
    return share > SHARE
