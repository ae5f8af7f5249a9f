"""A stand-in for Deribit: its websocket API v2 as far as ``feed.deribit`` uses it, with faults, on this machine.

    python -m nodes.testing.deribit_venue --listen 127.0.0.1:0 [--cert FILE --key FILE] [--fault 5:close …]

prints its address; give that to a config:

    fabric up configs/deribit-live.toml --set 'nodes.feed.source="ws://127.0.0.1:PORT/ws/api/v2"'

Prices are invented (or, with --capture, recorded), everything else is as documented. It knows what is true: its books,
and how many breaks, malformed messages and lost connections it caused.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import picows

from nodes.testing.venue_connection import VenueConnection
from nodes.testing.venue_faults import FAULTS, MALFORMED, Fault, drawn_faults, parse_fault
from nodes.testing.venue_market import VenueMarket

PATH = "/ws/api/v2"
_QUIET = logging.getLogger("fabric.websocket")
_QUIET.setLevel(logging.ERROR)
_STEP_S = 0.005
_REFUSING_S = 0.5
_BURST = 500
_SKIPPED = 5
_MALFORMED = 3
_MOST_A_STEP = 200
_TOPICS = ("ticker", "book", "trades")
_INTERVALS = ("100ms", "agg2", "raw")


class DeribitVenue:
    """The server. All of it runs in one event loop; ``nodes.testing.running`` puts that into a thread."""

    def __init__(self, market: VenueMarket, *, rate: float = 500.0, faults: Sequence[Fault] = ()) -> None:
        self.market = market
        self.rate = rate
        """Happenings a second."""
        self.truth: Counter[str] = Counter()
        """What was done, by name: breaks, malformed, disconnects, sent, each kind of fault …"""
        self.connections: list[VenueConnection] = []
        self.url = ""
        self._faults = sorted(faults, reverse=True)
        self._skip_next = 0
        self._refusing_until_s = 0.0
        self._malformed = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen. Raises OSError, and ValueError for an address beyond this machine."""
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not an address of this machine alone")
        self._server = await picows.ws_create_server(
            self._accept, host, port, ssl=tls, use_aiofastnet=False, logger_name=_QUIET
        )
        bound = self._server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"{'wss' if tls else 'ws'}://{shown}:{bound[1]}{PATH}"

    async def run(self) -> None:
        """Let things happen at ``rate``, and faults when they are due, until cancelled."""
        started_s = last_s = time.monotonic()
        owed = 0.0
        while True:
            await asyncio.sleep(_STEP_S)
            now_s = time.monotonic()
            owed += (now_s - last_s) * self.rate
            last_s = now_s
            for _ in range(min(int(owed), _MOST_A_STEP)):
                self.happen()
            owed = min(owed - int(owed), 1.0)
            while self._faults and self._faults[-1].at_ns <= (now_s - started_s) * 1e9:
                self.make(self._faults.pop().kind)

    async def close(self) -> None:
        """Stop listening, and drop everyone."""
        for connection in list(self.connections):
            connection.close("the venue ends")
        if self._server is not None:
            self._server.close()

    def _accept(self, request: picows.WSUpgradeRequest) -> Any:
        if time.monotonic() < self._refusing_until_s:
            self.count("refused")
            response = picows.WSUpgradeResponse.create_error_response(503, b"maintenance")
            return picows.WSUpgradeResponseWithListener(response, None)
        return VenueConnection(self) if request.path == PATH.encode() else None

    # For connections

    def entered(self, connection: VenueConnection) -> None:
        self.connections.append(connection)
        self.count("connects")

    def left(self, connection: VenueConnection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self.count("disconnects")

    def count(self, name: str) -> None:
        self.truth[name] += 1

    def channels_of(self, topic: str, name: str, subscribed: dict[str, bool]) -> list[str]:
        """The channels among ``subscribed`` that carry this."""
        return [channel for interval in _INTERVALS if (channel := f"{topic}.{name}.{interval}") in subscribed]

    # What happens

    def happen(self, *, only: str = "") -> None:
        """One thing of the market; ``only``: a change of this book."""
        happening = self.market.change(only) if only else self.market.next()
        if happening is None:
            return
        skip = happening.topic == "book" and self._skip_next > 0
        self._skip_next -= skip
        for connection in self.connections:
            connection.tell(happening, skip=skip)

    def make(self, kind: str) -> None:
        """A fault, now; of the connection that came last."""
        self.count(f"fault_{kind}")
        connection = self.connections[-1] if self.connections else None
        match kind:
            case "skip":
                self._skip_next += _SKIPPED
            case "burst":
                for _ in range(_BURST):
                    self.happen()
            case "list":
                self.list_strike()
            case "expire" if self.market.options():
                self.expire(self.market.random.choice(self.market.options()))
            case "refuse":
                self._refusing_until_s = time.monotonic() + _REFUSING_S
                if connection is not None:
                    connection.reset()
            case _ if connection is None:
                pass
            case "malformed":
                for _ in range(_MALFORMED):
                    connection.send_malformed(MALFORMED[self._malformed % len(MALFORMED)])
                    self._malformed += 1
            case "close":
                connection.close("maintenance")
            case "error":
                connection.refuse_next()
            case "reject":
                connection.reject_next()
            case _:
                getattr(connection, kind)()

    def list_strike(self) -> str:
        """List a new strike, and say so; returns its name."""
        name = self.market.new_strike()
        self.market.add(name)
        for connection in self.connections:
            connection.tell_state(name, "created")
        return name

    def expire(self, name: str) -> None:
        """End an instrument, and say so."""
        self.market.remove(name)
        for connection in self.connections:
            connection.tell_state(name, "closed")
            connection.forget(name)

    # For tests

    def forgive(self) -> None:
        """No more faults."""
        self._faults.clear()
        self._skip_next = 0
        for connection in self.connections:
            connection.forgive()

    def is_followed(self) -> bool:
        """Somebody is subscribed to everything that is listed."""
        return any(
            not connection.is_stuck
            and all(
                self.channels_of(topic, name, connection.channels) for name in self.market.books for topic in _TOPICS
            )
            for connection in self.connections
        )

    def touch_all(self) -> None:
        """A change of each book, so that any change which was left out before is noticed."""
        for name in list(self.market.books):
            self.happen(only=name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nodes.testing.deribit_venue", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: a free one")
    parser.add_argument("--cert", type=Path, help="PEM; with --key, the venue speaks TLS (wss)")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--capture", type=Path, help="play the messages of this recording, again and again")
    parser.add_argument("--rate", type=float, default=500.0, help="messages a second, about (500)")
    parser.add_argument("--strikes", type=int, default=4, help="of each expiry (4)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fault", action="append", default=[], type=parse_fault, metavar="SECONDS:KIND", help=
                        f"may be repeated; kinds: {', '.join(FAULTS)}")  # fmt: skip
    parser.add_argument(
        "--faults-every", type=float, default=0.0, metavar="SECONDS", help="a fault drawn from the seed"
    )
    options = parser.parse_args(arguments)
    host, _, port = options.listen.rpartition(":")
    tls = None
    if options.cert is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.cert, options.key)
    faults = list(options.fault)
    if options.faults_every > 0:
        faults += drawn_faults(options.seed, round(options.faults_every * 1e9), 24 * 3600 * 10**9)
    market = VenueMarket(options.seed, strikes=options.strikes, capture=options.capture)
    venue = DeribitVenue(market, rate=options.rate, faults=faults)

    async def serve() -> None:
        await venue.start(host.strip("[]"), int(port), tls)
        print(venue.url, flush=True)
        await venue.run()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        print(json.dumps(venue.truth), file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"can't listen on {options.listen}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
