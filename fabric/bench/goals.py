"""What ours is to reach: the smallest ratio to a peer, by program, case, ours and peer. Above 1, ours is better.

Latencies of blocking readers on one CPU are compared from the sender's call: how long the kernel takes to wake a sender
that sleeps until its next record is due, here up to 50 us, would stand in both, and be no library's.
"""

from __future__ import annotations

_BLOCKING, _SPINNING = "same-cpu blocking", "two-cpu spinning"
GOALS: dict[tuple[str, str, str, str], float] = {
    ("latency", _SPINNING, "ours local", "pyzmq ipc"): 7.0,
    ("latency", _SPINNING, "ours local", "iceoryx2"): 1 / 0.6,
    ("latency", _BLOCKING, "ours local", "pyzmq ipc"): 1 / 0.4,
    ("latency", _BLOCKING, "ours ipc", "pyzmq ipc"): 1 / 1.10,
    ("latency", _BLOCKING, "ours tcp", "pyzmq tcp"): 1 / 1.10,
    ("latency", _SPINNING, "ours ipc", "C libzmq ipc"): 1 / 1.05,
    ("latency", _SPINNING, "ours tcp", "C libzmq tcp"): 1 / 1.05,
    ("throughput", "", "ours native local", "pyzmq ipc"): 10.0,
    ("throughput", "", "ours native ipc", "pyzmq ipc"): 2.8,
    ("throughput", "", "ours native ipc", "C libzmq ipc"): 0.85,
    ("throughput", "", "ours in process", "nautilus MessageBus"): 0.97 / 0.3,
    ("throughput-batch", "", "ours native ipc", "pyzmq ipc, each"): 8.0,
    ("python-send", "", "ours local", "pyzmq ipc"): 2.0,
    ("asyncio", "throughput", "ours native asyncio ipc", "zmq.asyncio asyncio ipc"): 30.0,
    ("asyncio", "throughput", "ours native uvloop ipc", "zmq.asyncio uvloop ipc"): 30.0,
    ("asyncio", "throughput", "ours native asyncio local", "zmq.asyncio asyncio ipc"): 30.0,
    ("asyncio", "same-cpu", "ours asyncio ipc", "zmq.asyncio asyncio ipc"): 1 / 0.65,
    ("asyncio", "same-cpu", "ours uvloop ipc", "zmq.asyncio uvloop ipc"): 1 / 0.65,
    ("asyncio", "same-cpu", "ours asyncio local", "zmq.asyncio asyncio ipc"): 1 / 0.65,
    ("fanout", "1 to 4", "ours native ipc", "pyzmq ipc"): 1.3,
    ("fanout", "1 to 4", "ours ipc", "pyzmq ipc"): 1.3,
}
"""A case by how its title begins."""


def goal_of(program: str, title: str, ours: str, peer: str) -> float | None:
    """None: no goal."""
    for (of, begin, who, beside), goal in GOALS.items():
        if (of, who, beside) == (program, ours, peer) and title.startswith(begin):
            return goal
    return None
