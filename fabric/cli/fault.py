"""``fabric fault`` and ``fabric verify``: faults on purpose, and whether anything was lost in silence."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from fabric.cli.options import Decorator, config_argument, duration, json_option, set_option
from fabric.config.fault import read_script
from fabric.config.load import load_topology
from fabric.config.plan import make_plan
from fabric.config.saved import load_saved
from fabric.config.topology import FaultSection
from fabric.errors import ConfigError
from fabric.fault.verify import Verification, verify_run
from fabric.log.paths import write_atomically
from fabric.rundir import RunDirectory
from fabric.transport.faults import SHARES

VERIFICATION = "verification.json"
"""In the run's directory: what was found, for programs."""


def _share(name: str, what: str) -> Decorator:
    decorator: Decorator = click.option(
        f"--{name}", type=float, metavar="SHARE", help=f"The share of live packets that {what}."
    )
    return decorator


@click.command()
@config_argument
@set_option
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long faults are put in.")
@click.option("--seed", type=int, help="All decisions follow from it.  [default: the config's, else 0]")
@click.option(
    "--script", type=click.Path(path_type=Path), help="A TOML file with a [fault] table, in place of the config's."
)
@_share("drop", "are not sent")
@_share("duplicate", "are sent twice")
@_share("reorder", "later ones overtake")
@_share("delay", "are held back")
@_share("corrupt", "have a bit flipped")
@click.option("--delay-for", metavar="DURATION", help="How long a packet is held back at most, e.g. 20ms.")
@click.option(
    "--report", "report_files", type=click.Path(path_type=Path), multiple=True,
    help="Write a report here, as `fabric up` does.",
)  # fmt: skip
def fault(
    config: str | None,
    settings: tuple[str, ...],
    seconds: float,
    seed: int | None,
    script: Path | None,
    delay_for: str | None,
    report_files: tuple[Path, ...],
    **shares: float | None,
) -> int:
    """Run CONFIG as `fabric up` does, put faults between its nodes, and verify that nothing was lost in silence.

    What is done to packets, and to whole processes and when, stands in the config's [fault] table or in a script; options come on
    top. After --seconds (or Ctrl-C) the faults end, every reader catches up, the fabric stops, and what was published is
    compared with what every node was given. Exit code 1 if a record is missing that was not announced, or a sum does not hold.
    """
    from fabric.fault.drill import Drill
    from fabric.report.write import check_report_file, write_report
    from fabric.supervise.summary import print_summary
    from fabric.supervise.supervisor import Supervisor
    from fabric.supervise.view import PlainView

    topology = load_topology(config, settings)
    plan = make_plan(topology)
    for node in plan.nodes.values():
        node.make().on_start()
    if not seconds > 0:
        raise ConfigError("is no time at all", key="--seconds", remedy="for example 60")
    section = topology.fault or FaultSection()
    if script is not None:
        section = read_script(script, topology.nodes)
    section = _with_options(section, seed, delay_for, shares)
    for file in report_files:
        check_report_file(file)
    view = PlainView()
    drill = Drill(section, seconds, view.say)

    def show(supervisor: Supervisor) -> None:
        drill.step(supervisor)
        view.show(supervisor)

    supervisor = Supervisor(
        plan,
        fault=section.plan if section.touches_packets else None,
        keep_journals=True,
        say=view.say,
        show=show,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: drill.end(supervisor))
    paths = (
        "every path is forced to sockets" if section.touches_packets else "no packets are touched, paths are as ever"
    )
    view.say("fault", f"{section.plan}, {len(drill.moments)} actions in {seconds:g} s; {paths}")
    view.say("fault", f"fabric {topology.fabric}, run {supervisor.run_directory.path}")
    with view:
        report = supervisor.run()
    report["actions"] = [{"at_seconds": round(at_s, 3), **dataclasses.asdict(moment)} for at_s, moment in drill.done]
    run = supervisor.run_directory
    result: Verification | None = None
    print_summary(report)
    try:
        if not supervisor.failure:
            result = verify_run(plan, run, say=lambda line: view.say("verify", line))
            result.problems += [f"{reader} within the time for it" for reader in drill.left_behind]
            report["verification"] = _content(result)
    finally:
        for file in (run.path / "report.json", *report_files):
            write_report(file, run.path, report)
    if result is None:
        click.echo(f"not verified: {supervisor.failure}", err=True)
        return supervisor.exit_code or 1
    return _tell(result, run)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--with", "others", type=click.Path(path_type=Path), multiple=True, metavar="RUN_DIR",
    help="The run of another fabric that publishes what this one reads; may be given several times.",
)  # fmt: skip
@json_option
def verify(run_dir: Path, others: tuple[Path, ...], as_json: bool) -> int:
    """Compare what was published in a run with what every node was given. Exit code 1 if anything is missing that was not
    announced, or a sum does not hold.

    RUN_DIR is a run's directory, such as var/demo/latest, of a fabric that is not running.
    """
    run = RunDirectory(run_dir.resolve())
    publishers = [RunDirectory(other.resolve()) for other in others]
    for each in publishers:
        each.manifest()
    result = verify_run(make_plan(load_saved(run_dir)), run, others=publishers)
    return _tell(result, run, as_json=as_json)


def _with_options(
    section: FaultSection, seed: int | None, delay_for: str | None, shares: dict[str, float | None]
) -> FaultSection:
    changes: dict[str, Any] = {name: share for name in SHARES if (share := shares[name]) is not None}
    if seed is not None:
        changes["seed"] = seed
    if delay_for is not None:
        changes["delay_for_ns"] = duration(delay_for, "--delay-for")
    plan = dataclasses.replace(section.plan, **changes)
    for name in SHARES:
        plan.check(f"--{name}")
    return dataclasses.replace(section, plan=plan)


def _content(result: Verification) -> dict[str, Any]:
    return {**dataclasses.asdict(result), "ok": result.ok, "line": result.line()}


def _tell(result: Verification, run: RunDirectory, *, as_json: bool = False) -> int:
    content = _content(result)
    try:
        write_atomically(run.path / VERIFICATION, json.dumps(content, indent=2).encode())
    except OSError as error:
        click.echo(f"can't keep the verification in {run.path}: {error.strerror}", err=True)
    if as_json:
        click.echo(json.dumps(content))
        return 0 if result.ok else 1
    for note in result.notes:
        click.echo(f"note: {note}")
    for problem in result.problems:
        click.echo(f"PROBLEM: {problem}")
    click.echo(result.line())
    sys.stdout.flush()
    return 0 if result.ok else 1
