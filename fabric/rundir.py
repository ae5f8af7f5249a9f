"""A run's directory: what one start of a fabric writes, and where everything in it is.

<data_dir>/<fabric>/
    latest -> 20260102T030405Z          the newest run
    up.lock  epochs                     one supervisor at a time; the highest session epoch used
    recordings/<node>/                  what a live source received, over all runs
    20260102T030405Z/
        run.json                        the manifest: config, channels, build
        lives                           when each process was started and how it ended
        faults  verification.json       under faults on purpose: the page that tells of them, and what was found after
        logs -> (tmpfs or logs.d/)      one directory a channel, and @<node> for each cycle journal
        nodes/<node>/                   page, timeline, checkpoint, report.json, output.log, snapshots/, stop
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fabric.errors import ConfigError, LogFull, LogMissing
from fabric.log.paths import write_atomically
from fabric.units import format_bytes

MANIFEST = "run.json"
LATEST = "latest"
_TMPFS = Path("/dev/shm")
_OWNER = ".run"
"""In a directory of logs: the run that they belong to."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths in one run."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def epoch_file(self) -> Path:
        return self.path.parent / "epochs"

    @property
    def gate(self) -> Path:
        """Sources wait for this file, which says that everyone downstream listens."""
        return self.path / "go"

    def stop_request(self, node: str) -> Path:
        """A file that says that the node is to end, where its process has others as well."""
        return self.path / "nodes" / node / "stop"

    def channel_log(self, channel: str) -> Path:
        return self.logs / channel

    def journal(self, node: str) -> Path:
        return self.logs / f"@{node}"

    def node(self, node: str) -> Path:
        directory = self.path / "nodes" / node
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def tell_gauges(self, process: str, gauges: dict[str, Any]) -> None:
        """What the log server or the archive buffers, for the report. On a full disk it is not told."""
        with contextlib.suppress(OSError):
            write_atomically(self.path / f"{process}.json", json.dumps(gauges).encode())

    def gauges(self, process: str) -> dict[str, Any]:
        """As told last; empty if never."""
        try:
            told: dict[str, Any] = json.loads((self.path / f"{process}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return told

    def manifest(self) -> dict[str, Any]:
        """Raises LogMissing if this is no run directory."""
        try:
            content: dict[str, Any] = json.loads((self.path / MANIFEST).read_bytes())
        except (OSError, ValueError):
            raise LogMissing(
                "is not a run directory", path=self.path, remedy="runs are in <data_dir>/<fabric>/"
            ) from None
        return content


def latest_run(fabric_directory: Path) -> RunDirectory:
    """The newest run. Raises LogMissing if there was none."""
    path = fabric_directory / LATEST
    if not (path / MANIFEST).exists():
        raise LogMissing("this fabric has not run yet", path=fabric_directory, remedy="start it with `fabric up`")
    return RunDirectory(path.resolve())


def create_run(
    fabric_directory: Path, log_dir: Path | None, needed_bytes: int, manifest: dict[str, Any], *, now_ns: int
) -> RunDirectory:
    """Make the directory of a new run and point ``latest`` to it. Raises LogFull if its logs could not fit.

    ``log_dir`` None: logs go to tmpfs where it has ``needed_bytes`` free, else beside the run.
    """
    fabric_directory.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns / 1e9))
    path = fabric_directory / stamp
    number = 1
    while path.exists():
        number += 1
        path = fabric_directory / f"{stamp}.{number}"
    logs = _choose_logs(path, log_dir, needed_bytes)
    path.mkdir()
    logs.mkdir(parents=True, mode=0o700)
    (path / "logs").symlink_to(logs)
    (logs / _OWNER).write_text(str(path.resolve()))
    run = RunDirectory(path)
    write_atomically(path / MANIFEST, json.dumps({**manifest, "logs": str(logs), **build_facts()}, indent=2).encode())
    temporary = fabric_directory / f".{LATEST}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(path.name)
    temporary.replace(fabric_directory / LATEST)
    return run


def _choose_logs(run: Path, log_dir: Path | None, needed_bytes: int) -> Path:
    digest = hashlib.blake2b(str(run.resolve()).encode(), digest_size=6).hexdigest()
    named = f"{run.parent.name}-{run.name}-{digest}"
    if log_dir is not None:
        _check_space(log_dir, needed_bytes)
        return log_dir / named
    if _TMPFS.is_dir() and os.access(_TMPFS, os.W_OK) and shutil.disk_usage(_TMPFS).free > needed_bytes:
        return _TMPFS / f"zmf-{os.getuid()}" / named
    _check_space(run.parent, needed_bytes)
    return run / "logs.d"


def _check_space(directory: Path, needed_bytes: int) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"can't make {directory}: {error.strerror}", key="log_dir", remedy="set another one"
        ) from None
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise LogFull(
            f"the logs may need {format_bytes(needed_bytes)}, but {format_bytes(free)} are free",
            path=directory,
            remedy='lower retain in [channels."…"], free space, or set log_dir',
        )


def drop_old_logs(fabric_directory: Path, keep: int = 1) -> None:
    """Remove the logs (not the reports) of all but the newest ``keep`` runs; tmpfs is not for archives."""
    runs = sorted(path.parent for path in fabric_directory.glob(f"*/{MANIFEST}") if path.parent.name != LATEST)
    for run in runs[: len(runs) - keep]:
        logs = (run / "logs").resolve()
        if (run / "logs").is_symlink() and logs.is_dir() and not in_use(logs):
            shutil.rmtree(logs, ignore_errors=True)
            (run / "logs").unlink(missing_ok=True)
    for owner in (_TMPFS / f"zmf-{os.getuid()}").glob(f"*/{_OWNER}"):
        with contextlib.suppress(OSError):
            if not Path(owner.read_text()).exists():  # its run was removed by hand: nobody can find these logs any more
                shutil.rmtree(owner.parent, ignore_errors=True)


def in_use(logs: Path) -> bool:
    """Does a writer hold one of these logs (a node that runs by itself)?"""
    for lock in logs.glob("*/lock"):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def build_facts() -> dict[str, Any]:
    """What bit-exact playback depends on: build, interpreter, processor."""
    try:
        ours = version("zmq-market-fabric")
    except PackageNotFoundError:
        ours = "uninstalled"
    return {
        "version": ours,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.release()}",
        "numpy": version("numpy"),
        "pyzmq": version("pyzmq"),
    }


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
