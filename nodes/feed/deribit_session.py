"""One connection to Deribit as a state machine: messages and time in, messages to send out. No socket and no clock.

    set_heartbeat ▸ subscribe instrument.state.… ▸ get_instruments of each currency and kind ▸ subscribe to all channels
    ▸ ready; from then on as instruments come and go, and what ``resubscribe`` asks for

One request is under way at a time (answers to test_request apart): the venue counts requests, and an answer that does
not come is then known to be that one's. ``now_ns`` is of a clock that never runs backwards.

API docs: "JSON-RPC", "Session management" (public/set_heartbeat, public/test), "Market data" (public/get_instruments,
public/get_instrument), "Subscription management" (public/subscribe, public/unsubscribe), "instrument.state".
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nodes.feed.deribit_messages import Name, StateChange, listing_id
from nodes.feed.session_settings import SECOND_NS, Group, SessionCounters, SessionSettings

_TRIES = 5
_STATE_CHANNEL = "instrument.state"


class _Listed(msgspec.Struct):
    instrument_name: Name
    is_active: bool = True
    expiration_timestamp: int | None = None
    """Milliseconds; of a perpetual, in a thousand years."""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Params(msgspec.Struct):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    id: int | str | None = None
    method: str = ""
    params: _Params | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _Error | None = None


_MESSAGE = msgspec.json.Decoder(_Message)
_LISTS = msgspec.json.Decoder(list[_Listed])
_ONE = msgspec.json.Decoder(_Listed)
_CHANNELS = msgspec.json.Decoder(list[str])
_STATES = msgspec.json.Decoder(StateChange)


@dataclass(slots=True)
class _Request:
    method: str
    params: dict[str, Any]
    group: Group | None = None
    tries: int = 0
    channels: list[str] = field(default_factory=list)


class DeribitSession:
    """Feed it with ``on_message`` and ``on_time``; send and clear ``out`` after each call; give the connection up once
    ``failure`` says why."""

    def __init__(self, settings: SessionSettings, now_ns: int, counters: SessionCounters | None = None) -> None:
        self.settings = settings
        self.counters = counters or SessionCounters()
        self.out: list[bytes] = []
        self.failure = ""
        self.told: list[str] = []
        """What a person should know; the caller takes it out."""
        self.ready = False
        """Everything that is listed is subscribed, or was refused."""
        self.subscribed: set[str] = set()
        self.instruments: dict[Group, dict[str, None]] = {group: {} for group in settings.groups()}
        self._queue: deque[_Request] = deque()
        self._to_subscribe: dict[str, None] = {}
        self._to_unsubscribe: dict[str, None] = {}
        self._pending: _Request | None = None
        self._pending_id: int | str = 0
        self._last_id = 0
        self._sent_ns = self._received_ns = now_ns
        self._not_before_ns = 0
        self._refresh_at_ns = now_ns + settings.refresh_ns if settings.refresh_ns else math.inf
        self._rejected: set[str] = set()
        self._begin(now_ns)

    def _begin(self, now_ns: int) -> None:
        seconds = self.settings.heartbeat_ns / SECOND_NS
        self._queue.append(_Request("public/set_heartbeat", {"interval": int(seconds) if seconds >= 1 else seconds}))
        states = [f"{_STATE_CHANNEL}.{kind}.{currency}" for currency, kind in self.settings.groups()]
        self._queue.append(self._subscription("public/subscribe", states))
        self._ask_for_lists()
        self._pump(now_ns)

    @property
    def quiet(self) -> bool:
        """Nothing is under way, to be sent or to be told: the usual state while data comes in."""
        return self.ready and not (self.out or self.told or self._pending or self._queue or self.failure)

    # In

    def on_message(self, payload: bytes, now_ns: int) -> None:
        """One message as it came. What is none of JSON-RPC is counted."""
        self._received_ns = now_ns
        self.counters.received += 1
        try:
            message = _MESSAGE.decode(payload)
            if message.method == "subscription":
                if message.params is not None and message.params.channel.startswith(_STATE_CHANNEL):
                    self._on_state(message.params.channel, _STATES.decode(message.params.data))
            elif message.method == "heartbeat":
                if message.params is not None and message.params.type == "test_request":
                    self.counters.test_requests += 1
                    self._send("public/test", {})
            elif message.id is not None and self._pending is not None and message.id == self._pending_id:
                request, self._pending = self._pending, None
                self._on_answer(request, message, now_ns)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
            self.counters.malformed += 1
        self._pump(now_ns)

    def on_time(self, now_ns: int) -> None:
        """Time has passed; at least at ``due_ns``."""
        settings = self.settings
        if now_ns - self._received_ns >= 2 * settings.heartbeat_ns:
            self._fail(f"nothing was received for {(now_ns - self._received_ns) / 1e9:.1f} s, two heartbeats")
        elif self._pending is not None and now_ns - self._sent_ns >= settings.answer_timeout_ns:
            self._fail(f"no answer to {self._pending.method} within {settings.answer_timeout_ns / 1e9:g} s")
        elif now_ns >= self._refresh_at_ns:
            self._refresh_at_ns = now_ns + settings.refresh_ns
            self._ask_for_lists()
        self._pump(now_ns)

    def resubscribe(self, channels: Iterable[str], now_ns: int) -> None:
        """Take these off and subscribe to them again, so that their books begin with a snapshot. A channel that is not
        subscribed now is left alone: it is about to be, or the instrument is gone."""
        for channel in channels:
            if channel in self.subscribed:
                self.counters.resubscribed += 1
                self._unsubscribe([channel])
                self._to_subscribe[channel] = None
        self._pump(now_ns)

    @property
    def due_ns(self) -> float:
        """When ``on_time`` is to be called next."""
        due = min(self._received_ns + 2 * self.settings.heartbeat_ns, self._refresh_at_ns)
        if self._pending is not None:
            return min(due, self._sent_ns + self.settings.answer_timeout_ns)
        return min(due, self._not_before_ns) if self._not_before_ns else due

    # Instruments

    def _ask_for_lists(self) -> None:
        asked = {request.group for request in self._queue if request.method == "public/get_instruments"}
        for currency, kind in self.settings.groups():
            if (currency, kind) not in asked:
                params = {"currency": currency, "kind": kind, "expired": False}
                self._queue.append(_Request("public/get_instruments", params, (currency, kind)))
        self._to_subscribe.update(dict.fromkeys(channel for channel in self._rejected if self._is_wanted(channel)))
        self._rejected.clear()

    def _on_state(self, channel: str, change: StateChange) -> None:
        _, _, kind, currency = [*channel.split("."), "", "", ""][:4]
        known = self.instruments.get((currency, kind))
        if known is None:
            return
        if change.gone:
            self._forget((currency, kind), [change.instrument_name])
        elif change.listed and change.instrument_name not in known:
            params = {"instrument_name": change.instrument_name}
            under_way = [*self._queue, *([self._pending] if self._pending else [])]
            if not any(request.params == params for request in under_way):
                self._queue.append(_Request("public/get_instrument", params, (currency, kind)))

    def _learn(self, group: Group, listed: list[_Listed]) -> None:
        known = self.instruments[group]
        new = [item for item in listed if item.is_active and item.instrument_name not in known]
        new.sort(key=lambda item: (item.expiration_timestamp or 0, item.instrument_name))
        room = max(0, self.settings.max_instruments - sum(map(len, self.instruments.values())))
        if len(new) > room:
            self.told.append(
                f"{len(new) - room} {group[0]} instruments ({group[1]}) are left out: max_instruments is "
                f"{self.settings.max_instruments}"
            )
        for item in new[:room]:
            known[item.instrument_name] = None
            self.counters.listed += self.ready
            for channel in self.settings.channels_of(item.instrument_name):
                if channel not in self.subscribed:
                    self._to_subscribe[channel] = None

    def _forget(self, group: Group, names: Iterable[str]) -> None:
        known = self.instruments[group]
        for name in [name for name in names if name in known]:
            del known[name]
            self.counters.dropped += 1
            self._unsubscribe(self.settings.channels_of(name))

    def _unsubscribe(self, channels: Iterable[str]) -> None:
        for channel in channels:
            self._to_subscribe.pop(channel, None)
            if channel in self.subscribed:
                self.subscribed.discard(channel)
                self._to_unsubscribe[channel] = None

    # Requests and answers

    def _pump(self, now_ns: int) -> None:
        """Send the next request, if none is under way and none has to wait."""
        if self._pending is not None or self.failure or now_ns < self._not_before_ns:
            return
        self._not_before_ns = 0
        limit = self.settings.channels_per_request
        if self._queue:
            request = self._queue.popleft()
        elif self._to_unsubscribe:
            request = self._subscription("public/unsubscribe", _take(self._to_unsubscribe, limit))
        elif self._to_subscribe:
            request = self._subscription("public/subscribe", _take(self._to_subscribe, limit))
        else:
            self.ready = True
            return
        self._pending, self._sent_ns = request, now_ns
        self.counters.requests += 1
        self._pending_id = self._send(request.method, request.params, request.group)

    def _on_answer(self, request: _Request, message: _Message, now_ns: int) -> None:
        if message.error is not None:
            self.counters.refused += 1
            self._on_refusal(request, f"{message.error.message or 'error'} ({message.error.code})", now_ns)
            return
        try:
            if request.method == "public/get_instruments" and request.group is not None:
                listed = _LISTS.decode(message.result)
                names = {item.instrument_name for item in listed if item.is_active}
                self._forget(request.group, [name for name in self.instruments[request.group] if name not in names])
                self._learn(request.group, listed)
            elif request.method == "public/get_instrument" and request.group is not None:
                self._learn(request.group, [_ONE.decode(message.result)])
            elif request.method == "public/subscribe":
                self._on_subscribed(request.channels, _CHANNELS.decode(message.result))
        except msgspec.MsgspecError as error:
            self.counters.malformed += 1
            self._on_refusal(request, f"an answer that can't be read: {error}", now_ns)

    def _on_subscribed(self, asked: list[str], given: list[str]) -> None:
        granted = set(given)
        for channel in asked:
            if channel in granted:
                self.subscribed.add(channel)
            else:
                self._reject(channel, "it is not in the answer")
        gone = [channel for channel in asked if channel in self.subscribed and not self._is_wanted(channel)]
        self._unsubscribe(gone)

    def _is_wanted(self, channel: str) -> bool:
        """False if the instrument went while its subscription was under way."""
        if channel.startswith(_STATE_CHANNEL):
            return True
        name = [*channel.split("."), ""][1]
        return any(name in known for known in self.instruments.values())

    def _on_refusal(self, request: _Request, reason: str, now_ns: int) -> None:
        """Once more after a while; then a subscription in halves, until the channel that is refused stands alone."""
        request.tries += 1
        if request.tries > 1 and len(request.channels) > 1:
            middle = len(request.channels) // 2
            for part in (request.channels[middle:], request.channels[:middle]):
                half = self._subscription(request.method, part)
                half.tries = 1
                self._queue.appendleft(half)
        elif request.tries > 1 and (request.channels or request.method == "public/get_instrument"):
            for channel in request.channels or [str(request.params["instrument_name"])]:
                self._reject(channel, reason)
        elif request.tries >= _TRIES:
            self._fail(f"{request.method} was refused {_TRIES} times: {reason}")
        else:
            self._queue.appendleft(request)
            self._not_before_ns = now_ns + self.settings.retry_ns * 2 ** (request.tries - 1)
        if request.tries == 1:
            self.told.append(f"{request.method} was refused, and is tried again: {reason}")

    def _reject(self, channel: str, reason: str) -> None:
        """Left out, and asked for again with the next lists."""
        self.counters.rejected += 1
        self.told.append(f"{channel} is not subscribed: {reason}")
        self._rejected.add(channel)

    def _subscription(self, method: str, channels: list[str]) -> _Request:
        return _Request(method, {"channels": channels}, channels=channels)

    def _send(self, method: str, params: dict[str, Any], group: Group | None = None) -> int | str:
        self._last_id += 1
        number: int | str = self._last_id
        if group is not None:
            number = listing_id(self._last_id, *group, whole=method == "public/get_instruments")
        self.out.append(msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        return number

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason


def _take(channels: dict[str, None], limit: int) -> list[str]:
    """Take the first ones out."""
    taken = list(channels)[:limit]
    for channel in taken:
        del channels[channel]
    return taken
