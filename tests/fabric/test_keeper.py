"""Files written beside the duty cycle."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fabric.runtime import keeper as module
from fabric.runtime.keeper import Keeper

DEADLINE_S = 10.0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that takes nothing until this is set."""
    ready, write = threading.Event(), module.write_atomically

    def late(path: Path, content: bytes) -> None:
        assert ready.wait(DEADLINE_S)
        write(path, content)

    monkeypatch.setattr(module, "write_atomically", late)
    return ready


def test_a_disk_that_waits_does_not_hold_anybody_up(disk: threading.Event, tmp_path: Path) -> None:
    keeper, told = Keeper(), []
    keeper.keep({tmp_path / "a": b"1", tmp_path / "b": b"2"}, told.append)
    keeper.look()
    assert (keeper.busy, told) == (True, [])
    disk.set()
    keeper.settle()
    assert (keeper.busy, told) == (False, [None])
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"1", b"2"]
    keeper.keep({tmp_path / "a": b"3"}, told.append)
    keeper.close()
    keeper.close()
    assert told == [None, None]
    assert (tmp_path / "a").read_bytes() == b"3"


def test_who_asked_is_told_in_his_own_thread_and_only_when_he_looks(disk: threading.Event, tmp_path: Path) -> None:
    keeper, threads = Keeper(), []
    keeper.keep({tmp_path / "a": b"1"}, lambda error: threads.append(threading.current_thread()))
    disk.set()
    assert keeper._written.wait(DEADLINE_S)
    assert threads == []
    keeper.look()
    keeper.look()
    assert threads == [threading.current_thread()]
    keeper.close()


def test_what_can_not_be_written_is_told_and_what_follows_is_not_written(tmp_path: Path) -> None:
    keeper, told = Keeper(), []
    keeper.keep({tmp_path / "none" / "a": b"1", tmp_path / "b": b"2"}, told.append)
    keeper.settle()
    assert isinstance(told[0], FileNotFoundError)
    assert list(tmp_path.iterdir()) == []
    keeper.keep({tmp_path / "b": b"2"}, told.append)
    keeper.close()
    assert told[1] is None
