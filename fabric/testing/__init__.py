"""Shipped for tests of your own nodes: a clock that you move, and a node run without sockets or files."""

from fabric.testing.clock import ManualClock
from fabric.testing.running import run_node

__all__ = ["ManualClock", "run_node"]
