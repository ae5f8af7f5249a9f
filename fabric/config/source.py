"""Reading config values with the place that each one came from."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fabric.errors import ConfigError

CONFIG_VARIABLE = "FABRIC_CONFIG"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file's name or ``--set``, and the folder that its relative paths start from."""

    name: str
    base: Path


@dataclass(slots=True)
class Source:
    """Merged values, and for each dotted key where it came from (``origin`` finds the nearest)."""

    file: Path
    values: dict[str, Any]
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)

    def origin(self, *path: str) -> Origin:
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return Origin(str(self.file), self.file.parent)

    def error(self, message: str, *path: str, remedy: str = "") -> ConfigError:
        """A ConfigError that names file and key."""
        return ConfigError(message, file=self.origin(*path).name, key=dotted(path), remedy=remedy)


def dotted(path: tuple[str, ...]) -> str:
    return ".".join(f'"{part}"' if "." in part or not part else part for part in path)


def read_source(config: str | Path | None, settings: tuple[str, ...] = ()) -> Source:
    """Read a config file (default: ``$FABRIC_CONFIG``) and apply ``--set KEY=VALUE`` settings. Raises ConfigError."""
    if config is None:
        config = os.environ.get(CONFIG_VARIABLE) or ""
        if not config:
            raise ConfigError(
                "no config given", remedy=f"name a TOML file on the command line or in ${CONFIG_VARIABLE}"
            )
    file = Path(config)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("there is no such file", file=str(file), remedy="check the path") from None
    except IsADirectoryError:
        raise ConfigError("is a directory", file=str(file), remedy="name the TOML file in it") from None
    except OSError as error:
        raise ConfigError(f"can't be read: {error.strerror}", file=str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", file=str(file)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}", file=str(file)) from None
    source = Source(file, values)
    # A node's module may stand beside the config that names it.
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    for setting in settings:
        _apply(source, setting)
    return source


def _apply(source: Source, setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{setting!r} is not KEY=VALUE", file="--set", remedy="for example nodes.feed.seed=7")
    try:
        parsed = tomllib.loads(f"{key} = {text}")
    except tomllib.TOMLDecodeError:
        try:  # a bare string is welcome where it is no TOML value
            parsed = tomllib.loads(f"{key} = {_toml_string(text)}")
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(
                f"{setting!r}: {error}", file="--set", remedy="write KEY=VALUE in TOML's syntax"
            ) from None
    path: tuple[str, ...] = ()
    names: Any = tomllib.loads(f"{key} = 0")  # the key alone: what follows = may be a table too
    target, value = source.values, parsed
    while isinstance(names, dict):
        name = next(iter(names))
        path, names, value = (*path, name), names[name], value[name]
        if not isinstance(names, dict):
            target[name] = value
        elif not isinstance(target.setdefault(name, {}), dict):
            raise ConfigError("is a value, not a table", file="--set", key=dotted(path))
        else:
            target = target[name]
    source.origins[path] = Origin("--set", Path.cwd())


def _toml_string(text: str) -> str:
    escaped = text.strip().replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_known(source: Source, table: dict[str, Any], known: list[str], *path: str) -> None:
    """Raises ConfigError for the first key that is not known, with a suggestion."""
    for name in table:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise source.error("is not a known key", *path, name, remedy=remedy)
