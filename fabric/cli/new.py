"""``fabric new``: a folder with a working config, a node of one's own and its test."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import click

from fabric.errors import ConfigError, UserMistake

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FILES = ("desk.toml", "trend.py", "test_trend.py", "README.md")
_IGNORED = "var/\n__pycache__/\n.pytest_cache/\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Write FOLDER: a config, a node with state, its test. Nothing that is there already is touched."""
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} can't be a fabric's name", key="FOLDER", remedy="letters, digits, '_' and '-'")
    files = {file: _filled(file, name) for file in _FILES}
    files[f"{name}.toml"] = files.pop("desk.toml")
    files[".gitignore"] = _IGNORED
    there = [file for file in files if (folder / file).exists()]
    if there:
        raise UserMistake(f"{folder / there[0]} is there already", remedy="name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"can't write {folder}: {error.strerror or error}") from None
    click.echo(f"{folder}: {', '.join(sorted(files))}")
    click.echo(f"next: cd {folder}; python -m pytest; fabric up {name}.toml")


def _filled(file: str, name: str) -> str:
    text = resources.files("fabric").joinpath("template", file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        return text
    return re.sub(r"\bdesk\b", name, text)
