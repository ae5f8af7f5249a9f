"""All contestants. Adding one: a module in fabric/bench/peers with ``CONTESTANTS``, ``missing``, ``make_sender`` and
``make_receiver``, and its name here."""

from __future__ import annotations

import importlib
from functools import cache

from fabric.bench.job import Contestant

_MODULES = (
    "fabric.bench.ours",
    "fabric.bench.peers.raw_zmq",
    "fabric.bench.peers.loop_zmq",
    "fabric.bench.peers.c_code",
    "fabric.bench.peers.shared_memory",
    "fabric.bench.peers.brokers",
    "fabric.bench.peers.zenoh_net",
    "fabric.bench.peers.nng",
    "fabric.bench.peers.in_process",
    "fabric.bench.peers.aeron",
)


@cache
def contestants() -> dict[str, Contestant]:
    """By name, ours first."""
    return {each.name: each for name in _MODULES for each in importlib.import_module(name).CONTESTANTS}


def missing(contestant: Contestant) -> str:
    """Why it can't take part here, such as "not installed"; "" if it can."""
    why: str = importlib.import_module(contestant.module).missing(contestant)
    return why
