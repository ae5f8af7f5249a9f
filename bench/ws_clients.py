"""Websocket clients beside each other: how fast they take in messages of a ticker's size, and what one costs.

    .venv/bin/python -m pip install websockets
    .venv/bin/python bench/ws_clients.py [--messages 100000] [--rounds 5] [--tls CERT.pem KEY.pem]

One server (a process of its own) sends as fast as the client takes; each client runs in a process of its own. "rate"
is limited by the slower of both ends; "CPU" is the client's own process time for one message, which is what counts:
each the median of some rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import picows

MESSAGE = json.dumps(
    {
        "jsonrpc": "2.0",
        "method": "subscription",
        "params": {
            "channel": "ticker.BTC-25DEC26-100000-C.100ms",
            "data": {f"field_{number:02}": 1234.5 + number for number in range(24)},
        },
    }
).encode()
_BURST = 64


def serve(messages: int, tls: ssl.SSLContext | None) -> None:
    """Print the port, then send that many messages to whoever connects, and close."""

    class Sender(picows.WSListener):
        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            self.transport, self.left, self.paused = transport, messages, False
            asyncio.get_running_loop().call_soon(self.send)

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()

        def send(self) -> None:
            for _ in range(min(_BURST, self.left)):
                self.transport.send(picows.WSMsgType.TEXT, MESSAGE)
                self.left -= 1
            if self.left == 0:
                self.transport.send_close(picows.WSCloseCode.OK)
            elif not self.paused:
                asyncio.get_running_loop().call_soon(self.send)

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            self.paused = False
            asyncio.get_running_loop().call_soon(self.send)

    async def run() -> None:
        server = await picows.ws_create_server(lambda _: Sender(), "127.0.0.1", 0, ssl=tls, use_aiofastnet=False)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


async def with_picows(url: str, tls: ssl.SSLContext | None) -> int:
    class Counter(picows.WSListener):
        count = 0

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.TEXT:
                frame.get_payload_as_bytes()
                self.count += 1
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()

    transport, listener = await picows.ws_connect(Counter, url, ssl_context=tls, use_aiofastnet=False)
    await transport.wait_disconnected()
    assert isinstance(listener, Counter)
    return listener.count


async def with_websockets(url: str, tls: ssl.SSLContext | None) -> int:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    count = 0
    async with connect(url, ssl=tls, compression=None, ping_interval=None) as connection:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.recv(decode=False)
                count += 1
    return count


def measure(client: Callable[[str, Any], Awaitable[int]], loop: str, url: str, tls: ssl.SSLContext | None) -> None:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=factory) as runner:
        count = runner.run(client(url, tls))  # type: ignore[arg-type]
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    print(f"{count} {count / elapsed_s:.0f} {cpu_s / max(1, count) * 1e6:.2f}")


CLIENTS = {"picows": with_picows, "websockets": with_websockets}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        server_tls = None
        if options.tls:
            server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_tls.load_cert_chain(*options.tls)
        serve(options.messages, server_tls)
        return
    if options.client:
        name, loop, url = options.client
        client_tls = ssl.create_default_context(cafile=options.tls[0]) if options.tls else None
        measure(CLIENTS[name], loop, url, client_tls)
        return
    own = [sys.executable, __file__, "--messages", str(options.messages)]
    own += ["--tls", *options.tls] if options.tls else []
    print(f"{options.messages:,} messages of {len(MESSAGE)} bytes, {'TLS' if options.tls else 'plain'}")
    print("| client | loop | messages/s | CPU us a message |\n|---|---|---|---|")
    with subprocess.Popen([*own, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        url = f"{'wss' if options.tls else 'ws'}://127.0.0.1:{port}/"
        for name in CLIENTS:
            for loop in ("asyncio", "uvloop"):
                if importlib.util.find_spec(name) is None or (
                    loop == "uvloop" and importlib.util.find_spec("uvloop") is None
                ):
                    print(f"| {name} | {loop} | not installed | |")
                    continue
                rates, costs_us = [], []
                for _ in range(options.rounds):
                    command = [*own, "--client", name, loop, url]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    count, rate, cpu_us = done.stdout.split()
                    assert int(count) == options.messages, f"{name}: {count} messages arrived"
                    rates.append(int(rate))
                    costs_us.append(float(cpu_us))
                print(f"| {name} | {loop} | {median(rates):,.0f} | {median(costs_us):.2f} |", flush=True)
        server.terminate()


if __name__ == "__main__":
    main()
