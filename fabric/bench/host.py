"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from fabric.bench.disturbance import RULE


def facts(command: Sequence[str], allowed: Sequence[int]) -> dict[str, Any]:
    """Host, software and how processes are pinned; plain data."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "pinned_cpus": list(allowed[:2]),
        "kernel": f"{platform.system()} {platform.release()}",
        "governor": governor(allowed),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "command": " ".join(command),
        "disturbed": RULE,
    }


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def governor(allowed: Sequence[int]) -> str:
    """How the clock rate is chosen; "unknown" in most virtual machines."""
    cpu = allowed[0] if allowed else 0
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "unknown"


def allowed_cpus() -> list[int]:
    """CPUs that processes may be pinned to; none where the system can't pin."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
