"""Reading config values with the place that each one came from."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fabric.config.lines import lines_of
from fabric.errors import ConfigError

CONFIG_VARIABLE = "FABRIC_CONFIG"
EXTENDS = "extends"
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file or ``--set``, its line (0: not known), and where its relative paths start."""

    name: str
    base: Path
    line: int = 0

    @property
    def place(self) -> str:
        """``desk.toml:12``."""
        return f"{self.name}:{self.line}" if self.line else self.name


@dataclass(slots=True)
class Source:
    """Merged values, and for each key where it came from (``origin`` finds the nearest)."""

    file: Path
    values: dict[str, Any]
    origins: dict[Keys, Origin] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    """Of the files read: a node's module may stand beside the config that names it."""
    resolved: dict[Keys, tuple[Any, str]] = field(default_factory=dict)
    """Values that came from the environment or a file, and from which. Never a secret."""

    def origin(self, *path: str) -> Origin:
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return Origin(str(self.file), self.file.parent)

    def error(self, message: str, *path: str, remedy: str = "") -> ConfigError:
        """A ConfigError that names file, line and key."""
        return ConfigError(message, file=self.origin(*path).place, key=dotted(path), remedy=remedy)

    def has(self, *path: str) -> bool:
        """Is the key written anywhere, or is it left to its default?"""
        value: Any = self.values
        for name in path:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return True


def dotted(path: Keys) -> str:
    return ".".join(f'"{part}"' if "." in part or not part else part for part in path)


def is_reference(value: Any) -> bool:
    """``{ env = "NAME" }``, with or without ``default``, or ``{ file = "path" }``."""
    if not isinstance(value, dict):
        return False
    names = set(value)
    return (names in ({"env"}, {"env", "default"}) and isinstance(value["env"], str)) or (
        names == {"file"} and isinstance(value["file"], str)
    )


def read_source(config: str | Path | None, settings: tuple[str, ...] = ()) -> Source:
    """Read a config file (default: ``$FABRIC_CONFIG``) and what it extends, and apply ``--set KEY=VALUE`` settings.
    Raises ConfigError."""
    if config is None:
        config = os.environ.get(CONFIG_VARIABLE) or ""
        if not config:
            raise ConfigError(
                "no config given", remedy=f"name a TOML file on the command line or in ${CONFIG_VARIABLE}"
            )
    source = Source(Path(config), {})
    _read_into(source, Path(config), ())
    for setting in settings:
        _apply(source, setting)
    add_folders(source.folders)
    return source


def add_folders(folders: Iterable[str]) -> None:
    """Let Python find modules that stand beside a config."""
    sys.path.extend(folder for folder in folders if folder not in sys.path)


def _read_into(source: Source, file: Path, trail: tuple[Path, ...]) -> None:
    """Merge a file into the source, after all that it extends."""
    text, values = _parse(file)
    here = file.resolve()
    lines = lines_of(text)
    extends = values.pop(EXTENDS, [])
    names = [extends] if isinstance(extends, str) else extends
    place = Origin(str(file), file.parent, lines.get((EXTENDS,), 0)).place
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("is not a file's path or a list of them", file=place, key=EXTENDS)
    for name in names:
        base = file.parent / name
        chain = (*trail, here)
        if base.resolve() in chain:
            loop = [*chain[chain.index(base.resolve()) :], base.resolve()]
            raise ConfigError(
                f"files extend one another in a cycle: {' -> '.join(each.name for each in loop)}",
                file=place,
                key=EXTENDS,
                remedy="move what they share into a file that extends none of them",
            )
        if not base.exists():
            raise ConfigError(
                f"there is no file {base}", file=place, key=EXTENDS, remedy="paths are relative to the file they are in"
            )
        _read_into(source, base, chain)
    if str(here.parent) not in source.folders:
        source.folders.append(str(here.parent))
    _merge(source, source.values, values, Origin(str(file), file.parent), lines, ())


def _parse(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
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


def _merge(
    source: Source,
    below: dict[str, Any],
    above: dict[str, Any],
    origin: Origin,
    lines: dict[Keys, int],
    path: Keys,
) -> None:
    """Tables merge, all else replaces; a reference is a value and not a table."""
    for name, value in above.items():
        here = (*path, name)
        old = below.get(name)
        inner = (number for each, number in lines.items() if each[: len(here)] == here)  # limits.BTC = … has no limits
        line = (
            lines.get(here, 0)
            or min(inner, default=0)
            or (source.origins[path].line if source.origins.get(path) else 0)
        )
        if isinstance(value, dict) and not is_reference(value):
            if not isinstance(old, dict) or is_reference(old):
                _forget(source, here)
                below[name] = {}
            source.origins[here] = Origin(origin.name, origin.base, line)
            _merge(source, below[name], value, origin, lines, here)
        else:
            _forget(source, here)
            below[name] = value
            source.origins[here] = Origin(origin.name, origin.base, line)


def _forget(source: Source, path: Keys) -> None:
    """A value is replaced: where the parts of the old one came from does not matter any more."""
    for each in [each for each in source.origins if each[: len(path)] == path]:
        del source.origins[each]


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
            raise ConfigError(f"{key!r}: {error}", file="--set", remedy="write KEY=VALUE in TOML's syntax") from None
    path: Keys = ()
    names: Any = tomllib.loads(f"{key} = 0")  # the key alone: what follows = may be a table too
    target, value = source.values, parsed
    while isinstance(names, dict):
        name = next(iter(names))
        path, names, value = (*path, name), names[name], value[name]
        if isinstance(names, dict) and is_reference(target.get(name)):
            target[name] = {}  # a reference is a value: another takes its place
        if not isinstance(names, dict):
            target[name] = value
        elif not isinstance(target.setdefault(name, {}), dict):
            raise ConfigError("is a value, not a table", file="--set", key=dotted(path))
        else:
            target = target[name]
    if path == (EXTENDS,):
        raise ConfigError("can't be set here", file="--set", key=EXTENDS, remedy="write it into the file")
    _forget(source, path)
    source.origins[path] = Origin("--set", Path.cwd())


def _toml_string(text: str) -> str:
    escaped = text.strip().replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_known(source: Source, table: dict[str, Any], known: Iterable[str], *path: str) -> None:
    """Raises ConfigError for the first key that is not known, with a suggestion."""
    names = list(known)
    for name in table:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(names))}"
            raise source.error("is not a known key", *path, name, remedy=remedy)
