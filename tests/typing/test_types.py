"""The client's types as mypy and pyright see them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = "tests/typing/client_types.py"


def test_mypy(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path),
        "--follow-imports=silent",
        EXAMPLES,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright(tmp_path: Path) -> None:
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed (make lint installs it)")
    config = tmp_path / "pyrightconfig.json"
    config.write_text(
        f'{{"include": ["{ROOT / EXAMPLES}"], "extraPaths": ["{ROOT}"], "typeCheckingMode": "strict", '
        '"enableTypeIgnoreComments": true, "reportUnnecessaryTypeIgnoreComment": "error", '
        '"reportUnusedExpression": "none", "reportUnusedFunction": "none", "reportUnusedCoroutine": "none"}'
    )
    command = [sys.executable, "-m", "basedpyright", "-p", str(config), "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
