"""How far to rely on what a reader holds: of the channel, and of each instrument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fabric
from fabric.client.condition import condition
from fabric.protocol.events import Lost
from fabric.protocol.types import Limits, State
from fabric.records import Flags

pytestmark = pytest.mark.system
PRICE = fabric.record("condition_price", image="last", value="u8")
LIVE, RECOVERING, STALE, LOST = (
    fabric.Condition.LIVE, fabric.Condition.RECOVERING, fabric.Condition.STALE, fabric.Condition.LOST,
)  # fmt: skip


@pytest.fixture(params=("local", "ipc"))
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_worst_that_holds() -> None:
    assert [*fabric.Condition] == [LOST, STALE, RECOVERING, LIVE], "worst first"
    for state in State:
        assert condition(state, stale=True, lost=True) == LOST
        assert condition(state, stale=True, lost=False) == (LIVE if state == State.ENDED else STALE)
    calm = {state: condition(state, stale=False, lost=False) for state in State}
    assert calm == {
        State.JOINING: RECOVERING, State.RECOVERING: RECOVERING, State.LIVE: LIVE, State.ENDED: LIVE,
        State.FAILED: STALE, State.CLOSED: STALE,
    }  # fmt: skip


def test_of_each_instrument_of_a_table(endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]) -> None:
    log_dir = tmp_path / "log"
    where = {"data": endpoints[0], "replay": endpoints[1], "path": endpoints.path}
    with fabric.connect() as client:
        with fabric.publish("prices", PRICE, listen=endpoints[0], replay=endpoints[1], log_dir=log_dir) as out:
            out.send(instrument=[1, 2, 3], value=[1, 2, 3])
            prices = client.table("prices", **where, limits=Limits(stale_ns=300_000_000))
            assert prices.state_of(1) is None or prices.state_of(1) == LIVE
            prices.wait_live(10)
            assert {prices.state_of(each) for each in (1, 2, 3)} == {LIVE}
            assert prices.condition == LIVE
            assert prices.state_of(9) is None

            out.send(instrument=2, value=4, flags=int(Flags.STALE))
            waiting(lambda: prices[2]["value"] == 4, "the stale record")
            assert [prices.state_of(each) for each in (1, 2, 3)] == [LIVE, STALE, LIVE]
            out.send(instrument=2, value=5)
            waiting(lambda: prices.state_of(2) == LIVE, "the fresh one")

            prices.feed.note(Lost(prices.feed.session, 4, 4, "for the test"))  # what the table does with one
            assert [prices.state_of(each) for each in (1, 2, 3)] == [LOST, LIVE, LOST]
            assert prices.condition == LOST
            out.send(instrument=[1, 3], value=[6, 7])
            waiting(lambda: prices.condition == LIVE, "newer records of each")
        waiting(lambda: prices.condition == STALE, "the silence to be noticed")
        assert {prices.state_of(each) for each in (1, 2, 3)} == {STALE}
        prices.close()
        assert prices.state_of(1) == prices.condition == STALE


def test_of_a_subscription(endpoints: Any, tmp_path: Path, waiting: Callable[..., Any]) -> None:
    """A packet that nobody can replay any more: LOST from where the reader is told, until the newer session."""
    where = {"data": endpoints[0], "replay": endpoints[1], "path": endpoints.path}
    told: list[Lost] = []
    with fabric.publish("prices", PRICE, listen=endpoints[0], replay=endpoints[1], log_dir=tmp_path / "log") as out:
        with fabric.subscribe("prices", **where, start="live", on_lost=told.append) as prices:
            assert prices.condition in (RECOVERING, LIVE), "joined or not yet"
            prices.wait_live(10)
            assert prices.condition == LIVE
            feed = prices.feeds["prices"]
            out.send(value=1)
            assert prices.poll(timeout=10) is not None
            prices._interpret(feed, Lost(feed.session, 2, 3, "for the test"), stale=False)
            assert told
            assert prices.condition == LOST
        assert prices.condition == LOST, "closed, and still"
