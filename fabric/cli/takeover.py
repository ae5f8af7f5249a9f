"""``fabric takeover``: let the nodes of a standby go on for those of the other host, now."""

from __future__ import annotations

import json
import time

import click

from fabric.cli.options import config_argument, set_option
from fabric.config.load import load_topology
from fabric.errors import FabricError, UserMistake
from fabric.rundir import LATEST, RunDirectory
from fabric.standby.node import FOLLOWS, TAKE_OVER, following_pid

_WAIT_S = 10.0
_PAUSE_S = 0.02


@click.command()
@config_argument
@set_option
@click.option("--node", "nodes", multiple=True, help="Only this one; may be given again.")
def takeover(config: str | None, settings: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    """Take over from another host, whether that is heard or not.

    The nodes with a [standby.NODE] table, of the running fabric of CONFIG, begin new sessions of their channels, which say what
    they go on from. The other host's stop when they learn of it; readers go over, and are told exactly of records that they
    had and that are not here.
    """
    topology = load_topology(config, settings)
    chosen = list(nodes) or list(topology.standbys)
    if unknown := [name for name in chosen if name not in topology.standbys]:
        raise UserMistake(
            f"{unknown[0]!r} stands by for nobody", remedy=f"nodes that do: {', '.join(topology.standbys) or 'none'}"
        )
    if not chosen:
        raise UserMistake(
            "no node of this config stands by for one of another host", remedy="the standby's config has [standby.NODE]"
        )
    path = topology.directory / LATEST
    run = RunDirectory(path.resolve())
    waiting = [name for name in chosen if path.exists() and following_pid(run.node(name))]
    for name in chosen:
        if name not in waiting:
            click.echo(f"{name}: does not follow: it is not running, or has taken over already")
    if not waiting:
        raise UserMistake("there is nothing to take over", remedy="is `fabric up` running, with the same config?")
    for name in waiting:
        content = json.loads((run.node(name) / FOLLOWS).read_bytes())
        (run.node(name) / TAKE_OVER).touch()
        for channel, at in content["channels"].items():
            click.echo(f"{name}: {channel} was at record {at['last']} of session {at['session']:016x}, {at['state']}")
    deadline_s = time.monotonic() + _WAIT_S
    while left := [name for name in waiting if following_pid(run.node(name))]:
        if time.monotonic() > deadline_s:
            raise FabricError(
                f"{', '.join(left)}: not taken over within {_WAIT_S:.0f} s",
                remedy="its output says why: nothing can be taken over before anything was followed",
            )
        time.sleep(_PAUSE_S)
    click.echo(f"{', '.join(waiting)}: taken over")
