"""Deribit's instrument names, and the definition that follows from a name alone.

API docs, "Naming": BTC-25MAR22-400000-C (option), BTC-24SEP21 (future), BTC-PERPETUAL, SOL_USDC-30JUN23-20-C
(linear), XRP_USDC-30JUN23-0d625-C ("d" is the decimal point), BTC_USDC (spot). ``underlying_index`` of a ticker is a
future's name, "SYN." and the name of one that is not listed, or "index_price". Futures and options expire at 08:00 UTC.

The definition's ``style`` says how a price becomes one in the currency of the strike. Options on a coin are quoted in
that coin (INVERSE). Futures are quoted in the strike's currency: LINEAR here, although the older ones settle in coin.
"""

from __future__ import annotations

import calendar
import re

from nodes.feed.definitions import Definition
from nodes.records import InstrumentState, Kind, Style

_HOUR_NS = 3_600 * 10**9
_EXPIRY_HOUR_UTC = 8
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_NAME = re.compile(
    r"(?:SYN\.)?(?P<base>[A-Z0-9]+)(?:_(?P<quote>[A-Z0-9]+))?"
    r"(?:-(?:(?P<perpetual>PERPETUAL)|(?P<expiry>\d{1,2}[A-Z]{3}\d{2})(?:-(?P<strike>\d+(?:d\d+)?)-(?P<right>[CP]))?))?",
    re.ASCII,
)
_SYNTHETIC = "SYN."
_SYMBOL_BYTES = 32
_UNDERLYING_BYTES = 8
_SYNTHETIC_TICK = 0.01
_OPTION_TICK = {"BTC": 0.0005, "ETH": 0.0005}
_OPTION_LOT = {"BTC": 0.1, "ETH": 1.0}
_FUTURE_TICK = {"BTC": 0.5, "ETH": 0.05}
_FUTURE_LOT = {"BTC": 10.0, "ETH": 1.0}


def parse_expiry_ns(text: str) -> int:
    """``"9APR21"`` to 2021-04-09 08:00 UTC. Raises ValueError."""
    day, month, year = int(text[:-5]), text[-5:-2], 2000 + int(text[-2:])
    if month not in _MONTHS:
        raise ValueError(f"no month {month!r}")
    number = _MONTHS.index(month) + 1
    if not 1 <= day <= calendar.monthrange(year, number)[1]:
        raise ValueError(f"no day {day} in {month} {year}")
    return (calendar.timegm((year, number, day, 0, 0, 0)) // 3_600 + _EXPIRY_HOUR_UTC) * _HOUR_NS


def define(name: str) -> Definition:
    """The definition that a name implies; tick, lot and multiplier are the venue's usual ones. Raises ValueError."""
    match = _NAME.fullmatch(name)
    if match is None or len(name) > _SYMBOL_BYTES or len(match["base"]) > _UNDERLYING_BYTES:
        raise ValueError(f"{name[:48]!r} is not an instrument name")
    if not (match["expiry"] or match["perpetual"] or match["quote"]):
        raise ValueError(f"{name!r} has no expiry")
    base, strike_currency = match["base"], match["quote"] or "USD"
    if len(strike_currency) > _UNDERLYING_BYTES:
        raise ValueError(f"{name!r} is not an instrument name")
    expiry_ns = parse_expiry_ns(match["expiry"]) if match["expiry"] else 0
    strike, kind, style, currency = 0.0, Kind.FUTURE, Style.LINEAR, strike_currency
    tick, lot, multiplier = _FUTURE_TICK.get(base, 0.01), _FUTURE_LOT.get(base, 1.0), _FUTURE_LOT.get(base, 1.0)
    if match["right"]:
        strike = float(match["strike"].replace("d", "."))
        kind = Kind.CALL if match["right"] == "C" else Kind.PUT
        tick, lot, multiplier = _OPTION_TICK.get(base, 0.0001), _OPTION_LOT.get(base, 1.0), 1.0
        if match["quote"] is None:
            style, currency = Style.INVERSE, base
    elif match["perpetual"]:
        kind = Kind.PERPETUAL
    elif not match["expiry"]:
        kind, multiplier = Kind.SPOT, 1.0
    if name.startswith(_SYNTHETIC):
        tick, lot, multiplier = _SYNTHETIC_TICK, 0.0, 1.0
    if not strike < 1e15:
        raise ValueError(f"{name!r} has an impossible strike")
    return Definition(name, base, currency, strike, expiry_ns, tick, lot, multiplier, kind, style, InstrumentState.OPEN)


def underlying_symbol(underlying_index: str, instrument: str) -> str:
    """The instrument whose quote an option's ``underlying_price`` is.

    It is the future that ``underlying_index`` names, listed or synthetic. "index_price" names none: the price is then
    the synthetic forward of this option's own expiry, so it gets the name that the venue uses for those.
    """
    if _NAME.fullmatch(underlying_index) and "-" in underlying_index:
        return underlying_index
    base, _, rest = instrument.partition("-")
    return f"{_SYNTHETIC}{base}-{rest.partition('-')[0]}"
