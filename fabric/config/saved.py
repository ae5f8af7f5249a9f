"""The config as a run uses it: kept in the run's directory, so that editing the file does not change a running fabric."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from fabric.config.load import topology_of
from fabric.config.source import Origin, Source, add_folders
from fabric.config.topology import Topology
from fabric.errors import LogMissing
from fabric.log.paths import write_atomically

SAVED = "config.json"


def save_source(directory: Path, source: Source) -> None:
    """What came from the environment or a file is kept as it was, but for secrets: of those only the reference is kept,
    and each process looks it up again."""
    values = copy.deepcopy(source.values)
    for path, (value, _) in source.resolved.items():
        table: Any = values
        for name in path[:-1]:
            table = table[name]
        table[path[-1]] = value
    folders = sorted({origin.base for origin in source.origins.values()} | {source.file.parent})
    numbers = {folder: number for number, folder in enumerate(folders)}
    origins = [[list(path), each.name, numbers[each.base], each.line] for path, each in source.origins.items()]
    content = {
        "file": str(source.file.resolve()),
        "folders": [str(folder.resolve()) for folder in folders],
        "modules": source.folders,
        "values": values,
        "origins": origins,
    }
    write_atomically(directory / SAVED, json.dumps(content).encode())


def load_saved(directory: Path) -> Topology:
    """The topology of a run. Raises LogMissing if the directory is not a run's."""
    try:
        content = json.loads((directory / SAVED).read_bytes())
    except (OSError, ValueError):
        raise LogMissing("is not a run directory", path=directory, remedy="runs are in <data_dir>/<fabric>/") from None
    folders = [Path(folder) for folder in content["folders"]]
    origins = {tuple(path): Origin(name, folders[number], line) for path, name, number, line in content["origins"]}
    add_folders(content["modules"])
    return topology_of(Source(Path(content["file"]), content["values"], origins, content["modules"]))
