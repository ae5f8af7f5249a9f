"""A book's positions: greeks taken into their columns, and sums over them as finished records, without numpy's cost for each
small array.

The layouts are those of GREEKS (native.chain's ``RECORD_FIELDS``) and RISK (``RISK_FIELDS``) of nodes.records; tests hold them
together. Sums have the bits of numpy's: it adds in pairs, so as here.
"""

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.math cimport fabs, isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

cnp.import_array()

RISK_FIELDS = (
    "ts_event_ns", "ts_origin_ns", "ts_publish_ns", "instrument", "flags", "underlying", "value", "delta", "gamma", "vega",
    "theta", "rho", "stale_delta", "stale_vega", "positions", "priced", "stale", "carried", "worst_pnl", "worst_spot_move",
)

cdef enum:
    MOST = 64   # underlyings that one batch may touch
    SUMS = 6
    NAME_BYTES = 8

cdef struct Greeks:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    double forward, iv, price, delta, gamma, vega, theta, rho, vanna, volga, bid_iv, ask_iv

cdef struct RiskRecord:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    char underlying[NAME_BYTES]
    double sums[SUMS]
    double stale_delta, stale_vega
    uint32_t positions, priced, stale, carried
    double worst_pnl, worst_spot_move

cdef struct Cause:
    int64_t underlying, event_ns, origin_ns

cdef tuple _DOUBLES = ("quantity", "multiplier", "forward", "iv", "price", "delta", "gamma", "vega", "theta", "rho")
cdef tuple _INTEGERS = ("underlying", "ts_event_ns", "ts_origin_ns")
cdef tuple _BOOLS = ("option", "priced", "stale", "carried")


cdef double pairwise_sum(const double *values, Py_ssize_t count) noexcept nogil:
    """As numpy adds up a contiguous array."""
    cdef double r[8]
    cdef double total = 0.0
    cdef Py_ssize_t i, k, half
    if count < 8:
        for i in range(count):
            total += values[i]
        return total
    if count <= 128:
        for k in range(8):
            r[k] = values[k]
        i = 8
        while i < count - count % 8:
            for k in range(8):
                r[k] += values[i + k]
            i += 8
        total = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
        while i < count:
            total += values[i]
            i += 1
        return total
    half = count // 2
    half -= half % 8
    return pairwise_sum(values, half) + pairwise_sum(values + half, count - half)


cdef void *_column(object array, int code, Py_ssize_t at_least) except NULL:
    if (
        not cnp.PyArray_CheckExact(array) or cnp.PyArray_TYPE(array) != code or not cnp.PyArray_ISCARRAY(array)
        or cnp.PyArray_NDIM(array) != 1 or len(array) < at_least
    ):
        raise ValueError("columns must be contiguous, writable arrays of the right type, equally long")
    return cnp.PyArray_DATA(array)


