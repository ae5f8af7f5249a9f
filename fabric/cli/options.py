"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fabric.errors import ConfigError
from fabric.units import parse_duration_ns

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

config_argument: Decorator = click.argument("config", required=False)

set_option: Decorator = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a config value, e.g. nodes.feed.seed=9; relative paths are relative to the current folder.",
)

json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def duration(text: str | None, key: str) -> int:
    """Nanoseconds; 0 for None. Raises ConfigError."""
    if text is None:
        return 0
    try:
        return parse_duration_ns(text)
    except ValueError as error:
        raise ConfigError(str(error), key=key) from None
