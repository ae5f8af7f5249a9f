"""The ``fabric`` command: verbs, and errors as one line with an exit code (2: the user's mistake, 1: a failure)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from typing import Any

import click

from fabric.errors import FabricError, UserMistake

DISTRIBUTION = "zmq-market-fabric"
_VERBS = {
    "check": ("fabric.cli.config", "check"),
    "explain": ("fabric.cli.explain", "explain"),
    "new": ("fabric.cli.new", "new"),
    "up": ("fabric.cli.up", "up"),
    "run": ("fabric.cli.up", "run"),
    "takeover": ("fabric.cli.takeover", "takeover"),
    "fault": ("fabric.cli.fault", "fault"),
    "verify": ("fabric.cli.fault", "verify"),
    "top": ("fabric.cli.top", "top"),
    "tap": ("fabric.cli.tap", "tap"),
    "log": ("fabric.cli.log", "log"),
    "play": ("fabric.cli.play", "play"),
    "report": ("fabric.cli.report", "report"),
    "bench": ("fabric.cli.bench", "bench"),
    "completion": ("fabric.cli.completion", "completion"),
    "keygen": ("fabric.cli.keygen", "keygen"),
}


class Verbs(click.Group):
    """Loads a verb's module only when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        module, attribute = _VERBS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in _VERBS and not arguments[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(arguments[0], list(_VERBS), n=1)
            known = f"did you mean {close[0]!r}?" if close else f"verbs: {', '.join(_VERBS)}"
            raise click.UsageError(f"there is no verb {arguments[0]!r} ({known})")
        return super().resolve_command(context, arguments)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name=DISTRIBUTION)
def cli() -> None:
    """Market data over ZeroMQ that loses nothing in silence.

    CONFIG is a TOML file, by default $FABRIC_CONFIG.
    """


def foreign_packages() -> dict[str, list[str]]:
    """Top-level packages of ours that another distribution provides as well: name to those distributions."""
    owners = packages_distributions()
    found = {}
    for package in ("fabric", "native", "nodes"):
        others = sorted({name for name in owners.get(package, []) if name != DISTRIBUTION})
        if others:
            found[package] = others
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    sys.exit(run_cli(list(sys.argv[1:] if arguments is None else arguments)))


def run_cli(arguments: list[str]) -> int:
    """Returns the exit code; prints an error as one line, never a traceback for a user's mistake."""
    try:
        for package, others in foreign_packages().items():
            raise UserMistake(
                f"the package {package!r} is also installed by {', '.join(others)}",
                remedy=f"uninstall {others[0]}, or use a virtual environment of its own",
            )
        result: Any = cli.main(arguments, prog_name="fabric", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as `| head` does
        return 0
    except FabricError as error:
        click.echo(f"fabric: {error}", err=True)
        return error.exit_code


if __name__ == "__main__":
    main()
