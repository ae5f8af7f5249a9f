"""Real processes: start a fabric, watch its pages, kill its nodes, read its logs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fabric.bench.ports import free_endpoints
from fabric.config.load import load_topology
from fabric.errors import LogError
from fabric.runtime.page import NodePage

ROOT = Path(__file__).resolve().parents[2]
FORCED_PATH = os.environ.get("FABRIC_TEST_PATH", "auto")
"""The path of everything that chooses none itself (`make test-paths`)."""


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Poll until ``condition`` gives something true; errors of files that are not there yet count as false."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if result := condition():
                return result
        except (OSError, ValueError, KeyError, LogError):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.01)


def forced_path(config: Path, arguments: tuple[str, ...]) -> list[str]:
    """Settings by which those channels of a run that name no path use ``FORCED_PATH``."""
    if FORCED_PATH == "auto" or (FORCED_PATH == "local" and "--fault" in arguments):  # faults are done to packets
        return []
    topology = load_topology(config, tuple(value for word, value in pairwise(arguments) if word == "--set"))
    if topology.curve is not None:  # every tcp endpoint would want keys
        return []
    words: list[str] = []
    for node, listen in zip(topology.nodes.values(), free_endpoints(len(topology.nodes)), strict=True):
        for channel in node.outputs.values():
            section = topology.channels[channel]
            if section.path != "auto" or (section.listen and FORCED_PATH != "local"):
                continue
            words += ["--set", f"channels.{json.dumps(channel)}.path={FORCED_PATH!r}"]
            if FORCED_PATH == "tcp":
                words += ["--set", f"channels.{json.dumps(channel)}.listen={listen!r}"]
    return words


class Up:
    """One ``fabric up`` in a process of its own."""

    def __init__(self, config: Path, data_dir: Path, arguments: tuple[str, ...]) -> None:
        self.data_dir = data_dir
        self.report_file = data_dir / "report.json"
        data_dir.mkdir(parents=True, exist_ok=True)
        self.output_file = data_dir / "output.txt"
        command = [sys.executable, "-m", "fabric.cli.main", "up", str(config), "--report", str(self.report_file)]
        command += ["--set", f"data_dir={data_dir}", *forced_path(config, arguments), *arguments]
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def run(self) -> Path:
        return wait_for(lambda: next(self.data_dir.glob("*/latest"), None), "a run").resolve()

    def page(self, node: str) -> NodePage:
        return wait_for(lambda: NodePage.open(self.run / "nodes" / node / "page"), f"{node}'s page")

    def count(self, node: str, counter: str) -> int:
        return self.page(node).get(counter)

    def log(self, channel: str) -> Path:
        return self.run / "logs" / channel

    def kill(self, node: str) -> int:
        """kill -9 of a node's process; returns its pid."""
        pid = self.count(node, "pid")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait(self, timeout: float = 60.0) -> int:
        return self.process.wait(timeout)

    def stop(self) -> None:
        """An orderly end, as by Ctrl-C: for runs that end when the test has done its part, however slow the machine is."""
        self.process.send_signal(signal.SIGINT)

    def report(self, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the end; the report of a run that is to succeed."""
        code = self.wait(timeout)
        assert code == 0, f"exit code {code}\n{self.output}"
        return json.loads(self.report_file.read_bytes())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for run in self.data_dir.glob("*/latest"):  # logs are on tmpfs: give the memory back
            shutil.rmtree((run / "logs").resolve(), ignore_errors=True)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """``up("demo", "--for", "5s")``: starts configs/demo.toml with a data directory of its own."""
    started: list[Up] = []

    def start(config: str | Path, *arguments: str) -> Up:
        path = config if isinstance(config, Path) else ROOT / "configs" / f"{config}.toml"
        started.append(Up(path, tmp_path / f"var{len(started)}", arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def waiting() -> Callable[..., Any]:
    """``wait_for``, for tests."""
    return wait_for


PATHS = ("local", "ipc", "tcp")


class Endpoints(tuple[str, str]):
    """An endpoint for live packets and one for replays, and the ``path`` that readers are to take."""

    path: str


def make_endpoints(path: str, directory: Path) -> Endpoints:
    if path == "tcp":
        made = Endpoints(free_endpoints(2))
    else:
        made = Endpoints((f"ipc://{directory}/data", f"ipc://{directory}/replay"))
    made.path = path
    return made


@pytest.fixture
def path() -> str:
    """How readers get records. A module that is to hold on every path overrides it: ``params=PATHS``."""
    return FORCED_PATH


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """For sockets: their paths are bounded."""
    directory = Path("/tmp") / f"zmf-test-{os.getpid()}-{time.monotonic_ns()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def endpoints(path: str, short_directory: Path) -> Endpoints:
    """Where a publisher of the test's own is, for this path."""
    return make_endpoints(path, short_directory)


@pytest.fixture
def other_endpoints(path: str, short_directory: Path) -> Endpoints:
    """Those of a second publisher."""
    (short_directory / "other").mkdir()
    return make_endpoints(path, short_directory / "other")


@pytest.fixture
def sockets(short_directory: Path) -> Endpoints:
    """As ``endpoints``, for tests about packets."""
    return make_endpoints("ipc", short_directory)


class Cable:
    """A tcp connection between two processes that can be pulled: what is on its way then is lost, and who connects hears
    nothing until it is plugged in again."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self._target = (host, int(port))
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._plugged = True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        with self._lock:
            self._plugged = False
            self._drop()

    def plug(self) -> None:
        with self._lock:
            self._plugged = True
            self._drop()

    def close(self) -> None:
        self.pull()
        self._server.close()

    def _drop(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._ends.append(near)
                if not self._plugged:
                    continue
                try:
                    far = socket.create_connection(self._target, timeout=1.0)
                except OSError:
                    near.close()
                    self._ends.remove(near)
                    continue
                far.settimeout(None)
                self._ends.append(far)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := one.recv(65_536):
                other.sendall(content)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable() -> Iterator[Callable[[str], Cable]]:
    """``cable(endpoint)``: a way to that endpoint which can be pulled."""
    made: list[Cable] = []

    def lay(target: str) -> Cable:
        made.append(Cable(target))
        return made[-1]

    yield lay
    for each in made:
        each.close()
