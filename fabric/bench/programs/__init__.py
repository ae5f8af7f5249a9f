"""The programs, each in a module: its topology in the docstring, and ``cases``."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

MODULES = {
    "latency": "latency",
    "throughput": "throughput",
    "throughput-batch": "throughput_batch",
    "python-send": "python_send",
    "fanout": "fanout",
    "channels": "channels",
    "sizes": "sizes",
    "gil": "gil",
    "asyncio": "event_loops",
}
"""By the name that the command line takes."""

DEFAULT = ("latency", "throughput")


def program(name: str) -> ModuleType:
    return importlib.import_module(f"fabric.bench.programs.{MODULES[name]}")


def topology(name: str) -> str:
    """What the program measures, and between what."""
    return inspect.cleandoc(program(name).__doc__ or "")
