"""Peers in C (peers.c): libzmq without Python, a Unix-domain socket, a ring in shared memory. What is possible at all.

Compiled with ``cc`` when they are first needed, into the user's cache; libzmq is the one that pyzmq brings.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fabric.bench import records as layout
from fabric.bench.job import FLOOD, PACED, Contestant, Job
from fabric.bench.peers.raw_zmq import FLOW
from fabric.bench.ports import free_endpoints
from fabric.bench.roles import LEAD_NS, Receiver, Sender
from fabric.records import Records

_SOURCE = Path(__file__).with_name("peers.c")
_COMPILE_S = 60.0
_ZMQ, _UNIX, _RING = 0, 1, 2
_LARGEST_RING_MESSAGE = 65_536

CONTESTANTS = [
    Contestant(
        name, __name__, transport, frozenset({PACED, FLOOD}), flow,
        idle=("block", "spin"), optional=True, most_readers=1, largest_message_bytes=largest,
    )
    for name, transport, flow, largest in (
        ("C libzmq ipc", "ipc", FLOW, 1 << 20),
        ("C libzmq tcp", "tcp", FLOW, 1 << 20),
        ("C unix socket", "ipc", "SOCK_SEQPACKET: send blocks while the socket's buffer is full", 65_536),
        ("C shared ring", "local", "the sender waits while the ring of 4 MiB is full", _LARGEST_RING_MESSAGE),
    )
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    if _libzmq() is None and "libzmq" in contestant.name:
        return "the libzmq of pyzmq was not found"
    return _build()[1]


def make_sender(job: Job) -> Sender:
    return _CSender(job)


def make_receiver(job: Job) -> Receiver:
    return _CReceiver(job)


@cache
def _libzmq() -> Path | None:
    """The library that pyzmq's own extension uses: beside it in a wheel, else what its process has mapped."""
    import zmq.backend.cython._zmq as extension

    folder = Path(str(extension.__file__)).parents[3]
    for place in ("pyzmq.libs", "zmq/.dylibs"):
        for found in sorted((folder / place).glob("libzmq*")):
            return found
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    mapped = re.search(r"\s(/\S*/libzmq\S*\.so\S*)$", maps, re.MULTILINE)
    return Path(mapped[1]) if mapped else None


@cache
def _build() -> tuple[Path, str]:
    """The compiled library, and why there is none. By the source's hash: a changed one is compiled again."""
    source = _SOURCE.read_bytes()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = base / "zmq-market-fabric" / f"peers-{hashlib.blake2b(source, digest_size=8).hexdigest()}.so"
    if target.exists():
        return target, ""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return target, "there is no C compiler"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "peers.so"
            command = [compiler, "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_S, check=False)
            if done.returncode:
                return target, f"it does not compile: {(done.stderr.strip().splitlines() or ['no message'])[0][:160]}"
            made.replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        return target, f"it can't be compiled: {error}"
    return target, ""


class _Peer:
    """One side, through ctypes (which gives the interpreter's lock away during a call)."""

    def __init__(self, job: Job, address: str, sends: bool) -> None:
        name = job.contestant
        transport = _RING if "ring" in name else _UNIX if "unix" in name else _ZMQ
        self.library = ctypes.CDLL(str(_build()[0]))
        self.library.bench_open.restype = ctypes.c_void_p
        error = ctypes.c_int(0)
        spins = int(job.idle == "spin")
        found = self.library.bench_open(
            transport, str(_libzmq()).encode(), address.encode(), int(sends), spins, ctypes.byref(error)
        )
        _raise(error.value)
        self.handle = ctypes.c_void_p(found)

    def call(self, name: str, *arguments: Any) -> None:
        _raise(getattr(self.library, name)(self.handle, *arguments))


def _raise(code: int) -> None:
    if code < 0:
        raise OSError(-code, f"{errno.errorcode.get(-code, '')} {os.strerror(-code)}".strip())


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class _CSender(Sender):
    def open(self) -> dict[str, Any]:
        name, job = self.job.contestant, self.job
        if "tcp" in name:
            address = free_endpoints(1)[0]
        elif "libzmq" in name:
            address = f"ipc://{job.directory}/zmq"
        else:
            address = f"{job.memory}/ring" if "ring" in name else f"{job.directory}/socket"
        self.peer = _Peer(job, address, sends=True)
        return {"address": address}

    def prepare(self) -> None:
        """The block of records is what is sent from."""

    def meet(self) -> None:
        self.peer.call("bench_meet")

    def run(self) -> tuple[int, int]:
        job, times = self.job, np.zeros(2, np.int64)
        interval_ns = ctypes.c_double(1e9 / job.rate if job.kind == PACED else 0.0)
        sizes = [ctypes.c_int64(value) for value in (job.count, job.size_bytes, job.per_message)]
        self.peer.call(
            "bench_send", _pointer(self.records), *sizes, interval_ns, ctypes.c_int64(LEAD_NS), _pointer(times)
        )
        return int(times[0]), int(times[1])


class _CReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        job = self.job
        self.block = np.full(job.count * job.size_bytes, 0xFF, np.uint8)  # touched: no page is new while the clock runs
        self.arrived = np.full(job.count, -1, np.int64)
        self.peer = _Peer(job, address["address"], sends=False)

    def run(self) -> None:
        job, ended = self.job, np.zeros(1, np.int64)
        sizes = [ctypes.c_int64(value) for value in (job.count, job.size_bytes, job.per_message)]
        self.peer.call("bench_receive", _pointer(self.block), *sizes, _pointer(self.arrived), _pointer(ended))
        self.ended_ns = int(ended[0])

    def records(self) -> Records:
        return self.block.view(layout.record_type(self.job.size_bytes).dtype)

    def arrivals_ns(self) -> npt.NDArray[np.int64]:
        return self.arrived
