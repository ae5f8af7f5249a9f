"""``fabric play``: make a recorded run's calls again and compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from fabric.cli.options import json_option
from fabric.config.plan import make_plan
from fabric.config.saved import load_saved
from fabric.errors import ConfigError
from fabric.rundir import RunDirectory
from fabric.runtime.play import play_node


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--node", "only", help="Only this node (default: all).")
@click.option("--verify", is_flag=True, help="Compare every output record; this is what playing does in any case.")
@json_option
def play(run_dir: Path, only: str | None, verify: bool, as_json: bool) -> int:
    """Run the nodes of a recorded run again from their cycle journals, and say whether every record is identical.

    RUN_DIR is a run's directory, such as var/demo/latest, of a fabric that is not running. Exit code 1 at a difference.
    """
    plan = make_plan(load_saved(run_dir))
    if only is not None and only not in plan.nodes:
        raise ConfigError(f"there is no node {only!r}", key="--node", remedy=f"nodes: {', '.join(plan.nodes)}")
    different = False
    for name in plan.upstream_first() if only is None else [only]:
        result = play_node(plan, RunDirectory(run_dir.resolve()), name)
        different = different or bool(result.difference)
        if as_json:
            click.echo(json.dumps(dataclasses.asdict(result)))
            continue
        said = f"DIFFERENT: {result.difference}" if result.difference else "identical"
        total = sum(result.records.values())
        click.echo(f"{name}: {said}; {result.cycles:,} cycles made again, {total:,} records compared")
    return 1 if different else 0
