"""Compile and run the litmus programs of the log's memory ordering, plainly and under ThreadSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILER = shutil.which(os.environ.get("CC", "cc"))
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
RACE = 66
"""What a program exits with when ThreadSanitizer has found a race."""


def program(folder: Path, sources: tuple[Path, ...], *flags: str) -> Path | None:
    """None if the compiler has no such thing as ``flags``."""
    binary = folder / "litmus"
    assert COMPILER is not None
    command = [COMPILER, "-O2", "-g", "-std=c11", "-Wno-tsan", *flags, f"-I{NATIVE}", *map(str, sources)]
    done = subprocess.run([*command, "-o", str(binary), "-lpthread"], capture_output=True, text=True, check=False)
    return binary if done.returncode == 0 else None


def run(binary: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": f"halt_on_error=1 exitcode={RACE}"}
    done = subprocess.run([str(binary)], capture_output=True, text=True, timeout=120, env=environment, check=False)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's address layout")
    return done


def sanitized(folder: Path, sources: tuple[Path, ...], *flags: str) -> Path:
    """Built for ThreadSanitizer."""
    # a memcpy that gcc makes instructions of is not instrumented
    binary = program(folder, sources, "-fsanitize=thread", "-fno-builtin-memcpy", *flags)
    if binary is None:
        pytest.skip("the compiler has no ThreadSanitizer")
    return binary
