"""The definition that one element of public/get_instruments makes."""

from __future__ import annotations

import re
from typing import Any

from nodes.feed.definitions import Definition
from nodes.feed.deribit_messages import Listing
from nodes.feed.deribit_names import define
from nodes.records import InstrumentState, Kind, Style

_NS_PER_MS = 1_000_000
_CURRENCY = re.compile(r"[A-Z0-9]{1,8}", re.ASCII)


def listed(listing: Listing) -> Definition:
    """What the venue lists; where it says nothing, what follows from the name. Raises ValueError."""
    definition = define(listing.instrument_name)
    changes: dict[str, Any] = {"state": InstrumentState.OPEN if listing.is_active else InstrumentState.CLOSED}
    if listing.base_currency is not None and _CURRENCY.fullmatch(listing.base_currency):
        changes["underlying"] = listing.base_currency
    if listing.quote_currency is not None and _CURRENCY.fullmatch(listing.quote_currency):
        changes["currency"] = listing.quote_currency
        if listing.kind == "option":
            changes["style"] = Style.INVERSE if listing.quote_currency == listing.base_currency else Style.LINEAR
    numbers = {
        "strike": listing.strike,
        "tick": listing.tick_size,
        "lot": listing.min_trade_amount,
        "multiplier": listing.contract_size,
    }
    changes |= {name: number for name, number in numbers.items() if number is not None}
    if listing.expiration_timestamp is not None and definition.kind not in (Kind.PERPETUAL, Kind.SPOT):
        expiry_ns = listing.expiration_timestamp * _NS_PER_MS
        if expiry_ns >= 2**63:
            raise ValueError(f"{listing.instrument_name!r} expires too late")
        changes["expiry_ns"] = expiry_ns
    if listing.option_type is not None and listing.kind == "option":
        changes["kind"] = Kind.CALL if listing.option_type == "call" else Kind.PUT
    return definition._replace(**changes)
