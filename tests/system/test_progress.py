"""A reader that begins far back is told how far it has come. (A mapped log is there at once: views of it.)"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fabric
from fabric.client import intake
from fabric.protocol import progress
from fabric.protocol.types import Limits, State

pytestmark = pytest.mark.system
NUMBER = fabric.record("far_back", value="u8")
RECORDS = 120_000
LIMITS = Limits(max_queued_records=9_000)


@pytest.fixture(params=("ipc", "tcp"))
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the reader's own pace is what counts."""
    monkeypatch.setattr(intake, "QUEUE_RECORDS", 2_000)
    monkeypatch.setattr(progress, "WORTH_TELLING_RECORDS", 50_000)


def test_position_target_rate_and_time_left(endpoints: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fabric.client")
    listen, replay = endpoints
    with fabric.publish("numbers", NUMBER, listen=listen, replay=replay, log_dir=tmp_path / "log") as out:
        for first in range(0, RECORDS, 1000):
            out.send(value=np.arange(first, first + 1000))
        with fabric.subscribe(
            "numbers", data=listen, replay=replay, path=endpoints.path, start="first", limits=LIMITS
        ) as reader:
            seen, received = [], 0
            while received < RECORDS:
                batch = reader.poll(500, timeout=20.0)
                assert batch is not None
                received += len(batch.records)
                if (now := reader.progress) is not None:
                    seen.append(now)
                    assert now.begun <= now.position <= now.target <= RECORDS
            reader.wait_live(timeout=20.0)
            assert reader.state is State.LIVE
            assert seen
            assert max(now.target for now in seen) == RECORDS
            assert seen[-1].position > seen[0].position
            assert any(now.rate > 0 and now.left_s is not None for now in seen)
            while reader.progress is not None:  # until whoever turns the hub has looked once more
                reader.poll(timeout=0.01)
    told = [record.getMessage() for record in caplog.records if "catching up" in record.getMessage()]
    over = [record.getMessage() for record in caplog.records if "caught up" in record.getMessage()]
    assert (len(told), len(over)) == (1, 1), caplog.text
