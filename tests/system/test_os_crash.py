"""The operating system dies: the publisher's log lacks its last pages. A new session says where it forked off, and a reader
that had more is told so, exactly there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.errors import RecordsLost
from fabric.log.segments import segment_files

pytestmark = pytest.mark.system

NUMBER = fabric.record("number", value="u8")
PUBLISHER = """
import sys, fabric, numpy as np
record = fabric.record("number", value="u8")
data, replay, log = sys.argv[1:4]
out = fabric.publish("numbers", record, listen=data, replay=replay, log_dir=log)
for line in sys.stdin:  # each line: publish up to this sequence
    while out.next <= int(line):
        out.send(value=np.arange(out.next, min(out.next + 9, int(line)) + 1))
    print(out.session, flush=True)
"""
HAD, PAGES_LOST = 20_000, 3


@pytest.fixture(params=("ipc", "tcp"))
def path(request: pytest.FixtureRequest) -> str:
    """A reader that outlives the publisher's host reads packets."""
    return str(request.param)


def start(endpoints: tuple[str, str], log: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISHER, *endpoints, str(log)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def publish_to(process: subprocess.Popen[str], upto: int) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{upto}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def crash(process: subprocess.Popen[str], log: Path) -> int:
    """Power off: the last pages of the log had not been written, the control page had. Returns the last whole event."""
    process.kill()
    process.communicate()
    control = (log / "current" / "control").resolve()
    content = bytearray(control.read_bytes())
    content[80:96] = b"the boot before!"
    control.write_bytes(content)
    begin, segment = [each for each in segment_files((log / "current").resolve()) if each[0] <= HAD][-1]
    records = bytearray(segment.read_bytes())
    used = (HAD - begin + 1) * NUMBER.size
    cut = max(0, used - PAGES_LOST * 4096) // 4096 * 4096
    records[cut:used] = bytes(used - cut)
    segment.write_bytes(records)
    whole = begin - 1 + cut // NUMBER.size
    return whole - whole % 10


def test_readers_beyond_the_fork_are_told(endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]) -> None:
    log = tmp_path / "log"
    first = start(endpoints, log)
    with fabric.subscribe(
        "numbers", data=endpoints[0], replay=endpoints[1], record=NUMBER, start="first", path=endpoints.path
    ) as reader:
        try:
            old = publish_to(first, HAD)
            got = 0
            while got < HAD:
                batch = reader.poll(timeout=20)
                assert batch is not None
                assert batch.first == got + 1
                got = batch.last
        finally:
            fork = crash(first, log)
        assert 0 < fork < HAD
        second = start(endpoints, log)
        try:
            new = publish_to(second, 500)
            assert new >> 32 > old >> 32
            with pytest.raises(RecordsLost, match="the new session forked off before them") as told:
                reader.poll(timeout=20)
            assert (told.value.first, told.value.last) == (fork + 1, HAD)
            values: list[int] = []
            while len(values) < 500:
                batch = reader.poll(timeout=20)
                assert batch is not None
                assert batch.session == new
                values += batch.records["value"].tolist()
            assert values == list(np.arange(1, 501))
            control = fabric.open_log(log).control
            assert (control.parent_session, control.fork_sequence) == (old, fork)
        finally:
            second.kill()
            second.communicate()
