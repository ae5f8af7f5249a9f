"""docs/first-node.md, as printed, outside the repository, with nothing but the package built from its own sdist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "first-node.md").read_text(encoding="utf-8")

LOOP = """
import asyncio, sys
import fabric

async def main():
    async with fabric.connect("desk.toml") as client:
        seen = 0
        async for batch in client.subscribe("desk.trend", "desk.greeks", start="live"):
            seen += len(batch)
            if seen > 500:
                print("seen enough", flush=True)
                return

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(asyncio.wait_for(main(), 30))
else:
    asyncio.run(asyncio.wait_for(main(), 30))
"""


def run(folder: Path, *command: str | Path, timeout: float = 300.0) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "PYTEST"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=timeout, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of a fresh virtual environment that holds the package, installed from the wheel that its own sdist
    builds. What it depends on is taken from the environment of the tests, so that nothing has to be fetched."""
    folder = tmp_path_factory.mktemp("package")
    tools = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = "import setuptools.build_meta as backend, sys; print(backend.build_sdist(sys.argv[1]))"
    name = run(ROOT, sys.executable, "-c", build, folder).splitlines()[-1]
    wheel = [*tools, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / name]
    run(folder, *wheel)
    run(folder, sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(folder, *tools, "--python", python, "install", "--quiet", "--no-deps", next(folder.glob("*.whl")))
    own = Path(run(folder, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    dependencies = [path for path in sys.path if path.endswith("-packages") and Path(path).is_dir()]
    (own / "dependencies.pth").write_text("\n".join(dependencies))  # not what .pth files there add: no editable install
    where = run(folder, python, "-c", "import fabric, native, nodes; print(fabric.__file__, native.__file__)")
    assert str(ROOT) not in where
    return python


def test_the_guide(python: Path, tmp_path: Path) -> None:
    tools = {"python": python, "fabric": python.parent / "fabric"}
    said = {}
    for folder, block in re.findall(r"<!-- run(?:: (\S+))? -->\n```console\n(.*?)```", GUIDE, re.DOTALL):
        for line in block.splitlines():
            first, *rest = shlex.split(line.removeprefix("$ "))
            said[line] = run(tmp_path / folder, tools[first], *rest)
    assert "4 passed" in said["$ python -m pytest -q"]
    assert "trend: identical" in said["$ fabric play var/desk/latest --verify"]

    for file, content in re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", GUIDE, re.DOTALL):
        (tmp_path / file).write_text(content)
    desk = tmp_path / "desk"
    (desk / "loop.py").write_text(LOOP)
    with (desk / "up.txt").open("wb") as output:
        up = subprocess.Popen([tools["fabric"], "up", "desk.toml"], cwd=desk, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while "trends up to" not in (watched := run(desk, python, "watch.py")):
            assert time.monotonic() < deadline, watched
        assert "deviation" in watched
        assert "BTC-" in watched or "ETH-" in watched
        for loop in ("asyncio", "uvloop"):
            assert run(desk, python, "loop.py", loop) == "seen enough\n"
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(30) == 0, (desk / "up.txt").read_text()
        for logs in desk.glob("var/*/*/logs"):
            shutil.rmtree(logs.resolve(), ignore_errors=True)  # on tmpfs


def test_the_guide_shows_the_node_as_it_is() -> None:
    """The excerpt in the guide is that of the template."""
    template = (ROOT / "fabric" / "template" / "trend.py").read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "class Trend" in block)
    lines = [line.split("#")[0].rstrip() for line in template.splitlines()]
    for line in block.splitlines():
        assert line.rstrip() in lines, line
