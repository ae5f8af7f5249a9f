"""The cycle journal's fast path: what nearly all cycles are, one entry, goes into the journal in one call, with the head before
it and where each output stands after it. The layout, ``ENTRY_FIELDS``, is that of fabric.runtime.journal's JOURNAL.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from native.appender cimport Appender
from native.log cimport Control, load_acquire_u64, log_control

ENTRY_FIELDS = (
    "ts_event_ns", "ts_origin_ns", "ts_publish_ns", "instrument", "flags", "kind", "port", "detail", "session", "first",
    "count",
)

cdef enum:
    MOST_OUTPUTS = 62

cdef struct Entry:
    int64_t ts_event_ns, ts_origin_ns, ts_publish_ns
    uint32_t instrument, flags
    uint16_t kind, port
    uint32_t detail
    uint64_t session, first, count


cdef class CycleJournal:
    """``outputs``: the control pages of the outputs' logs, in the order of their positions; ``cycle`` and ``output`` are the
    kinds of those entries."""

    cdef Appender _appender
    cdef tuple _controls
    cdef log_control *_outputs[MOST_OUTPUTS]
    cdef Py_ssize_t _count
    cdef uint16_t _cycle, _output

    def __init__(self, Appender appender not None, outputs, *, uint16_t cycle, uint16_t output):
        cdef Control control
        cdef int i
        if appender._record_bytes != sizeof(Entry):
            raise ValueError(f"entries of the journal have {sizeof(Entry)} bytes, not {appender._record_bytes}")
        self._appender, self._controls = appender, tuple(outputs)
        self._cycle, self._output = cycle, output
        self._count = len(self._controls)
        for i, control in enumerate(self._controls[:MOST_OUTPUTS]):
            self._outputs[i] = control._page

    def write(self, int64_t now_ns, uint64_t number, uint16_t kind, uint16_t port, uint64_t session, uint64_t first,
              uint64_t count, uint32_t detail):
        """Commit the cycle of one entry; False where the journal must be written the slow way."""
        cdef Entry entries[MOST_OUTPUTS + 2]
        cdef Py_ssize_t total = self._count + 2
        cdef Py_ssize_t i
        if self._count > MOST_OUTPUTS:
            return False
        memset(entries, 0, total * sizeof(Entry))
        for i in range(total):
            entries[i].ts_event_ns = now_ns
        entries[0].kind, entries[0].first, entries[0].count = self._cycle, number, total
        entries[1].kind, entries[1].port, entries[1].detail = kind, port, detail
        entries[1].session, entries[1].first, entries[1].count = session, first, count
        for i in range(self._count):
            entries[2 + i].kind, entries[2 + i].port = self._output, <uint16_t>i
            entries[2 + i].session = self._outputs[i].session
            entries[2 + i].first = self._outputs[i].base + load_acquire_u64(&self._outputs[i].commit)
        return self._appender.put_raw(entries, total, now_ns) != 0
