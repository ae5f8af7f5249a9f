"""Quotes of single options, one after the other: volatilities and greeks as finished records, with nothing of Python's or
numpy's for each of them.

The layouts, ``QUOTE_FIELDS`` and native.chain's ``RECORD_FIELDS``, are those of QUOTE and GREEKS of nodes.records (tests hold
them together). Each value has the bits that native.black's arrays give: the kernel gives one option the bits it gives in an
array.
"""

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.math cimport NAN, isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t

from native.black cimport EXPIRED, NON_POSITIVE, Values, greeks_one, implied_vol_one

cnp.import_array()

QUOTE_FIELDS = (
    "ts_event_ns", "ts_origin_ns", "ts_publish_ns", "instrument", "flags", "bid", "ask", "bid_size", "ask_size",
)

cdef enum:
    VALUES = 8

cpdef enum Stop:
    """Why ``QuotePricer.take`` came to an end before the last quote; codes below are those of native.black.Status."""
    ALL_TAKEN = -1
    NOT_AN_OPEN_OPTION = -2
    EMPTY = -3
    NO_FORWARD = -4

cdef struct Quote:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    double bid, ask, bid_size, ask_size

cdef struct Record:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    double forward, iv
    double values[VALUES]
    double bid_iv, ask_iv

cdef double YEAR_NS = 365.0 * 86_400.0 * 1e9
cdef dict _SLOTS = {
    "kind": cnp.NPY_UINT8, "inverse": cnp.NPY_BOOL, "open": cnp.NPY_BOOL, "chain": cnp.NPY_INT64, "expiry_ns": cnp.NPY_INT64,
    "strike": cnp.NPY_FLOAT64, "bid": cnp.NPY_FLOAT64, "ask": cnp.NPY_FLOAT64, "iv": cnp.NPY_FLOAT64,
    "bid_iv": cnp.NPY_FLOAT64, "ask_iv": cnp.NPY_FLOAT64, "origin_ns": cnp.NPY_INT64, "stale": cnp.NPY_BOOL,
    "waiting": cnp.NPY_BOOL,
}
cdef dict _FORWARDS = {"own": cnp.NPY_FLOAT64, "fallback": cnp.NPY_INT64, "stale": cnp.NPY_BOOL}


cdef void* _column(dict arrays, str name, int code) except NULL:
    array = arrays[name]
    if (
        not cnp.PyArray_CheckExact(array) or cnp.PyArray_TYPE(array) != code or not cnp.PyArray_ISCARRAY(array)
        or cnp.PyArray_NDIM(array) != 1
    ):
        raise ValueError(f"{name}: not a contiguous, writable array of the right type")
    return cnp.PyArray_DATA(array)


