"""Build of the Cython and C extensions; everything else about the project stands in pyproject.toml.

One extension module for each ``native/*.pyx``. C sources that belong to one are listed in ``C_SOURCES``. No
instruction set is assumed beyond the platform's baseline: code that wants more selects it at run time.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent
C_SOURCES = {
    "packet": ["native/crc32c_impl.c"],
    "follow": ["native/log_follow_impl.c"],
    "wire": ["native/crc32c_impl.c"],
}
COMPILE_ARGS = [
    "-O3",
    "-std=c11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-Wall",
    "-Wno-unused-function",
]
if os.environ.get("FABRIC_SANITIZE"):
    COMPILE_ARGS += ["-g", "-O1", "-fno-omit-frame-pointer", f"-fsanitize={os.environ['FABRIC_SANITIZE']}"]
# native/black_block_impl.c is compiled once for each: name, flags. black_dispatch_impl.c asks for just these features.
V3 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
BLACK_TARGETS = {
    "baseline": [],
    "v3": V3,
    "v4": [*V3, *(f"-mavx512{name}" for name in ("f", "bw", "cd", "dq", "vl"))],
}
if sys.platform == "win32":
    raise SystemExit("zmq-market-fabric runs on Linux and macOS; on Windows use it inside WSL2")


class BuildExt(build_ext):
    """Adds the pricing kernel's objects, one for each instruction set that the compiler and the platform know."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "native.black":
            ext.extra_objects = self.black_objects()
        super().build_extension(ext)

    def black_objects(self) -> list[str]:
        objects, macros = [], []
        for name, flags in BLACK_TARGETS.items():
            if flags and not (sysconfig.get_platform().endswith("x86_64") and self.accepts(flags)):
                continue
            folder = str(Path(self.build_temp) / name)
            objects += self.black_object("block", folder, [("BLACK_TARGET", name)], flags)
            macros.append((f"BLACK_HAVE_{name.upper()}", "1"))
        return objects + self.black_object("dispatch", self.build_temp, macros, [])

    def black_object(self, source: str, folder: str, macros: list[tuple[str, str]], flags: list[str]) -> list[str]:
        return self.compiler.compile(
            [f"native/black_{source}_impl.c"],
            output_dir=folder,
            macros=macros,
            include_dirs=["native"],
            extra_postargs=[*COMPILE_ARGS, *flags],
        )

    def accepts(self, flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "empty.c")
            source.write_text("int empty;\n")
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
            except CompileError:
                return False
        return True


def extensions() -> list[Extension]:
    found = []
    for pyx in sorted((ROOT / "native").glob("*.pyx")):
        name = pyx.stem
        found.append(
            Extension(
                f"native.{name}",
                [f"native/{name}.pyx", *C_SOURCES.get(name, [])],
                include_dirs=["native", numpy.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                extra_compile_args=COMPILE_ARGS,
                depends=[
                    f"native/{file.name}"
                    for kind in ("*.h", "*.pxi", "*_impl.c")
                    for file in (ROOT / "native").glob(kind)
                ],
            )
        )
    return found


setup(
    package_dir={"": "."},
    cmdclass={"build_ext": BuildExt},
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
