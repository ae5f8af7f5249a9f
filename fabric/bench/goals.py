"""What ours is to reach: the smallest ratio to a peer, by program, case, ours and peer. Above 1, ours is better."""

from __future__ import annotations

GOALS: dict[tuple[str, str, str, str], float] = {}


def goal_of(program: str, title: str, ours: str, peer: str) -> float | None:
    return GOALS.get((program, title, ours, peer))
