"""``fabric report``: the report of a run that is over, or of one as far as it got."""

from __future__ import annotations

from pathlib import Path

import click

from fabric.config.plan import make_plan
from fabric.config.saved import load_saved
from fabric.report.view import RunView
from fabric.report.write import check_report_file, write_report
from fabric.rundir import RunDirectory


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--to", "files", type=click.Path(path_type=Path), multiple=True, required=True,
    help="A file: .html is a page to look at, anything else JSON. May be given several times.",
)  # fmt: skip
def report(run_dir: Path, files: tuple[Path, ...]) -> None:
    """Write the report of a run: from what `fabric up` kept at its end, else from its logs and pages as they are now.

    RUN_DIR is a run's directory, such as var/demo/latest. Sections of nodes need its logs, which the next run but one removes.
    """
    for file in files:
        check_report_file(file, "--to")
    view = RunView(run_dir.resolve())
    if not view.report:
        view.report = _as_it_is(view)
    for file in files:
        write_report(file, view.path, view.report, "--to")


def _as_it_is(view: RunView) -> dict[str, object]:
    """Of a run whose supervisor has not reported, because it still runs or was killed."""
    from fabric.supervise.report import build_report

    plan = make_plan(load_saved(view.path))
    seconds = (view.last_ns() - view.started_ns) / 1e9 if view.started_ns else 0.0
    made = build_report(
        plan, RunDirectory(view.path), {}, ended="unfinished", seconds=seconds, fault=view.manifest.get("fault", "")
    )
    for name, lives in view.lives().items():
        if name in made["nodes"]:
            made["nodes"][name]["restarts"] = len(lives) - 1
    return {**made, "failure": ""}
