"""Eclipse Zenoh (package eclipse-zenoh): two peers over TCP on this host, reliable, blocking where it is congested."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any

from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.ports import free_ports
from fabric.bench.roles import Receiver, Sender, monotonic_ns

_MEET_S = 20.0

CONTESTANTS = [
    Contestant(
        "zenoh", __name__, "tcp", frozenset({PACED, FLOOD, VALUES}),
        "CongestionControl.BLOCK, Reliability.RELIABLE, a reader's channel of 1,000,000", optional=True,
    )
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return "" if importlib.util.find_spec("zenoh") else "not installed (eclipse-zenoh)"


def make_sender(job: Job) -> Sender:
    return _ZenohSender(job)


def make_receiver(job: Job) -> Receiver:
    return _ZenohReceiver(job)


def _session(endpoint: str, role: str) -> Any:
    """Of these two alone: no scouting of the network."""
    import zenoh

    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("scouting/gossip/enabled", "false")
    config.insert_json5(
        "transport/shared_memory/enabled", "false"
    )  # it leaves files behind, and is not what is measured
    config.insert_json5(f"{role}/endpoints", json.dumps([endpoint]))
    if role == "connect":
        config.insert_json5("listen/endpoints", "[]")
    return zenoh.open(config)


class _ZenohSender(Sender):
    def open(self) -> dict[str, Any]:
        import zenoh

        endpoint = f"tcp/127.0.0.1:{free_ports(1)[0]}"
        self.session = _session(endpoint, "listen")
        self.publisher = self.session.declare_publisher(
            "bench/record", congestion_control=zenoh.CongestionControl.BLOCK, reliability=zenoh.Reliability.RELIABLE,
            express=self.job.kind == PACED,
        )  # fmt: skip
        put = self.publisher.put
        self.send = (lambda message: put(bytes(message))) if self.job.kind == PACED else put
        return {"endpoint": endpoint}

    def meet(self) -> None:
        deadline_ns = monotonic_ns() + int(_MEET_S * 1e9)
        while not self.publisher.matching_status.matching:
            if monotonic_ns() > deadline_ns:
                raise TimeoutError("a reader has not subscribed")


class _ZenohReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        import zenoh

        self.session = _session(address["endpoint"], "connect")
        self.subscriber = self.session.declare_subscriber("bench/record", zenoh.handlers.FifoChannel(1_000_000))

    def receiving(self) -> Callable[[], Any]:
        receive = self.subscriber.recv
        return lambda: receive().payload.to_bytes()