cdef class QuotePricer:
    """Prices quotes of options from and into the columns of ``slots`` and ``forwards`` (dicts of arrays, by the names in
    ``columns`` and ``forward_columns``), which are used where they lie: whoever replaces one makes a new QuotePricer.
    ``slot_of`` is instrument to slot. ``stale_flag`` marks records of stale quotes or forwards, ``last`` all."""

    columns = tuple(_SLOTS)
    forward_columns = tuple(_FORWARDS)

    cdef dict _slot_of, _kept, _kept_forwards
    cdef uint8_t _call, _put
    cdef uint32_t _stale_flag, _last
    cdef Py_ssize_t _slots, _chains
    cdef uint8_t *_kind
    cdef uint8_t *_inverse
    cdef uint8_t *_open
    cdef uint8_t *_stale
    cdef uint8_t *_waiting
    cdef uint8_t *_forward_stale
    cdef int64_t *_chain
    cdef int64_t *_expiry_ns
    cdef int64_t *_origin_ns
    cdef int64_t *_fallback
    cdef double *_strike
    cdef double *_bid
    cdef double *_ask
    cdef double *_iv
    cdef double *_bid_iv
    cdef double *_ask_iv
    cdef double *_own
    cdef readonly Py_ssize_t row
    """The first quote that ``take`` has not dealt with."""
    cdef readonly Py_ssize_t written
    """How many records it wrote."""
    cdef readonly Py_ssize_t slot
    """Of the quote that it stopped at."""

    def __init__(self, dict slot_of not None, dict slots not None, dict forwards not None, *, uint8_t call, uint8_t put,
                 uint32_t stale_flag, uint32_t last):
        if set(slots) != set(_SLOTS) or set(forwards) != set(_FORWARDS):
            raise ValueError(f"columns are {', '.join(_SLOTS)}; of forwards {', '.join(_FORWARDS)}")
        self._slot_of, self._kept, self._kept_forwards = slot_of, dict(slots), dict(forwards)
        self._slots, self._chains = len(slots["iv"]), len(forwards["own"])
        for arrays, count in ((slots, self._slots), (forwards, self._chains)):
            if any(len(array) != count for array in arrays.values()):
                raise ValueError("columns must be equally long")
        self._call, self._put, self._stale_flag, self._last = call, put, stale_flag, last
        self._kind = <uint8_t *>_column(slots, "kind", _SLOTS["kind"])
        self._inverse = <uint8_t *>_column(slots, "inverse", _SLOTS["inverse"])
        self._open = <uint8_t *>_column(slots, "open", _SLOTS["open"])
        self._stale = <uint8_t *>_column(slots, "stale", _SLOTS["stale"])
        self._waiting = <uint8_t *>_column(slots, "waiting", _SLOTS["waiting"])
        self._chain = <int64_t *>_column(slots, "chain", _SLOTS["chain"])
        self._expiry_ns = <int64_t *>_column(slots, "expiry_ns", _SLOTS["expiry_ns"])
        self._origin_ns = <int64_t *>_column(slots, "origin_ns", _SLOTS["origin_ns"])
        self._strike = <double *>_column(slots, "strike", _SLOTS["strike"])
        self._bid = <double *>_column(slots, "bid", _SLOTS["bid"])
        self._ask = <double *>_column(slots, "ask", _SLOTS["ask"])
        self._iv = <double *>_column(slots, "iv", _SLOTS["iv"])
        self._bid_iv = <double *>_column(slots, "bid_iv", _SLOTS["bid_iv"])
        self._ask_iv = <double *>_column(slots, "ask_iv", _SLOTS["ask_iv"])
        self._own = <double *>_column(forwards, "own", _FORWARDS["own"])
        self._fallback = <int64_t *>_column(forwards, "fallback", _FORWARDS["fallback"])
        self._forward_stale = <uint8_t *>_column(forwards, "stale", _FORWARDS["stale"])

    def defined(self, cnp.ndarray quotes not None):
        """Are the instruments of all these quotes defined?"""
        cdef const Quote *quote = _quotes(quotes)
        cdef Py_ssize_t i
        for i in range(cnp.PyArray_DIM(quotes, 0)):
            if PyDict_GetItem(self._slot_of, quote[i].instrument) == NULL:
                return False
        return True

    def take(self, cnp.ndarray quotes not None, Py_ssize_t begin, Py_ssize_t end, bint stale, cnp.ndarray records not None):
        """Price the quotes from row ``begin`` up to ``end`` into ``records`` (room for as many; from its beginning), up to the
        first one that is not of an open option or has no volatility. All but the first kind are dealt with then: ``row`` is
        behind it. Returns a ``Stop``, or why there is no volatility (native.black.Status, of the ask if there is one)."""
        cdef const Quote *all_quotes = _quotes(quotes)
        cdef Record *to
        cdef PyObject *found
        cdef Py_ssize_t slot
        cdef int reason
        self.row, self.written, self.slot = begin, 0, -1
        if not 0 <= begin <= end <= cnp.PyArray_DIM(quotes, 0):
            raise IndexError(f"rows {begin} to {end} of {cnp.PyArray_DIM(quotes, 0)}")
        if (
            not cnp.PyArray_ISCARRAY(records) or cnp.PyArray_NDIM(records) != 1
            or cnp.PyArray_ITEMSIZE(records) != sizeof(Record) or cnp.PyArray_DIM(records, 0) < end - begin
        ):
            raise TypeError(f"records must be a writable array of {end - begin} or more, {sizeof(Record)} bytes each")
        to = <Record *>cnp.PyArray_DATA(records)
        while self.row < end:
            found = PyDict_GetItem(self._slot_of, all_quotes[self.row].instrument)
            slot = -1 if found == NULL else <object>found
            if slot >= self._slots:
                raise IndexError(f"slot {slot} of {self._slots}")
            if slot < 0 or not self._open[slot] or (self._kind[slot] != self._call and self._kind[slot] != self._put):
                self.slot = slot
                return NOT_AN_OPEN_OPTION
            reason = self._price(&all_quotes[self.row], slot, stale, to + self.written)
            self.row += 1
            if reason != 0:
                self.slot = slot
                return reason
            self.written += 1
        return ALL_TAKEN

    cdef int _price(self, const Quote *quote, Py_ssize_t slot, bint stale, Record *to) except? -9:
        """0 and a record, or why not."""
        cdef Py_ssize_t chain = self._chain[slot]
        cdef double forward, scale, years, iv, bid_iv = NAN, ask_iv = NAN
        cdef unsigned char bid_status = 0, ask_status = 0
        cdef bint call = self._kind[slot] == self._call
        cdef bint no_forward
        cdef int64_t left_ns = self._expiry_ns[slot] - quote.ts_event_ns
        cdef Values values
        if not 0 <= chain < self._chains:
            raise IndexError(f"chain {chain} of {self._chains}")
        forward = self._own[chain]
        if isnan(forward):
            chain = self._fallback[chain]
            if not 0 <= chain < self._chains:
                raise IndexError(f"chain {chain} of {self._chains}")
            forward = self._own[chain]
        stale = stale or (quote.flags & self._stale_flag) != 0
        years = <double>left_ns / YEAR_NS
        scale = forward if self._inverse[slot] else 1.0
        if quote.bid > 0:
            bid_iv = implied_vol_one(quote.bid * scale, forward, self._strike[slot], years, call, 1.0, &bid_status)
        if quote.ask > 0:
            ask_iv = implied_vol_one(quote.ask * scale, forward, self._strike[slot], years, call, 1.0, &ask_status)
        iv = ask_iv if isnan(bid_iv) else (bid_iv if isnan(ask_iv) else 0.5 * (bid_iv + ask_iv))
        no_forward = isnan(forward) and (quote.bid > 0 or quote.ask > 0) and years > 0
        self._bid[slot], self._ask[slot] = quote.bid, quote.ask
        self._stale[slot], self._origin_ns[slot] = stale, quote.ts_origin_ns
        self._iv[slot], self._bid_iv[slot], self._ask_iv[slot] = iv, bid_iv, ask_iv
        self._waiting[slot] = no_forward
        if isnan(iv):
            if no_forward:
                return NO_FORWARD
            if years <= 0:
                return EXPIRED
            if not quote.bid > 0 and not quote.ask > 0:
                return EMPTY
            return (ask_status if quote.ask > 0 else bid_status) or NON_POSITIVE
        greeks_one(forward, self._strike[slot], years, iv, call, 1.0, True, &values)
        to.ts_event_ns, to.ts_origin_ns, to.ts_publish_ns = quote.ts_event_ns, quote.ts_origin_ns, 0
        to.instrument = quote.instrument
        to.flags = self._last | (self._stale_flag if stale or self._forward_stale[chain] else 0)
        to.forward, to.iv, to.bid_iv, to.ask_iv = forward, iv, bid_iv, ask_iv
        to.values[0], to.values[1], to.values[2], to.values[3] = values.price, values.delta, values.gamma, values.vega
        to.values[4], to.values[5], to.values[6], to.values[7] = values.theta, values.rho, values.vanna, values.volga
        return 0


cdef const Quote *_quotes(cnp.ndarray quotes) except NULL:
    if (
        not cnp.PyArray_ISCARRAY_RO(quotes) or cnp.PyArray_NDIM(quotes) != 1
        or cnp.PyArray_ITEMSIZE(quotes) != sizeof(Quote)
    ):
        raise TypeError(f"quotes must be a contiguous array of {sizeof(Quote)} bytes each")
    return <const Quote *>cnp.PyArray_DATA(quotes)
