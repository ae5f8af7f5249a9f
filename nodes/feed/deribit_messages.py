"""The JSON-RPC messages of Deribit's websocket that carry market data, as typed structures. No state, no I/O.

API docs: "Subscriptions" (book.{instrument_name}.{interval}, ticker.…, trades.…, instrument.state.{kind}.{currency}),
"Market data" (public/get_instruments, public/get_instrument), "Session management" (public/set_heartbeat). Fields that
are not used here are ignored, as are new ones; numbers may be null or missing where the docs allow it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Milliseconds = Annotated[int, Meta(ge=0, le=9_000_000_000_000)]
"""Times 10**6, it fits in the i8 of a record."""
ChangeId = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
_ABSENT = msgspec.Raw(b"")


class DecodeError(ValueError):
    """The bytes are not a message of this venue; the text is a short reason."""


class Greeks(Struct):
    """ticker: ``greeks``; delta and gamma per coin, vega and rho per 1 %, theta a day."""

    delta: Number | None = None
    gamma: Number | None = None
    vega: Number | None = None
    theta: Number | None = None
    rho: Number | None = None


class Ticker(Struct):
    """Channel ticker.{instrument_name}.{interval}; the IVs are in per cent."""

    instrument_name: Name
    timestamp: Milliseconds
    best_bid_price: Number | None = None
    best_bid_amount: Number | None = None
    best_ask_price: Number | None = None
    best_ask_amount: Number | None = None
    underlying_index: Name | None = None
    underlying_price: Number | None = None
    index_price: Number | None = None
    mark_price: Number | None = None
    mark_iv: Number | None = None
    bid_iv: Number | None = None
    ask_iv: Number | None = None
    open_interest: Number | None = None
    greeks: Greeks | None = None


Level = tuple[Literal["new", "change", "delete"], Number, Number]


class Book(Struct):
    """Channel book.{instrument_name}.{interval}; a change has in ``prev_change_id`` the change_id of the message before it."""

    instrument_name: Name
    timestamp: Milliseconds
    type: Literal["snapshot", "change"]
    change_id: ChangeId
    prev_change_id: ChangeId | None = None
    bids: list[Level] = []
    asks: list[Level] = []
    channel: str = ""
    """Set here, from the message around it."""


class Trade(Struct):
    """One element of channel trades.{instrument_name}.{interval}; ``direction`` is the aggressor's."""

    instrument_name: Name
    timestamp: Milliseconds
    trade_id: Name
    price: Number
    amount: Number
    direction: Literal["buy", "sell"]


class Listing(Struct):
    """One element of the result of public/get_instruments; the result of public/get_instrument."""

    instrument_name: Name
    kind: Name
    tick_size: Number | None = None
    contract_size: Number | None = None
    min_trade_amount: Number | None = None
    strike: Number | None = None
    expiration_timestamp: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    option_type: Literal["call", "put"] | None = None
    base_currency: Name | None = None
    quote_currency: Name | None = None
    is_active: bool = True


class Listings(Struct):
    """An answer of public/get_instruments (or get_instrument) as of ``at_ns``, the venue's clock; 0: not told."""

    items: list[Listing]
    at_ns: int
    group: str = ""
    """"currency/kind" that was asked for, if our request's id says so."""
    whole: bool = False
    """``items`` are all of the group."""


class StateChange(Struct):
    """Channel instrument.state.{kind}.{currency}."""

    instrument_name: Name
    state: Name
    timestamp: Milliseconds

    @property
    def listed(self) -> bool:
        """It can be traded from now on."""
        return self.state in _LISTED_STATES

    @property
    def gone(self) -> bool:
        """It will never be traded again."""
        return self.state in _GONE_STATES


class _Params(Struct):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = _ABSENT


class _Envelope(Struct):
    id: int | str | None = None
    method: str | None = None
    params: _Params | None = None
    result: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    us_out: Annotated[int, Meta(ge=0, le=9_000_000_000_000_000)] = msgspec.field(default=0, name="usOut")


class Other(Struct):
    """A message without market data, by kind: answer, error, heartbeat, test_request, or other."""

    kind: str


Message = Ticker | Book | list[Trade] | Listings | StateChange | Other

_ENVELOPE = msgspec.json.Decoder(_Envelope)
_TICKER = msgspec.json.Decoder(Ticker)
_BOOK = msgspec.json.Decoder(Book)
_TRADES = msgspec.json.Decoder(list[Trade])
_LISTINGS = msgspec.json.Decoder(list[Listing])
_LISTING = msgspec.json.Decoder(Listing)
_STATE = msgspec.json.Decoder(StateChange)
_HEARTBEATS = ("heartbeat", "test_request")
_STATE_CHANNEL = "instrument.state."
_LISTED_STATES = ("created", "started", "open")
_GONE_STATES = ("closed", "terminated", "delivered", "archivized")
_NS_PER_US = 1_000
_LISTING_ID = re.compile(r"[0-9]+/instruments?/([A-Za-z0-9_]+/[a-z_]+)", re.ASCII)


def listing_id(number: int, currency: str, kind: str, *, whole: bool) -> str:
    """The id of a request for instruments. The answer repeats it, and so says by itself what it is the answer to."""
    return f"{number}/{'instruments' if whole else 'instrument'}/{currency}/{kind}"


def parse(payload: bytes) -> Message:
    """One message. Raises DecodeError, and nothing else, whatever the bytes."""
    try:
        return _parse(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise DecodeError(str(error)[:200]) from None


def _parse(payload: bytes) -> Message:
    envelope = _ENVELOPE.decode(payload)
    params = envelope.params
    if envelope.method == "subscription":
        if params is None or not params.channel:
            raise DecodeError("a subscription message without params.channel")
        kind = params.channel.partition(".")[0]
        if kind == "ticker":
            return _TICKER.decode(params.data)
        if kind == "book":
            book = _BOOK.decode(params.data)
            book.channel = params.channel
            return book
        if kind == "trades":
            return _TRADES.decode(params.data)
        if params.channel.startswith(_STATE_CHANNEL):
            return _STATE.decode(params.data)
        return Other("other")
    if envelope.method == "heartbeat":
        return Other(params.type if params is not None and params.type in _HEARTBEATS else "heartbeat")
    if envelope.method is not None:
        return Other("other")
    if bytes(envelope.error) not in (b"", b"null"):
        return Other("error")
    result = bytes(envelope.result)
    if not result:
        raise DecodeError("an object with neither method, result nor error")
    if b'"instrument_name"' in result and b'"kind"' in result:
        begin, at_ns = result.lstrip()[:1], envelope.us_out * _NS_PER_US
        asked = _LISTING_ID.fullmatch(str(envelope.id))
        if begin == b"[":
            return Listings(_LISTINGS.decode(result), at_ns, asked[1] if asked else "", whole=True)
        if begin == b"{":
            return Listings([_LISTING.decode(result)], at_ns, asked[1] if asked else "")
    return Other("answer")
