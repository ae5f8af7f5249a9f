"""The config as a run uses it: kept in the run's directory, so that editing the file does not change a running fabric."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fabric.config.load import topology_of
from fabric.config.source import Origin, Source
from fabric.config.topology import Topology
from fabric.errors import LogMissing
from fabric.log.paths import write_atomically

SAVED = "config.json"


def save_source(directory: Path, source: Source) -> None:
    origins = [[list(path), origin.name, str(origin.base)] for path, origin in source.origins.items()]
    origins.append([[], str(source.file), str(source.file.resolve().parent)])
    content = {"file": str(source.file.resolve()), "values": source.values, "origins": origins}
    write_atomically(directory / SAVED, json.dumps(content).encode())


def load_saved(directory: Path) -> Topology:
    """The topology of a run. Raises LogMissing if the directory is not a run's."""
    try:
        content = json.loads((directory / SAVED).read_bytes())
    except (OSError, ValueError):
        raise LogMissing("is not a run directory", path=directory, remedy="runs are in <data_dir>/<fabric>/") from None
    folder = str(Path(content["file"]).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    origins = {tuple(path): Origin(name, Path(base)) for path, name, base in content["origins"]}
    return topology_of(Source(Path(content["file"]), content["values"], origins))
