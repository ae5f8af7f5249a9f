"""nng through pynng: PUSH to PULL, which blocks where PUB to SUB would drop; one reader."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from fabric.bench.job import FLOOD, PACED, VALUES, Contestant, Job
from fabric.bench.roles import Receiver, Sender, monotonic_ns

_MEET_S = 20.0
_FLOW = "PUSH to PULL: send blocks while no reader takes a message"

CONTESTANTS = [
    Contestant(
        f"pynng {transport}", __name__, transport, frozenset({PACED, FLOOD, VALUES}), _FLOW,
        optional=True, most_readers=1,
    )
    for transport in ("ipc", "tcp")
]  # fmt: skip


def missing(contestant: Contestant) -> str:
    return "" if importlib.util.find_spec("pynng") else "not installed (pynng)"


def make_sender(job: Job) -> Sender:
    return _NngSender(job)


def make_receiver(job: Job) -> Receiver:
    return _NngReceiver(job)


class _NngSender(Sender):
    def open(self) -> dict[str, Any]:
        import pynng

        ipc = self.job.transport == "ipc"
        self.socket = pynng.Push0(send_buffer_size=1000)
        listener = self.socket.listen(f"ipc://{self.job.directory}/nng" if ipc else "tcp://127.0.0.1:0")
        send = self.socket.send
        self.send = (lambda message: send(bytes(message))) if self.job.kind == PACED else send
        if ipc:
            return {"url": f"ipc://{self.job.directory}/nng"}
        return {"url": f"tcp://127.0.0.1:{_port(listener.local_address)}"}

    def meet(self) -> None:
        deadline_ns = monotonic_ns() + int(_MEET_S * 1e9)
        while len(self.socket.pipes) < self.job.readers:
            if monotonic_ns() > deadline_ns:
                raise TimeoutError("a reader has not connected")


def _port(address: Any) -> int:
    """pynng gives it in network order."""
    return int.from_bytes(int(address.port).to_bytes(2, "little"), "big")


class _NngReceiver(Receiver):
    def open(self, address: dict[str, Any]) -> None:
        import pynng

        self.socket = pynng.Pull0(recv_buffer_size=1000)
        self.socket.dial(address["url"], block=True)

    def receiving(self) -> Callable[[], Any]:
        receive: Callable[[], Any] = self.socket.recv
        return receive
