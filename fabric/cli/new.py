"""``fabric new``: a folder with a working config, a node of one's own and its test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
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
    """Write FOLDER: a config, a node with state, its test. It must be new, or empty."""
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} can't be a fabric's name", key="FOLDER", remedy="letters, digits, '_' and '-'")
    files = {file: _filled(file, name) for file in _FILES}
    files[f"{name}.toml"] = files.pop("desk.toml")
    files[".gitignore"] = _IGNORED
    try:
        _refuse(folder)
        _write(folder.resolve(), files)
    except OSError as error:
        raise UserMistake(f"can't write {folder}: {error.strerror or error}") from None
    click.echo(f"{folder}: {', '.join(sorted(files))}")
    click.echo(f"next: cd {folder}; python -m pytest; fabric up {name}.toml")


def _refuse(folder: Path) -> None:
    """Raises UserMistake for a folder that is not ours to fill, OSError."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserMistake(f"{folder} is a file", remedy="name a new folder")
    if folder.stat().st_mode & stat.S_ISVTX:
        raise UserMistake(f"{folder} is shared by all users", remedy=f"name a new folder, such as {folder / 'desk'}")
    if any(folder.iterdir()):
        raise UserMistake(f"{folder} is there already, and not empty", remedy="name a new folder")


def _write(folder: Path, files: dict[str, str]) -> None:
    """All of the files or, on a failure, none, and no folder that was not there before. Raises OSError."""
    made = [each for each in (folder.parent, *folder.parent.parents) if not each.exists()]
    fresh = not folder.exists()
    # A folder that is there stays the same one, for the shell that stands in it: then the files alone are moved.
    beside = folder.parent if fresh else folder
    temporary = beside / f".{folder.name}.{os.getpid()}"
    moved: list[Path] = []
    try:
        beside.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for file, content in files.items():
            (temporary / file).write_text(content, encoding="utf-8")
        if fresh:
            temporary.replace(folder)
            return
        for file in files:
            (temporary / file).replace(folder / file)
            moved.append(folder / file)
        temporary.rmdir()
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in moved:
            path.unlink(missing_ok=True)
        for path in made:  # the innermost one first
            with contextlib.suppress(OSError):  # it may not have been made
                path.rmdir()
        raise


def _filled(file: str, name: str) -> str:
    text = resources.files("fabric").joinpath("template", file).read_text(encoding="utf-8")
    if file.endswith(".py"):
        return text
    return re.sub(r"\bdesk\b", name, text)
