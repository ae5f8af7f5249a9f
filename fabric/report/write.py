"""Files of reports: the name's end decides, .html or .htm is the page, anything else JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fabric.errors import ConfigError
from fabric.log.paths import write_atomically


def check_report_file(file: Path, key: str = "--report") -> None:
    """Before a run, that its report can be written afterwards. Raises ConfigError."""
    folder = file.resolve().parent
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}", key=key)
    if file.is_dir():
        raise ConfigError(f"{file} is a folder", key=key, remedy="name a file in it")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"can't write into {folder}", key=key)


def write_report(file: Path, run: Path, report: dict[str, Any], key: str = "--report") -> None:
    """Write the report of the run in directory ``run`` whole or not at all. Raises ConfigError, LogMissing."""
    if file.suffix.lower() in (".html", ".htm"):
        from fabric.report.page import render
        from fabric.report.view import RunView

        content = render(RunView(run, report))
    else:
        content = json.dumps(report, indent=2)
    try:
        write_atomically(file, content.encode())
    except OSError as error:
        raise ConfigError(f"can't write {file}: {error.strerror}", key=key) from None
