"""Which processors a process may run on."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fabric.errors import ConfigError


def cpus_problem(cpus: Sequence[int]) -> str:
    """Why a process of this machine can't be pinned to them; "" if it can."""
    count = os.cpu_count() or 1
    if not hasattr(os, "sched_setaffinity"):
        return "processes can't be pinned on this system"
    if not cpus:
        return "names no processor"
    if len(set(cpus)) < len(cpus):
        return f"{list(cpus)} names one twice"
    if missing := [cpu for cpu in cpus if not 0 <= cpu < count]:
        return f"this machine has no processor {missing[0]}: it has {count}, numbered from 0"
    return ""


def pin(cpus: Sequence[int], key: str) -> None:
    """Pin this thread, and all that it starts from now on. Raises ConfigError, naming ``key``."""
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, AttributeError) as error:  # a container may have fewer than the machine
        raise ConfigError(f"can't run on {list(cpus)}: {error}", key=key) from None
