"""The market's record types. Sizes are fixed: quote, trade and book 64 bytes; definitions, greeks and marks 128, risk 136.

Prices are in the instrument's quote unit (coin for inverse options such as Deribit's), sizes in contracts.
An absent price is 0 with size 0 (one-sided and empty quotes are common). Times are UTC nanoseconds.
"""

from __future__ import annotations

import enum

from fabric.records import record


class Kind(enum.IntEnum):
    """``instrument.kind``."""

    FUTURE = 1
    CALL = 2
    PUT = 3
    SPOT = 4
    PERPETUAL = 5


class Style(enum.IntEnum):
    """``instrument.style``: how an instrument settles."""

    LINEAR = 0
    """Quoted and settled in the currency of the strike."""
    INVERSE = 1
    """Quoted and settled in the underlying coin: value in strike currency = price x forward."""


class InstrumentState(enum.IntEnum):
    """``instrument.state``."""

    OPEN = 0
    CLOSED = 1


class Action(enum.IntEnum):
    """``book.action``. DELETE and CLEAR are what a book image understands (fabric.records.RecordType)."""

    NEW = 0
    CHANGE = 1
    DELETE = 2
    CLEAR = 3
    """The book of this instrument starts anew; the levels follow."""


class Side(enum.IntEnum):
    """``book.side`` and ``trade.side`` (the aggressor's)."""

    NONE = 0
    BID = 1
    ASK = 2


QUOTE = record("quote", image="last", bid="f8", ask="f8", bid_size="f8", ask_size="f8")

TRADE = record("trade", price="f8", size="f8", id="u8", side="u1")

BOOK = record(
    "book",
    image="book",
    key=("instrument", "side", "price"),
    order="u8",
    price="f8",
    size="f8",
    action="u1",
    side="u1",
    level="u2",
)
"""One level (L2, ``order`` 0) or one order (L3) of a book."""

INSTRUMENT = record(
    "instrument",
    image="last",
    symbol="S32",
    underlying="S8",
    currency="S8",
    strike="f8",
    expiry_ns="i8",
    tick="f8",
    lot="f8",
    multiplier="f8",
    kind="u1",
    style="u1",
    state="u1",
)
"""A definition; delivered before the first record that uses its id. ``expiry_ns`` is 0 where there is none."""

GREEKS = record(
    "greeks",
    image="last",
    forward="f8",
    iv="f8",
    price="f8",
    delta="f8",
    gamma="f8",
    vega="f8",
    theta="f8",
    rho="f8",
    vanna="f8",
    volga="f8",
    bid_iv="f8",
    ask_iv="f8",
)
"""Undiscounted, in strike currency, to the forward: vega, rho per 1.00; theta per year of 365 days; NaN where unknown."""

MARK = record(
    "mark",
    image="last",
    forward="f8",
    mark_price="f8",
    mark_iv="f8",
    delta="f8",
    gamma="f8",
    vega="f8",
    theta="f8",
    rho="f8",
    index_price="f8",
    open_interest="f8",
    bid_iv="f8",
    ask_iv="f8",
)
"""What the venue itself computes, in the venue's units (Deribit: IVs as fractions here, vega and rho per 1 %, theta a day)."""


class SurfaceState(enum.IntFlag):
    """``surface.state``: what is to be known of a slice; 0 where nothing is."""

    NOT_CONVERGED = 1
    """The fit ran out of steps."""
    RAISED = 2
    """It was lifted off the quotes as a whole, to be free of arbitrage."""
    BUTTERFLY = 4
    """It has butterfly arbitrage: ``min_g`` is negative."""
    CALENDAR = 8
    """It is below the slice before: ``min_gap`` is negative."""
    TOO_FEW = 16
    """There were too few strikes for a fit: this is the last slice there was."""


SURFACE = record(
    "surface",
    image="last",
    key=("underlying", "expiry_ns"),
    underlying="S8",
    expiry_ns="i8",
    forward="f8",
    years="f8",
    a="f8",
    b="f8",
    rho="f8",
    m="f8",
    sigma="f8",
    low="f8",
    high="f8",
    rmse="f8",
    min_g="f8",
    min_g_at="f8",
    min_gap="f8",
    min_gap_at="f8",
    strikes="u4",
    inside="u4",
    passes="u4",
    state="u4",
)
"""One expiry's raw SVI slice: total variance volatility^2 x ``years`` = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), with
k = ln(strike / forward) and ``years`` ACT/365 at the time of the fit (native.svi, docs/surface.md).

``strikes`` had a volatility of bid and ask, and were fitted; the slice passes ``inside`` of these. ``rmse`` is to their mid
volatilities, unweighted: 0.01 is one point. ``low`` to ``high`` is where calendar arbitrage is looked for, ``min_gap`` the
smallest total variance above the slice before (NaN: there is none)."""

RISK = record(
    "risk",
    image="last",
    key=("underlying",),
    underlying="S8",
    value="f8",
    delta="f8",
    gamma="f8",
    vega="f8",
    theta="f8",
    rho="f8",
    stale_delta="f8",
    stale_vega="f8",
    positions="u4",
    priced="u4",
    stale="u4",
    carried="u4",
    worst_pnl="f8",
    worst_spot_move="f8",
)
"""Exposure of one underlying; instrument 0 and underlying "" is the total of all. Units as GREEKS, times quantity.

``stale_delta`` and ``stale_vega`` are the sums of |delta| and |vega| of positions that rest on stale inputs; ``priced``,
``stale`` and ``carried`` count positions.
"""

GRID = record(
    "grid",
    image="last",
    key=("underlying", "row", "column"),
    underlying="S8",
    spot_move="f8",
    vol_move="f8",
    value="f8",
    pnl="f8",
    row="u4",
    column="u4",
)
"""One cell of the spot x volatility grid: value and profit of all positions of an underlying, revalued."""

BREACH = record(
    "breach",
    image="last",
    key=("underlying", "measure"),
    conflate=False,
    underlying="S8",
    measure="S16",
    value="f8",
    limit="f8",
    active="u8",
)
"""A limit was crossed (active 1) or is kept again (active 0): each time counts. ``measure`` is a field of RISK."""
