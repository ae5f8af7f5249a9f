"""Option chains whose forward moved: each live option's greeks, from its carried volatility, as finished records.

The records' layout, ``RECORD_FIELDS``, is that of GREEKS of nodes.records (a test holds the two together). Options are gathered from
columns by slot in blocks of 256, go through the block kernel of native.black with forward and expiry shared, and are
written out whole, so each value has the bits that native.black.greeks2 gives.
"""

import numpy as np

cimport numpy as cnp
from libc.math cimport isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t

from native.black cimport Column, greeks8_block

cnp.import_array()

RECORD_FIELDS = (
    "ts_event_ns", "ts_origin_ns", "ts_publish_ns", "instrument", "flags", "forward", "iv", "price", "delta", "gamma",
    "vega", "theta", "rho", "vanna", "volga", "bid_iv", "ask_iv",
)

cdef enum:
    BLOCK = 256
    ROW = 264  # rows of 2048 bytes would share two sets of the first-level cache
    FIELDS = 8

cdef struct Record:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    double forward, iv
    double values[FIELDS]
    double bid_iv, ask_iv

cdef struct Options:
    const uint32_t* instrument
    const uint8_t* kind
    const uint8_t* stale
    const uint8_t* waiting
    const int64_t* expiry_ns
    const double* strike
    const double* iv
    const double* bid_iv
    const double* ask_iv
    uint8_t call
    uint32_t stale_flag

cdef double YEAR_NS = 365.0 * 86_400.0 * 1e9
cdef dict _KINDS = {
    "instrument": cnp.NPY_UINT32, "kind": cnp.NPY_UINT8, "stale": cnp.NPY_BOOL, "waiting": cnp.NPY_BOOL,
    "expiry_ns": cnp.NPY_INT64, "strike": cnp.NPY_FLOAT64, "iv": cnp.NPY_FLOAT64, "bid_iv": cnp.NPY_FLOAT64,
    "ask_iv": cnp.NPY_FLOAT64,
}


cdef void _carry_block(
    Record* to, const int64_t* slots, int count, const Options* options, const Record* head, double expiry_years
) noexcept nogil:
    cdef double strike[BLOCK]
    cdef double iv[BLOCK]
    cdef double values[FIELDS][ROW]
    cdef uint8_t is_call[BLOCK]
    cdef double discount = 1.0
    cdef Column inputs[6]
    cdef Column outputs[FIELDS]
    cdef int64_t slot
    cdef Record* record
    cdef int64_t event_ns = head.ts_event_ns, origin_ns = head.ts_origin_ns
    cdef uint32_t flags = head.flags
    cdef double forward = head.forward
    cdef int i, c
    for i in range(count):
        slot = slots[i]
        strike[i] = options.strike[slot]
        iv[i] = options.iv[slot]
        is_call[i] = options.kind[slot] == options.call
    inputs[0].data, inputs[0].step = <char*>&forward, 0
    inputs[1].data, inputs[1].step = <char*>strike, sizeof(double)
    inputs[2].data, inputs[2].step = <char*>&expiry_years, 0
    inputs[3].data, inputs[3].step = <char*>iv, sizeof(double)
    inputs[4].data, inputs[4].step = <char*>is_call, 1
    inputs[5].data, inputs[5].step = <char*>&discount, 0
    for c in range(FIELDS):
        outputs[c].data, outputs[c].step = <char*>values[c], sizeof(double)
    greeks8_block(count, inputs, outputs)
    for i in range(count):
        slot = slots[i]
        record = to + i
        record.ts_event_ns = event_ns
        record.ts_origin_ns = origin_ns
        record.ts_publish_ns = 0
        record.instrument = options.instrument[slot]
        record.flags = flags | (options.stale_flag if options.stale[slot] else 0)
        record.forward = forward
        record.iv = iv[i]
        for c in range(FIELDS):
            record.values[c] = values[c][i]
        record.bid_iv = options.bid_iv[slot]
        record.ask_iv = options.ask_iv[slot]


cdef Py_ssize_t _carry_chain(
    Record* to, Py_ssize_t room, const int64_t* slots, Py_ssize_t count, const Options* options, const Record* head,
    uint32_t last
) noexcept nogil:
    """One chain's options that have a volatility, the last record flagged ``last``; returns how many, -1 if they are
    more than there is ``room`` for."""
    cdef int64_t chosen[BLOCK]
    cdef Py_ssize_t i, done = 0
    cdef int found = 0
    cdef double years = 0.0
    if count:
        years = <double>(options.expiry_ns[slots[0]] - head.ts_event_ns) / YEAR_NS
    for i in range(count):
        chosen[found] = slots[i]
        found += not isnan(options.iv[slots[i]])
        if found == BLOCK or (i == count - 1 and found):
            if done + found > room:
                return -1
            _carry_block(to + done, chosen, found, options, head, years)
            done += found
            found = 0
    if done:
        to[done - 1].flags |= last
    return done


