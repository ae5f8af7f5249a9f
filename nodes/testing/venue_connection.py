"""One client of a stand-in venue: its requests answered, its channels served, and mistakes made on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import picows

from nodes.testing.venue_market import Happening, kind_of

if TYPE_CHECKING:
    from nodes.testing.deribit_venue import DeribitVenue

_TOO_MANY_REQUESTS = 10028
_UNKNOWN_METHOD = -32601
_BAD_PARAMS = -32602
_PARSE_ERROR = -32700
_MAX_WAITING_BYTES = 32 << 20


class Refused(Exception):
    """An error answer: (code, message)."""


class VenueConnection(picows.WSListener):
    """Requests in, notifications out. Messages wait in ``_held`` during a pause."""

    def __init__(self, venue: DeribitVenue) -> None:
        super().__init__()
        self.venue = venue
        self.channels: dict[str, bool] = {}
        """Subscribed: whether a change of this book was left out since the last one that was sent."""
        self.breaks = 0
        self._transport: picows.WSTransport | None = None
        self._held: list[bytes] | None = None
        self._stalled = False
        self._mute = False
        self._errors = 0
        self._rejects = 0
        self._heartbeat_s = 0.0
        self._unanswered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reset_at_pong = False

    @property
    def is_stuck(self) -> bool:
        """It will only end, by the client or a fault."""
        return self._stalled

    # What picows calls

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self.venue.entered(self)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.venue.left(self)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == picows.WSMsgType.PONG:
            if self._reset_at_pong:
                self._reset()
        elif frame.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
            self._on_request(frame.get_payload_as_bytes())

    # Requests

    def _on_request(self, payload: bytes) -> None:
        started_us = time.time_ns() // 1000
        answer: dict[str, Any] = {"jsonrpc": "2.0"}
        try:
            try:
                request = json.loads(payload)
                method, params = str(request["method"]), request.get("params", {})
                answer["id"] = request.get("id")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise Refused(_PARSE_ERROR, "parse error") from None
            if method != "public/test" and self._errors and not self._stalled:
                self._errors -= 1
                self.venue.count("errors_sent")
                raise Refused(_TOO_MANY_REQUESTS, "too_many_requests")
            answer["result"] = self._result(method, params)
        except Refused as error:
            answer["error"] = {"code": error.args[0], "message": error.args[1]}
        now_us = time.time_ns() // 1000
        answer |= {"usIn": started_us, "usOut": now_us, "usDiff": now_us - started_us, "testnet": True}
        self.send(json.dumps(answer).encode())
        if "error" not in answer and method == "public/subscribe":
            for channel in answer["result"]:
                self._greet(channel)

    def _result(self, method: str, params: dict[str, Any]) -> Any:
        market = self.venue.market
        try:
            match method:
                case "public/test":
                    self._unanswered = 0
                    return {"version": "1.2.26"}
                case "public/set_heartbeat":
                    self._heartbeat_s = float(params["interval"])
                    self._schedule()
                    return "ok"
                case "public/get_instruments":
                    wanted = (str(params["currency"]), params.get("kind"))
                    return [
                        market.listing(name)
                        for name in market.books
                        if name.startswith(wanted[0]) and wanted[1] in (None, kind_of(name))
                    ]
                case "public/get_instrument":
                    return market.listing(_listed(market.books, str(params["instrument_name"])))
                case "public/subscribe":
                    return self._subscribe([str(channel) for channel in params["channels"]])
                case "public/unsubscribe":
                    asked = [str(channel) for channel in params["channels"]]
                    return [channel for channel in asked if self.channels.pop(channel, None) is not None]
        except (KeyError, TypeError, ValueError):
            raise Refused(_BAD_PARAMS, "Invalid params") from None
        raise Refused(_UNKNOWN_METHOD, "Method not found")

    def _subscribe(self, asked: list[str]) -> list[str]:
        given = []
        for channel in asked:
            topic, _, rest = channel.partition(".")
            name = rest.partition(".")[0]
            known = channel.startswith("instrument.state.") or name in self.venue.market.books
            if self._rejects and not self._stalled and topic in ("ticker", "book", "trades"):
                self._rejects -= 1
                self.venue.count("channels_rejected")
            elif known:
                given.append(channel)
        self.channels.update({channel: False for channel in given if channel not in self.channels})
        return given

    def _greet(self, channel: str) -> None:
        """A book begins with a snapshot."""
        topic, _, rest = channel.partition(".")
        if topic == "book":
            name = rest.partition(".")[0]
            book = self.venue.market.books[name]
            data = {"type": "snapshot", "instrument_name": name, "change_id": book.change_id, **book.snapshot()}
            self._notify(channel, data | {"timestamp": _now_ms()})

    # Notifications

    def tell(self, happening: Happening, *, skip: bool = False) -> None:
        """Send it, if it is subscribed. ``skip``: leave it out, as a fault."""
        for channel in self.venue.channels_of(happening.topic, happening.name, self.channels):
            if happening.topic == "book" and skip:
                self.channels[channel] = True
                continue
            data = happening.data
            now = {"timestamp": _now_ms()}
            if happening.topic == "trades":
                data = [trade | now for trade in data]
            elif happening.topic == "book":
                if self.channels[channel] and not self._stalled:
                    self.channels[channel] = False
                    self.breaks += 1
                    self.venue.count("breaks")
                book = self.venue.market.books[happening.name]
                ids = {"change_id": book.change_id, "prev_change_id": book.previous_id}
                data = data | ids | now | {"type": "change", "instrument_name": happening.name}
            else:
                data = data | now
            self._notify(channel, data)

    def tell_state(self, name: str, state: str) -> None:
        """instrument.state, to those who subscribed."""
        channel = f"instrument.state.{kind_of(name)}.{name.partition('-')[0]}"
        if channel in self.channels:
            self._notify(channel, {"instrument_name": name, "state": state, "timestamp": _now_ms()})

    def forget(self, name: str) -> None:
        """Nothing is sent of this instrument any more."""
        for topic in ("ticker", "book", "trades"):
            for channel in self.venue.channels_of(topic, name, self.channels):
                del self.channels[channel]

    def _notify(self, channel: str, data: Any) -> None:
        message = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
        self.send(json.dumps(message).encode())

    def send(self, payload: bytes) -> None:
        """Now, or after the pause."""
        if self._stalled or self._transport is None or self._transport.underlying_transport.is_closing():
            return
        if self._held is not None:
            self._held.append(payload)
            return
        self.venue.count("sent")
        self._transport.send(picows.WSMsgType.TEXT, payload)
        if self._transport.underlying_transport.get_write_buffer_size() > _MAX_WAITING_BYTES:
            self._transport.disconnect(graceful=False)  # a client that does not read

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat_s, self._beat)

    def _beat(self) -> None:
        if self._unanswered > 2:
            self.venue.count("tests_unanswered")
            self.close("test_request was not answered")
            return
        if not self._mute and not self._stalled and self._held is None:
            for kind in ("heartbeat", "test_request"):
                self.send(json.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}}).encode())
            self._unanswered += 1
        self._schedule()

    # Faults

    def close(self, reason: str) -> None:
        """In order."""
        if self._transport is not None and not self._stalled and self._held is None:
            self._stalled = True
            self._transport.send_close(picows.WSCloseCode.GOING_AWAY, reason.encode())

    def stall(self) -> None:
        self._stalled = True

    def mute_tests(self) -> None:
        self._mute = True

    def reset(self) -> None:
        """Once a ping was answered, so that all that was sent before has been read: the truth stays known."""
        if self._transport is not None and not self._stalled and self._held is None:
            self._stalled = self._reset_at_pong = True
            self._transport.send_ping(b"reset")

    def _reset(self) -> None:
        assert self._transport is not None
        transport = self._transport.underlying_transport
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def pause(self) -> None:
        if self._held is None and not self._stalled:
            self._held = []
            asyncio.get_running_loop().call_later(0.7 * (self._heartbeat_s or 1.0), self._go_on)

    def _go_on(self) -> None:
        held, self._held = self._held or [], None
        for payload in held:
            self.send(payload)

    def refuse_next(self) -> None:
        self._errors += 1

    def reject_next(self) -> None:
        self._rejects += 1

    def forgive(self) -> None:
        """No more faults that are still to come."""
        self._errors = self._rejects = 0

    def send_malformed(self, payload: bytes) -> None:
        if self._transport is not None and not self._stalled and self._held is None:
            self.venue.count("malformed")
            self._transport.send(picows.WSMsgType.BINARY, payload)


def _listed(books: dict[str, Any], name: str) -> str:
    if name not in books:
        raise KeyError(name)
    return name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
