"""Turns of replays: fair between clients whatever they ask for, and never above the rate."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from fabric.transport.turns import MOST_OF_A_CLIENT, Turns

SECOND_NS = 1_000_000_000
PART = 65_536


@dataclass
class Parts:
    name: str
    left: int


def carried(turns: Turns[Parts], now_ns: int, most: int = 1 << 30) -> list[str]:
    """What goes out at this moment, part by part."""
    sent: list[str] = []
    while len(sent) < most and (turn := turns.next(now_ns)) is not None:
        client, replay = turn
        replay.left -= 1
        sent.append(replay.name)
        if not replay.left:
            turns.done(client)
        turns.sent(client, PART)
    return sent


def test_a_long_replay_holds_up_nobody() -> None:
    turns: Turns[Parts] = Turns()
    turns.add(b"a", Parts("long", 1000))
    assert carried(turns, 0, 3) == ["long"] * 3
    turns.add(b"b", Parts("short", 2))
    turns.add(b"c", Parts("other", 1))
    assert carried(turns, 0, 5) == ["long", "short", "other", "long", "short"]
    assert set(carried(turns, 0)) == {"long"}
    assert turns.wait_ns(0) is None
    assert len(turns) == 0


def test_replays_of_one_client_go_out_one_after_the_other_and_are_bounded() -> None:
    turns: Turns[Parts] = Turns()
    for number in range(MOST_OF_A_CLIENT + 2):
        turns.add(b"a", Parts(str(number), 2))
    turns.add(b"b", Parts("b", 3))
    assert carried(turns, 0, 6) == ["2", "b", "2", "b", "3", "b"]
    turns.drop(b"a")
    assert turns.next(0) is None


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_equal_and_the_rate_is_kept(seed: int) -> None:
    generator = random.Random(seed)
    print("seed", seed)
    rate = generator.choice((1 << 20, 10 << 20, 100 << 20))
    turns: Turns[Parts] = Turns(rate)
    clients = [f"c{number}" for number in range(generator.randrange(2, 6))]
    for name in clients:
        turns.add(name.encode(), Parts(name, 1 << 20))
    sent: Counter[str] = Counter()
    now_ns = 10**12
    began_ns = now_ns
    while now_ns < began_ns + SECOND_NS:
        sent.update(carried(turns, now_ns))
        assert max(sent.values()) - min(sent[name] for name in clients) <= 1
        wait_ns = turns.wait_ns(now_ns)
        assert wait_ns
        now_ns += wait_ns if generator.random() < 0.7 else generator.randrange(1, 2 * wait_ns)
    total = sent.total() * PART
    allowed = rate * (now_ns - began_ns) // SECOND_NS + max(PART, rate // 20)
    assert 0.8 * rate <= total <= allowed + PART  # the last part may be begun with little left
