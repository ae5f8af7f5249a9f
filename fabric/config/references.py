"""Values that stand elsewhere: ``{ env = "NAME" }`` and ``{ file = "path" }``."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.config.source import Source
from fabric.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference led to. ``place`` says where: ``env NAME`` or ``file PATH``."""

    value: Any
    place: str
    is_text: bool = True
    """False for a ``default``, which is a TOML value already."""
    path: Path | None = None


def look_up(source: Source, reference: dict[str, Any], *path: str) -> Found:
    """Raises ConfigError if the variable is not set, or the file can't be read."""
    if "file" in reference:
        return _read(source, reference["file"], *path)
    name = reference["env"]
    if name in os.environ:
        return Found(os.environ[name], f"env {name}")
    if "default" in reference:
        return Found(reference["default"], f"default of env {name}", is_text=False)
    raise source.error(
        f"the environment variable {name} is not set", *path, remedy=f"set {name}, or give the reference a default"
    )


def _read(source: Source, name: str, *path: str) -> Found:
    file = source.origin(*path).base / name
    try:
        return Found(file.read_text(encoding="utf-8").strip(), f"file {file}", path=file)
    except FileNotFoundError:
        message = f"there is no file {file}"
    except OSError as error:
        message = f"{file} can't be read: {error.strerror}"
    except UnicodeDecodeError:
        message = f"{file} is not UTF-8 text"
    raise source.error(message, *path, remedy="the path is relative to the config file that it stands in") from None


def parse_text(source: Source, found: Found, expected: str, *path: str) -> Any:
    """The TOML value that a text is, for keys that are no strings. Raises ConfigError."""
    try:
        return tomllib.loads(f"value = {found.value}")["value"]
    except tomllib.TOMLDecodeError:
        shown = repr(found.value) if len(found.value) <= 40 else f"{found.value[:40]!r}…"
        raise source.error(
            f"{found.place} holds {shown}, not {expected}", *path, remedy="write it as in TOML, such as 5, 0.5 or true"
        ) from None


def no_literal(source: Source, *path: str) -> ConfigError:
    """The error for a secret that is written out; it does not repeat it."""
    return source.error(
        "is a secret, and secrets are not written into configs or command lines, where others read them",
        *path,
        remedy='write { env = "NAME" } or { file = "path" }',
    )
