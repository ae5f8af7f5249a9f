"""The program of one process of a running fabric: a node, or the log server. Started by the supervisor.

python -m fabric.runtime.child RUN_DIR --node NAME ... [--standby] [--fault PLAN] [--keep-journal]
python -m fabric.runtime.child RUN_DIR --log-server [--fault PLAN]
python -m fabric.runtime.child RUN_DIR --archive
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from fabric.archive.process import Archive, archived_logs
from fabric.channel import channel_id
from fabric.config.curve import replay_curves
from fabric.config.plan import Plan, make_plan
from fabric.config.saved import load_saved
from fabric.config.topology import Topology
from fabric.errors import FabricError, LogDamaged, NodeFailed, Superseded
from fabric.rundir import RunDirectory
from fabric.runtime.process import NodeProcess
from fabric.runtime.standby import Place, Standby
from fabric.runtime.together import Together
from fabric.transport.faultpage import FaultPage
from fabric.transport.faults import FaultPlan
from fabric.transport.logserver import LogServer

_PR_SET_PDEATHSIG = 1
HOPELESS = 3
"""Exit code of what another try would meet again: damage, another publisher."""
_ORPHAN_CHECK_S = 0.5
_TELL_EVERY_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fabric.runtime.child")
    parser.add_argument("run", type=Path)
    parser.add_argument("--node", action="append", default=[], help="several run in threads of one process")
    parser.add_argument("--standby", action="store_true", help="wait until the node's process ends, then go on for it")
    parser.add_argument("--log-server", action="store_true")
    parser.add_argument("--archive", action="store_true")
    parser.add_argument("--fault", default="")
    parser.add_argument("--keep-journal", action="store_true", help="no retention for the cycle journal")
    parser.add_argument("--parent", type=int, default=0, help="end when this process does")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        run = RunDirectory(options.run)
        if options.log_server:
            return _log_server(run, under_faults=bool(options.fault))
        if options.archive:
            archive = Archive(load_saved(run.path), run)
            stop_on_signals(archive.stop)
            archive.run()
            return 0
        names: list[str] = options.node
        plan = make_plan(load_saved(options.run), only=names)
        fault = FaultPlan.parse(options.fault) if options.fault else None
        stop = Stopping()
        stop_on_signals(stop, patience=len(names))  # each node is asked by itself
        place = None
        if options.standby and (place := stand_by(plan, names[0], run, stop)) is None:
            return 0
        processes = [
            NodeProcess(
                plan,
                name,
                run,
                fault=fault,
                wait_for_gate=True,
                place=place,
                keep_journal=options.keep_journal,
            )
            for name in names
        ]
        process = processes[0] if len(processes) == 1 else Together(run, processes)
        stop.reaches(process.stop)
        process.run()
        return 0
    except NodeFailed as error:
        logging.getLogger("fabric").error("%s", error, exc_info=error.__cause__)
        return error.exit_code
    except (LogDamaged, Superseded) as error:
        logging.getLogger("fabric").error("%s", error)
        return HOPELESS
    except FabricError as error:
        logging.getLogger("fabric").error("%s", error)
        return error.exit_code
    except OSError as error:  # a disk that is full, a directory that was removed
        logging.getLogger("fabric").error("%s", error)
        return 1


class Stopping:
    """What a signal to stop reaches: first the waiting, then the node."""

    def __init__(self) -> None:
        self._asked = False
        self._target: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self._asked = True
        self._target()

    def reaches(self, target: Callable[[], None]) -> None:
        """From now on; at once if it came already."""
        self._target = target
        if self._asked:
            target()


def stand_by(plan: Plan, name: str, run: RunDirectory, stop: Stopping) -> Place | None:
    """Warm up, then wait until nobody is the node; None if asked to end before.

    Warming up is what a node does before it touches anything: a throw-away one reads its files and loads its modules.
    """
    standby = Standby(run, name)
    stop.reaches(standby.stop)
    plan.nodes[name].make().on_start()
    plan.topology.make_sockets_dir()
    gc.collect()
    return standby.wait()


def _log_server(run: RunDirectory, *, under_faults: bool) -> int:
    """Under faults it offers no logs: what is to be tried are the sockets. It then keeps back what is cut off."""
    topology = load_saved(run.path)
    topology.make_sockets_dir()
    endpoints = [topology.replay_endpoint]
    endpoints += sorted(
        {section.replay for section in topology.channels.values() if section.replay and not section.external}
    )
    server = LogServer(
        endpoints,
        served_logs(topology, run).get,
        curve=replay_curves(topology),
        offers_logs=not under_faults,
        archive=archived_logs(topology.archive).get if topology.archive is not None else None,
        cut=_cut_off(topology, run) if under_faults else None,
        replay_rate=topology.replay_rate_bytes,
    )
    stopping = threading.Event()
    stop_on_signals(stopping.set)
    told_s = 0.0
    while not stopping.is_set():
        server.serve_once(50)
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            run.tell_gauges("log-server", server.gauges())
    run.tell_gauges("log-server", server.gauges())
    server.close()
    return 0


def _cut_off(topology: Topology, run: RunDirectory) -> Callable[[int], bool]:
    """Whether the writer of a channel, by id, is cut off right now."""
    page = FaultPage(run.path, list(topology.nodes))
    writers = {channel_id(name): node.name for name in topology.channels if (node := topology.writer(name))}

    def cut(channel: int) -> bool:
        return channel in writers and time.monotonic_ns() < page.cut_until_ns(writers[channel])

    return cut


def served_logs(topology: Topology, run: RunDirectory) -> dict[int, Path]:
    """Channel id to log directory of all that this fabric writes."""
    return {channel_id(name): run.channel_log(name) for name in topology.channels if topology.writer(name)}


def stop_on_signals(stop: object, patience: int = 1) -> None:
    """SIGTERM and SIGINT call ``stop`` (orderly), ``patience`` times; one more ends at once."""
    asked: list[int] = []

    def handle(number: int, _: object) -> None:
        if len(asked) >= patience:
            os._exit(128 + number)
        asked.append(number)
        stop()  # type: ignore[operator]

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def die_with_parent(parent: int) -> None:
    """No orphan: the kernel kills this process when its parent ends (Linux), or a thread notices (elsewhere)."""
    if not parent:
        return
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_CHECK_S)
        os._exit(1)

    threading.Thread(target=watch, name="fabric-parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
