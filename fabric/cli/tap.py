"""``fabric tap``: see a channel's records as they pass."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from fabric.cli.options import json_option
from fabric.client import subscribe
from fabric.config.source import CONFIG_VARIABLE
from fabric.errors import ConfigError
from fabric.protocol.events import Lost


@click.command()
@click.argument("arguments", nargs=-1, metavar="[CONFIG|RUN_DIR] CHANNEL")
@click.option("--start", default="snapshot", help='"snapshot", "first", "live" or a sequence.')
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many records.")
@click.option("--for", "seconds", type=float, default=None, help="End after so many seconds.")
@click.option("--symbols", multiple=True, help='Only instruments that match, e.g. "BTC-*".')
@json_option
def tap(
    arguments: tuple[str, ...],
    start: str,
    count: int,
    seconds: float | None,
    symbols: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print a channel's records, a line each; lost records are told where they are missing."""
    config, channel = _split(arguments)
    begin: str | int = int(start) if start.isdecimal() else start
    left = count or -1

    def lost(event: Lost) -> None:
        click.echo(f"# lost {event.first} to {event.last}: {event.reason}", err=True)

    from time import monotonic

    deadline = None if seconds is None else monotonic() + seconds
    with subscribe(channel, config=config, symbols=symbols or None, start=begin, on_lost=lost) as subscription:
        subscription.wait_live(timeout=5.0 if seconds is None else min(5.0, max(seconds, 0.1)))
        while left != 0:
            remaining = None if deadline is None else deadline - monotonic()
            if remaining is not None and remaining <= 0:
                break
            batch = subscription.poll(timeout=remaining)
            if batch is None:
                break
            for sequence, row in zip(batch.sequences.tolist(), batch.records, strict=True):
                click.echo(_line(sequence, row, as_json))
                left -= 1
                if left == 0:
                    break


def _split(arguments: tuple[str, ...]) -> tuple[str | None, str]:
    if len(arguments) == 2:
        return arguments[0], arguments[1]
    if len(arguments) == 1 and not Path(arguments[0]).is_file():
        if not os.environ.get(CONFIG_VARIABLE):
            raise ConfigError("no config given", remedy=f"fabric tap CONFIG {arguments[0]}, or set ${CONFIG_VARIABLE}")
        return None, arguments[0]
    raise click.UsageError("give a config (or set $FABRIC_CONFIG) and one channel")


def _line(sequence: int, row: Any, as_json: bool) -> str:
    values = {name: _plain(row[name]) for name in row.dtype.names}
    if as_json:
        return json.dumps({"sequence": sequence, **values})
    shown = (f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items())
    body = " ".join(shown).replace("=None", "=nan")
    return f"{sequence} {body}"


def _plain(value: Any) -> Any:
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, bytes):
        return plain.decode("ascii", "replace")
    return None if plain != plain else plain  # JSON has no NaN
