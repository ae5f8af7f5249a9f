"""Build of the Cython and C extensions; everything else about the project stands in pyproject.toml.

One extension module for each ``native/*.pyx``. C sources that belong to one are listed in ``C_SOURCES``. No
instruction set is assumed beyond the platform's baseline: code that wants more selects it at run time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
C_SOURCES = {
    "packet": ["native/crc32c_impl.c"],
    "log": [],
}
COMPILE_ARGS = ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wno-unused-function"]
if os.environ.get("FABRIC_SANITIZE"):
    COMPILE_ARGS += ["-g", "-O1", "-fno-omit-frame-pointer", f"-fsanitize={os.environ['FABRIC_SANITIZE']}"]
if sys.platform == "win32":
    raise SystemExit("zmq-market-fabric runs on Linux and macOS; on Windows use it inside WSL2")


def extensions() -> list[Extension]:
    found = []
    for pyx in sorted((ROOT / "native").glob("*.pyx")):
        name = pyx.stem
        found.append(
            Extension(
                f"native.{name}",
                [f"native/{name}.pyx", *C_SOURCES.get(name, [])],
                include_dirs=["native"],
                extra_compile_args=COMPILE_ARGS,
                depends=[f"native/{header.name}" for header in (ROOT / "native").glob("*.h")],
            )
        )
    return found


setup(
    package_dir={"": "."},
    ext_modules=cythonize(
        extensions(),
        language_level=3,
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "freethreading_compatible": False,
        },
        nthreads=0,
        quiet=True,
    ),
)
