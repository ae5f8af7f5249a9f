"""The log's memory ordering as a program of its own, plainly and under ThreadSanitizer; broken on purpose it must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("log_litmus.c")
NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def program(folder: Path, *flags: str) -> Path | None:
    """None if the compiler has no such thing as ``flags``."""
    binary = folder / "litmus"
    assert COMPILER is not None
    command = [COMPILER, "-O2", "-g", "-std=c11", "-D_GNU_SOURCE", "-Wno-tsan", *flags, f"-I{NATIVE}", str(SOURCE)]
    done = subprocess.run([*command, "-o", str(binary), "-lpthread"], capture_output=True, text=True, check=False)
    return binary if done.returncode == 0 else None


def run(binary: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    return subprocess.run([str(binary)], capture_output=True, text=True, timeout=120, env=environment, check=False)


def sanitized(folder: Path, *flags: str) -> Path:
    # a memcpy that gcc makes instructions of is not instrumented
    binary = program(folder, "-fsanitize=thread", "-fno-builtin-memcpy", *flags)
    if binary is None:
        pytest.skip("the compiler has no ThreadSanitizer")
    return binary


def test_nothing_is_torn_or_late(tmp_path):
    binary = program(tmp_path)
    assert binary is not None
    done = run(binary)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wake_up_that_is_left_out_is_noticed(tmp_path):
    binary = program(tmp_path, "-DBROKEN_WAKE")
    assert binary is not None
    assert run(binary).returncode == 1


def test_thread_sanitizer_finds_no_race(tmp_path):
    done = run(sanitized(tmp_path))
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's address layout")
    assert done.returncode == 0, done.stderr[:3000]


def test_a_commit_without_release_is_a_race(tmp_path):
    done = run(sanitized(tmp_path, "-DBROKEN_COMMIT"))
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run with this kernel's address layout")
    assert done.returncode == 66, done.stdout
    assert "data race" in done.stderr