cdef class Exposures:
    """Takes greeks into the columns of ``rows`` (a dict of arrays by the names in ``columns``; the first ``count`` are the
    positions) and ``forwards``, and sums over them. They are used where they lie: whoever replaces one makes a new
    Exposures. ``instruments`` is instrument to (position or -1, underlying)."""

    columns = (*_DOUBLES, *_INTEGERS, *_BOOLS)

    cdef dict _instruments
    cdef object _kept
    cdef Py_ssize_t _count, _room
    cdef uint32_t _stale_flag, _carried_flag
    cdef double *_doubles[10]
    cdef int64_t *_integers[3]
    cdef uint8_t *_bools[4]
    cdef double *_forwards
    cdef double *_scratch
    cdef Py_ssize_t _touched
    cdef Cause _causes[MOST]
    cdef Cause _all

    def __cinit__(self):
        self._scratch = NULL

    def __init__(self, dict instruments not None, dict rows not None, Py_ssize_t count, forwards, *, uint32_t stale_flag,
                 uint32_t carried_flag):
        cdef int i
        self._instruments, self._kept = instruments, (dict(rows), forwards)
        self._count, self._room = count, len(forwards)
        self._stale_flag, self._carried_flag = stale_flag, carried_flag
        for i in range(10):
            self._doubles[i] = <double *>_column(rows[_DOUBLES[i]], cnp.NPY_FLOAT64, count)
        for i in range(3):
            self._integers[i] = <int64_t *>_column(rows[_INTEGERS[i]], cnp.NPY_INT64, count)
        for i in range(4):
            self._bools[i] = <uint8_t *>_column(rows[_BOOLS[i]], cnp.NPY_BOOL, count)
        self._forwards = <double *>_column(forwards, cnp.NPY_FLOAT64, 0)
        PyMem_Free(self._scratch)
        self._scratch = <double *>PyMem_Malloc((2 * count + 1) * sizeof(double))
        if self._scratch == NULL:
            raise MemoryError
        self._touched = 0

    def __dealloc__(self):
        PyMem_Free(self._scratch)

    def take(self, cnp.ndarray greeks not None):
        """Take these greeks in order. Returns how many underlyings have positions among them (``touched``), or -1 if an
        instrument is not known or they are too many: then it must be done another way, from the beginning."""
        cdef const Greeks *row
        cdef PyObject *found
        cdef Py_ssize_t i, place, underlying
        if (
            not cnp.PyArray_ISCARRAY_RO(greeks) or cnp.PyArray_NDIM(greeks) != 1
            or cnp.PyArray_ITEMSIZE(greeks) != sizeof(Greeks)
        ):
            raise TypeError(f"greeks must be a contiguous array of {sizeof(Greeks)} bytes each")
        row = <const Greeks *>cnp.PyArray_DATA(greeks)
        self._touched = 0
        for i in range(cnp.PyArray_DIM(greeks, 0)):
            if PyDict_GetItem(self._instruments, row[i].instrument) == NULL:
                return -1
        for i in range(cnp.PyArray_DIM(greeks, 0)):
            found = PyDict_GetItem(self._instruments, row[i].instrument)
            place, underlying = <tuple>found
            if not 0 <= underlying < self._room or place >= self._count:
                raise IndexError(f"position {place} of {self._count}, underlying {underlying} of {self._room}")
            self._forwards[underlying] = row[i].forward
            if place < 0 or not self._bools[0][place]:
                continue
            copy_values(self._doubles, place, row + i)
            self._integers[1][place], self._integers[2][place] = row[i].ts_event_ns, row[i].ts_origin_ns
            self._bools[1][place] = isfinite(row[i].price) != 0
            self._bools[2][place] = (row[i].flags & self._stale_flag) != 0
            self._bools[3][place] = (row[i].flags & self._carried_flag) != 0
            if not self._note(self._integers[0][place], row + i):
                return -1
        return self._touched

    cdef bint _note(self, int64_t underlying, const Greeks *row) noexcept:
        """One more cause of a record, sorted by underlying; False where there is no room."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t i
        while at < self._touched and self._causes[at].underlying < underlying:
            at += 1
        if at == self._touched or self._causes[at].underlying != underlying:
            if self._touched == MOST:
                return False
            for i in range(self._touched, at, -1):
                self._causes[i] = self._causes[i - 1]
            self._causes[at].underlying = underlying
            self._causes[at].event_ns, self._causes[at].origin_ns = row.ts_event_ns, 0
            if self._touched == 0:
                self._all = self._causes[at]
            self._touched += 1
        join(&self._causes[at], row)
        join(&self._all, row)
        return True

    @property
    def touched(self):
        """The underlyings of positions that ``take`` gave new greeks, ascending."""
        return [self._causes[i].underlying for i in range(self._touched)]

    def fill(self, cnp.ndarray records not None, Py_ssize_t position, Py_ssize_t which, bytes name not None, double worst_pnl,
             double worst_spot_move):
        """Write the record at ``position``: sums of the underlying ``touched[which]``, or of all positions where ``which``
        is -1; its head is that of what ``take`` was given."""
        cdef RiskRecord *to
        cdef Cause *cause
        if (
            not cnp.PyArray_ISCARRAY(records) or cnp.PyArray_NDIM(records) != 1
            or cnp.PyArray_ITEMSIZE(records) != sizeof(RiskRecord)
        ):
            raise TypeError(f"records must be a contiguous, writable array of {sizeof(RiskRecord)} bytes each")
        if not 0 <= position < cnp.PyArray_DIM(records, 0) or not -1 <= which < self._touched or len(name) > NAME_BYTES:
            raise IndexError("no such record or underlying, or the name is too long")
        to = <RiskRecord *>cnp.PyArray_DATA(records) + position
        cause = &self._all if which < 0 else &self._causes[which]
        memset(to, 0, sizeof(RiskRecord))
        memcpy(to.underlying, <const char *>name, len(name))
        self._sum(to, which < 0, cause.underlying)
        to.ts_event_ns, to.ts_origin_ns = cause.event_ns, cause.origin_ns
        to.flags = self._stale_flag if to.stale else 0
        to.worst_pnl, to.worst_spot_move = worst_pnl, worst_spot_move

    cdef void _sum(self, RiskRecord *to, bint every, int64_t underlying) noexcept nogil:
        cdef double *scale = self._scratch
        cdef double *terms = self._scratch + self._count
        cdef double *column
        cdef Py_ssize_t i, chosen, found
        cdef int c
        for c in range(SUMS + 2):
            # price, delta, gamma, vega, theta, rho; and at last |delta| and |vega| of what is stale
            column = self._doubles[4 + c] if c < SUMS else self._doubles[5 if c == SUMS else 7]
            chosen = found = 0
            for i in range(self._count):
                if not every and self._integers[0][i] != underlying:
                    continue
                to.positions += c == 0
                if not self._bools[1][i]:
                    continue
                if c == 0:
                    scale[chosen] = self._doubles[0][i] * self._doubles[1][i]
                    to.priced += 1
                    to.stale += self._bools[2][i]
                    to.carried += self._bools[3][i]
                if c < SUMS:
                    terms[found] = scale[chosen] * column[i]
                    found += 1
                elif self._bools[2][i]:
                    terms[found] = fabs(scale[chosen] * column[i])
                    found += 1
                chosen += 1
            if c < SUMS:
                to.sums[c] = pairwise_sum(terms, found)
            elif c == SUMS:
                to.stale_delta = pairwise_sum(terms, found)
            else:
                to.stale_vega = pairwise_sum(terms, found)


cdef inline void join(Cause *cause, const Greeks *row) noexcept:
    if row.ts_event_ns > cause.event_ns:
        cause.event_ns = row.ts_event_ns
    if row.ts_origin_ns > 0 and (cause.origin_ns == 0 or row.ts_origin_ns < cause.origin_ns):
        cause.origin_ns = row.ts_origin_ns


cdef inline void copy_values(double **columns, Py_ssize_t place, const Greeks *row) noexcept:
    columns[2][place], columns[3][place], columns[4][place] = row.forward, row.iv, row.price
    columns[5][place], columns[6][place], columns[7][place] = row.delta, row.gamma, row.vega
    columns[8][place], columns[9][place] = row.theta, row.rho


def sum_of(cnp.ndarray values not None):
    """A contiguous array's sum, with the bits of numpy's."""
    return pairwise_sum(<const double *>_column(values, cnp.NPY_FLOAT64, 0), cnp.PyArray_DIM(values, 0))
