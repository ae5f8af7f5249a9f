"""One run of one contestant: start its processes, let them go, take what they measured, end them."""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.bench import disturbance
from fabric.bench.job import PACED, Job, Server
from fabric.bench.process import RunFailed, Worker
from fabric.bench.registry import contestants

_SETUP_S, _CHECK_S, _CLOSE_S, _SERVER_S = 30.0, 30.0, 5.0, 10.0
_PR_SET_PDEATHSIG = 1
_TMPFS, _SHORT = Path("/dev/shm"), Path("/tmp")
_PREFIX = "fabric-bench-"


@dataclass(slots=True)
class Measured:
    """What a run gave. Everything was checked: count, order, content."""

    rate: float
    """Records a second, from the first one's sending to the last one's arrival at the slowest reader."""
    cpu_us: float
    """Processor time of all its processes for each record, in microseconds."""
    others: float
    """The share of the CPUs' time that others used."""
    details: dict[str, Any] = field(default_factory=dict)
    latencies_ns: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    from_send_ns: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def disturbed(self) -> bool:
        return disturbance.disturbed(self.others)

    def plain(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if not key.endswith("_ns")}


def sweep() -> None:
    """Remove what a bench that was killed has left: its folders carry the id of a process that is no more."""
    for base in (_TMPFS, _SHORT):
        for path in base.glob(f"{_PREFIX}*"):
            owner = path.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdecimal() and not _runs(int(owner)):
                _remove(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """A short path for sockets, and one on tmpfs (where there is one) for logs; gone afterwards, whatever happens."""
    base = _TMPFS if _TMPFS.is_dir() and os.access(_TMPFS, os.W_OK) else None
    with ExitStack() as stack:
        made = []
        for parent in (_SHORT, base):
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            made.append(path)
        yield made[0], made[1]


Watch = Callable[[Mapping[int, str]], AbstractContextManager[None]]
"""Of the workers (pid to role), while the clock runs."""


def measure(
    job: Job, cpus: tuple[list[int], list[int]] = ([], []), watch: Watch = lambda roles: nullcontext()
) -> Measured:
    """``cpus``: what the sender and the receivers are pinned to. Raises RunFailed."""
    contestant = contestants()[job.contestant]
    module = importlib.import_module(job.module)
    with folders() as (directory, memory), ExitStack() as stack:
        job = replace(job, directory=str(directory), memory=str(memory))
        leftovers: Callable[[Job], list[Path]] | None = getattr(module, "leftovers", None)
        if leftovers is not None:
            stack.callback(_remove_all, leftovers, job)
        servers = []
        if hasattr(module, "server"):
            server: Server = module.server(job)
            servers.append(_start_server(server, job, cpus[0], stack))
            job = replace(job, server=server.where)
        deadline_s = time.monotonic() + _SETUP_S
        job = replace(job, deadline_s=_SETUP_S + job.deadline_s + _CHECK_S)

        def start(role: str, reader: int, pinned: list[int]) -> Worker:
            worker = Worker(role, replace(job, reader=reader, cpus=pinned))
            stack.callback(worker.end)
            return worker

        sender = start("sender", 0, cpus[0])
        count = 0 if contestant.in_process else job.readers
        receivers = [start("receiver", reader, cpus[1]) for reader in range(count)]
        address = sender.ask("open", deadline_s)["address"]
        for receiver in receivers:
            receiver.tell("open", address=address)
        sender.ask("meet", deadline_s)
        for receiver in receivers:
            receiver.answer("open", deadline_s)
        return _go(job, sender, receivers, servers, [*cpus[0], *cpus[1]], watch)


def _go(
    job: Job,
    sender: Worker,
    receivers: list[Worker],
    servers: list[int],
    cpus: list[int],
    watch: Watch,
) -> Measured:
    deadline_s = time.monotonic() + job.deadline_s
    with watch({each.process.pid: each.role for each in (sender, *receivers)}):
        before_ns = sum(receiver.ask("go", deadline_s)["cpu_ns"] for receiver in receivers)
        before_ns += sum(map(_process_ns, servers))
        before = disturbance.snapshot(cpus)
        before_ns += sender.ask("go", deadline_s)["cpu_ns"]
        ended = [receiver.answer("go", deadline_s) for receiver in receivers]
        sent = sender.answer("go", deadline_s)
        after = disturbance.snapshot(cpus)
        own_ns = sent["cpu_ns"] + sum(each["cpu_ns"] for each in ended) + sum(map(_process_ns, servers)) - before_ns
    deadline_s = time.monotonic() + _CHECK_S
    files = [Path(job.directory) / f"times{index}.npy" for index in range(len(receivers))]
    for receiver, file in zip(receivers, files, strict=True):
        receiver.tell("check", file=str(file))
    checks = [receiver.answer("check", deadline_s) for receiver in receivers] or [sender.ask("check", deadline_s)]
    for check in checks:
        if check["problem"]:
            raise RunFailed(f"{job.contestant}: {check['problem']}")
    for worker in (*receivers, sender):
        worker.ask("close", time.monotonic() + _CLOSE_S)
    last_ns = max((each["ended_ns"] for each in ended), default=sent["ended_ns"])
    details = {key: value for key, value in checks[0].items() if key not in ("done", "problem")}
    made = Measured(
        rate=job.count / ((last_ns - sent["began_ns"]) / 1e9),
        cpu_us=own_ns / job.count / 1e3,
        others=disturbance.others_share(before, after, own_ns),
        details=details,
    )
    if job.kind == PACED:
        both = np.concatenate([np.load(file) for file in files], axis=1)
        made.latencies_ns, made.from_send_ns = both[0], both[1]
    return made


def _start_server(server: Server, job: Job, cpus: list[int], stack: ExitStack) -> int:
    """Pinned as the sender is. Raises RunFailed where it does not listen in time."""
    libc = ctypes.CDLL(None)

    def begin() -> None:
        if hasattr(libc, "prctl"):
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, set(cpus))

    said = Path(job.directory) / "server.txt"
    with said.open("wb") as output:
        process = subprocess.Popen(
            server.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=begin
        )

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)
    deadline_s = time.monotonic() + _SERVER_S
    while not _listens(server.ready):
        if process.poll() is not None or time.monotonic() > deadline_s:
            lines = said.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RunFailed(f"{job.contestant}: its server does not listen: {lines[-1][:200]}")
        time.sleep(0.01)
    return process.pid


def _listens(where: int | Path) -> bool:
    try:
        if isinstance(where, int):
            socket.create_connection(("127.0.0.1", where), 1.0).close()
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(where))
            return True
    except OSError:
        return False


def _process_ns(pid: int) -> int:
    """User and system time of another process so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_all(leftovers: Callable[[Job], list[Path]], job: Job) -> None:
    for path in leftovers(job):
        _remove(path)
