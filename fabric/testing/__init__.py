"""Shipped for tests of your own nodes: a clock that you move, a node run without sockets or files, a line that loses
packets, and records to feed it with."""

from fabric.testing.building import make_records, packets, random_records
from fabric.testing.clock import ManualClock
from fabric.testing.line import LossyLine
from fabric.testing.running import check_restart, run_node

__all__ = ["LossyLine", "ManualClock", "check_restart", "make_records", "packets", "random_records", "run_node"]
