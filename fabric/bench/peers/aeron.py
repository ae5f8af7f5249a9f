"""Aeron: named where it is missing. It has no Python client of its own; a worker for one would stand here."""

from __future__ import annotations

import importlib.util
import shutil

from fabric.bench.job import FLOOD, PACED, Contestant, Job
from fabric.bench.roles import Receiver, Sender

CONTESTANTS = [
    Contestant("aeron", __name__, "local", frozenset({PACED, FLOOD}), "the publication's term window", optional=True)
]


def missing(contestant: Contestant) -> str:
    if shutil.which("aeronmd") is None or not any(map(importlib.util.find_spec, ("aeron", "aeronpy"))):
        return "not installed (a media driver, aeronmd, and a Python client)"
    return "installed, but the bench has no worker for it yet"


def make_sender(job: Job) -> Sender:
    raise NotImplementedError


def make_receiver(job: Job) -> Receiver:
    raise NotImplementedError
