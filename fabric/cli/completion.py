"""``fabric completion``: the shell's completion script; what it completes beyond verbs and options."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from fabric.errors import FabricError

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of SHELL (default: yours). For bash: eval "$(fabric completion bash)" in ~/.bashrc."""
    from fabric.cli.main import cli

    name = shell or Path(os.environ.get("SHELL", "")).name
    made = get_completion_class(name) if name in _SHELLS else None
    if made is None:
        raise click.UsageError(f"which shell? One of {', '.join(_SHELLS)}")
    click.echo(made(cli, {}, "fabric", "_FABRIC_COMPLETE").source())


def complete_config_and_channel(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """CONFIG is a file; what follows it is one of its channels."""
    given = context.params.get(parameter.name or "") or ()
    config = given[0] if given else os.environ.get("FABRIC_CONFIG")
    items = [] if given else [CompletionItem(incomplete, type="file")]
    if config:
        from fabric.client.endpoints import find_topology

        try:
            channels = sorted(find_topology(config).channels)
        except FabricError:
            return items
        items = [CompletionItem(name) for name in channels if name.startswith(incomplete)] + items
    return items
