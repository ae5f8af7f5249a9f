"""``fabric up`` and ``fabric run``: start a fabric, or one node of it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import click

from fabric.cli.options import config_argument, duration, set_option
from fabric.config.load import load_topology
from fabric.config.plan import make_plan
from fabric.errors import AddressInUse, ConfigError, LogMissing
from fabric.transport.faults import FaultPlan

FAULT_HELP = "Faults of live packets on purpose: drop=0.01,seed=7; also duplicate, reorder, delay, corrupt, delay_for."


@click.command()
@config_argument
@set_option
@click.option("--for", "for_text", metavar="DURATION", help="End by itself after, e.g., 20s.")
@click.option("--until-done", is_flag=True, help="End when every source has been read and every reader caught up.")
@click.option("--fault", "fault_text", metavar="PLAN", help=FAULT_HELP)
@click.option(
    "--report", "report_files", type=click.Path(path_type=Path), multiple=True,
    help="Write a report here: .html is a page to look at, anything else JSON. May be given several times.",
)  # fmt: skip
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
def up(
    config: str | None,
    settings: tuple[str, ...],
    for_text: str | None,
    until_done: bool,
    fault_text: str | None,
    report_files: tuple[Path, ...],
    plain: bool,
) -> int:
    """Start every node of CONFIG, one process each, and keep them running until Ctrl-C."""
    from fabric.report.write import check_report_file, write_report
    from fabric.supervise.summary import print_summary
    from fabric.supervise.supervisor import Supervisor
    from fabric.supervise.view import make_view

    plan = make_plan(load_topology(config, settings))
    for node in plan.nodes.values():
        node.make().on_start()  # missing files and the like are told before anything starts
    fault = FaultPlan.parse(fault_text) if fault_text else None
    for file in report_files:
        check_report_file(file)
    for_ns = duration(for_text, "--for")
    if for_text is not None and for_ns <= 0:
        raise ConfigError("is no time at all", key="--for", remedy="for example 20s")
    view = make_view(plain or not sys.stdout.isatty())
    supervisor = Supervisor(
        plan,
        for_ns=for_ns,
        until_done=until_done,
        fault=fault,
        say=view.say,
        show=view.show,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    if fault is not None:
        view.say("up", f"fault injection {fault}: live packets suffer on purpose; paths are forced to sockets")
    view.say("up", f"fabric {plan.topology.fabric}, run {supervisor.run_directory.path}")
    with view:
        report = supervisor.run()
    for file in report_files:
        write_report(file, supervisor.run_directory.path, report)
    try:
        print_summary(report)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads it any more; the run is what counts
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    return supervisor.exit_code if supervisor.failure else 0


@click.command()
@click.argument("arguments", nargs=-1, metavar="[CONFIG] NODE")
@set_option
@click.option(
    "--standby", is_flag=True, help="Wait until the node's process ends, then go on for it in the same session."
)
@click.option("--fault", "fault_text", metavar="PLAN", help=FAULT_HELP)
def run(arguments: tuple[str, ...], settings: tuple[str, ...], standby: bool, fault_text: str | None) -> None:
    """Run one node in this process, in the newest run of its fabric (a new one if there is none)."""
    from fabric.archive.process import archived_logs
    from fabric.config.saved import save_source
    from fabric.rundir import create_run, latest_run
    from fabric.runtime.child import Stopping, served_logs, stand_by, stop_on_signals
    from fabric.runtime.process import NodeProcess
    from fabric.transport.logserver import LogServer

    if not 1 <= len(arguments) <= 2:
        raise click.UsageError("give a config (or set $FABRIC_CONFIG) and one node")
    config, name = (None, arguments[0]) if len(arguments) == 1 else arguments
    topology = load_topology(config, settings)
    if name not in topology.nodes:
        raise ConfigError(
            f"there is no node {name!r}", file=str(topology.source.file), remedy=f"nodes: {', '.join(topology.nodes)}"
        )
    plan = make_plan(topology, only=[name])
    logging.basicConfig(level=logging.INFO, format=f"[{name}] %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        directory = latest_run(topology.directory)
    except LogMissing:
        manifest = {"fabric": topology.fabric, "config": str(topology.source.file.resolve())}
        directory = create_run(topology.directory, topology.log_dir, 0, manifest, now_ns=time.time_ns())
        save_source(directory.path, topology.source)
    topology.make_sockets_dir()
    stop = Stopping()
    stop_on_signals(stop)
    place = None
    if standby and (place := stand_by(plan, name, directory, stop)) is None:
        return
    server = None
    with contextlib.suppress(AddressInUse):  # then the fabric's own log server is up
        server = LogServer(
            [topology.replay_endpoint],
            served_logs(topology, directory).get,
            offers_logs=not fault_text,
            archive=archived_logs(topology.archive).get if topology.archive is not None else None,
            replay_rate=topology.replay_rate_bytes,
        ).start()
    try:
        fault = FaultPlan.parse(fault_text) if fault_text else None
        process = NodeProcess(plan, name, directory, fault=fault, place=place)
        stop.reaches(process.stop)
        process.run()
    finally:
        if server is not None:
            server.close()