cdef class Carrier:
    """The columns of a set of options, by slot: one array each for the names in ``Carrier.columns``, equally long,
    contiguous; ``call`` is the kind of a call, ``stale_flag`` what the record of a stale option is flagged with. The
    columns are read where they lie: whoever replaces one by another array makes a new Carrier."""

    columns = tuple(_KINDS)

    cdef Options _options
    cdef Py_ssize_t _count
    cdef tuple _arrays

    def __init__(self, uint8_t call, uint32_t stale_flag, **arrays):
        if set(arrays) != set(_KINDS):
            raise ValueError(f"columns are {', '.join(_KINDS)}")
        self._count = len(arrays["iv"])
        for name, array in arrays.items():
            if (
                not cnp.PyArray_CheckExact(array) or cnp.PyArray_TYPE(array) != _KINDS[name]
                or not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_NDIM(array) != 1 or len(array) != self._count
            ):
                raise ValueError(f"{name}: not an array of the right type and length")
        self._arrays = tuple(arrays.values())
        self._options.call, self._options.stale_flag = call, stale_flag
        self._options.instrument = <const uint32_t*>cnp.PyArray_DATA(arrays["instrument"])
        self._options.kind = <const uint8_t*>cnp.PyArray_DATA(arrays["kind"])
        self._options.stale = <const uint8_t*>cnp.PyArray_DATA(arrays["stale"])
        self._options.waiting = <const uint8_t*>cnp.PyArray_DATA(arrays["waiting"])
        self._options.expiry_ns = <const int64_t*>cnp.PyArray_DATA(arrays["expiry_ns"])
        self._options.strike = <const double*>cnp.PyArray_DATA(arrays["strike"])
        self._options.iv = <const double*>cnp.PyArray_DATA(arrays["iv"])
        self._options.bid_iv = <const double*>cnp.PyArray_DATA(arrays["bid_iv"])
        self._options.ask_iv = <const double*>cnp.PyArray_DATA(arrays["ask_iv"])

    def chains(self, slots, bounds):
        """The options at ``slots`` as a ``ChainGroup``; see there."""
        return ChainGroup(self, slots, bounds)


cdef class ChainGroup:
    """Chains of one forward: ``slots`` (int64) are their options, ``bounds`` (int64) where each chain of one expiry begins
    and the last one ends, as positions in ``slots``."""

    cdef Carrier _carrier
    cdef const int64_t* _slot
    cdef const int64_t* _bound
    cdef Py_ssize_t _count, _chains
    cdef tuple _arrays

    def __init__(self, Carrier carrier not None, slots, bounds):
        slots, bounds = np.array(slots), np.array(bounds)  # our own: what is checked here must stay so
        self._slot = _numbers(slots, carrier._count)
        self._bound = _numbers(bounds, cnp.PyArray_SIZE(slots) + 1)
        self._count, self._chains = cnp.PyArray_SIZE(slots), cnp.PyArray_SIZE(bounds) - 1
        if self._chains < 0 or (np.diff(bounds) < 0).any() or self._bound[0] != 0 or self._bound[self._chains] != self._count:
            raise ValueError("bounds must ascend from 0 to the number of slots")
        self._carrier, self._arrays = carrier, (slots, bounds)

    def carried(self, int64_t event_ns):
        """How many of the options have a volatility to carry; -1 if one of them is waiting for its first forward, or
        has one and is expired at ``event_ns``: those need more than this class does."""
        cdef const Options* options = &self._carrier._options
        cdef Py_ssize_t i, found = 0
        cdef int64_t at
        for i in range(self._count):
            at = self._slot[i]
            if options.waiting[at]:
                return -1
            if not isnan(options.iv[at]):
                if options.expiry_ns[at] <= event_ns:
                    return -1
                found += 1
        return found

    def carry(self, records, *, double forward, int64_t event_ns, int64_t origin_ns, uint32_t flags, uint32_t last):
        """Write the greeks of these options at a new ``forward`` into ``records``, as many as ``carried`` tells. All of
        them get ``flags``, each chain's last one ``last`` too."""
        cdef Py_ssize_t i, more = 0, done = 0, room
        cdef Record head
        cdef Record* to
        if (
            not cnp.PyArray_Check(records) or not cnp.PyArray_ISCARRAY(records) or records.ndim != 1
            or records.itemsize != sizeof(Record)
        ):
            raise TypeError(f"records must be a contiguous, writable array of {sizeof(Record)} bytes each")
        to, room = <Record*>cnp.PyArray_DATA(records), cnp.PyArray_SIZE(records)
        head.ts_event_ns, head.ts_origin_ns, head.flags, head.forward = event_ns, origin_ns, flags, forward
        with nogil:
            for i in range(self._chains):
                more = _carry_chain(
                    to + done, room - done, self._slot + self._bound[i], self._bound[i + 1] - self._bound[i],
                    &self._carrier._options, &head, last
                )
                if more < 0:
                    break
                done += more
        if more < 0 or done != room:
            raise ValueError("records: not as many as there are options to carry")


cdef const int64_t* _numbers(object numbers, Py_ssize_t limit) except NULL:
    """An int64 array's numbers, all of which are below ``limit``."""
    cdef const int64_t* data
    cdef Py_ssize_t i
    if (
        not cnp.PyArray_CheckExact(numbers) or cnp.PyArray_TYPE(numbers) != cnp.NPY_INT64
        or not cnp.PyArray_ISCARRAY_RO(numbers) or cnp.PyArray_NDIM(numbers) != 1
    ):
        raise ValueError("slots and bounds must be contiguous arrays of int64, of one axis")
    data = <const int64_t*>cnp.PyArray_DATA(numbers)
    for i in range(cnp.PyArray_SIZE(numbers)):
        if data[i] < 0 or data[i] >= limit:
            raise IndexError(f"{data[i]} is not below {limit}")
    return data
