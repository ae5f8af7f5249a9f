"""One process of a run: ``python -m fabric.bench.worker ROLE JOB`` with ROLE ``sender`` or ``receiver``, JOB as JSON.

It is told what to do by lines of JSON on its standard input and answers each with one; what else is printed goes to
standard error. A timer of the kernel ends it at its deadline, wherever it is then, also in C.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fabric.bench.job import PACED, Job
from fabric.bench.roles import Receiver, Sender, check, latencies_ns

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
Answer = dict[str, Any]


def main() -> int:
    role, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    _guard(job)
    module = importlib.import_module(job.module)
    side = _SenderSide(module.make_sender(job)) if role == "sender" else _ReceiverSide(module.make_receiver(job))
    commands: dict[str, Callable[[Answer, Callable[[Answer], None]], Answer]] = side.commands()

    def answer(content: Answer) -> None:
        answers.write(json.dumps(content) + "\n")

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer({"done": asked["do"], **commands[asked["do"]](asked, answer)})
        except Exception as error:
            answer({"failed": asked["do"], "why": f"{type(error).__name__}: {error}"})
            raise
        if asked["do"] == "close":
            break
    answers.flush()
    os._exit(0)  # threads of libraries are not waited for


def _guard(job: Job) -> None:
    """No orphan, no endless run, no share of a Ctrl-C that is the parent's to handle; pinned before any thread starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, job.deadline_s)  # SIGALRM ends the process
    if platform.system() == "Linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_TIMERSLACK, 1)
        if job.cpus:
            os.sched_setaffinity(0, set(job.cpus))
    if os.getppid() == 1:
        os._exit(1)


def _used_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)


class _SenderSide:
    def __init__(self, sender: Sender) -> None:
        self.sender = sender

    def commands(self) -> dict[str, Callable[[Answer, Callable[[Answer], None]], Answer]]:
        return {"open": self.open, "meet": self.meet, "go": self.go, "check": self.check, "close": self.close}

    def open(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        address = self.sender.open()
        self.sender.prepare()
        return {"address": address}

    def meet(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        self.sender.meet()
        _quiet()
        return {}

    def go(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        answer({"going": True, "cpu_ns": _used_ns()})  # what it has done for readers that join is not the records'
        began_ns, ended_ns = self.sender.run()
        return {"began_ns": began_ns, "ended_ns": ended_ns, "cpu_ns": _used_ns()}

    def check(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        return {"problem": self.sender.check()}

    def close(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        self.sender.close()
        return {}


class _ReceiverSide:
    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def commands(self) -> dict[str, Callable[[Answer, Callable[[Answer], None]], Answer]]:
        return {"open": self.open, "go": self.go, "check": self.check, "close": self.close}

    def open(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        self.receiver.open(asked["address"])
        return {}

    def go(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        _quiet()
        stop = threading.Event()
        if self.receiver.job.busy:
            threading.Thread(target=_compute, args=(stop,), daemon=True).start()
        answer({"going": True, "cpu_ns": _used_ns()})
        self.receiver.run()
        stop.set()
        return {"ended_ns": self.receiver.ended_ns, "cpu_ns": _used_ns()}

    def check(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        problem = check(self.receiver)
        if not problem and self.receiver.job.kind == PACED:
            np.save(Path(asked["file"]), np.stack(latencies_ns(self.receiver)))
        return {"problem": problem, **self.receiver.details()}

    def close(self, asked: Answer, answer: Callable[[Answer], None]) -> Answer:
        self.receiver.close()
        return {}


def _quiet() -> None:
    """No garbage collection while the clock runs, for everybody: what arrived is kept, and would be gone through."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _compute(stop: threading.Event) -> None:
    total = 0
    while not stop.is_set():
        for number in range(1000):
            total += number


if __name__ == "__main__":
    sys.exit(main())
