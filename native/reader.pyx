"""Reading a mapped log with nothing between it and the reader: look, wait and make a batch without running Python code.

A record that was just published finds the reader with cold caches: each line of Python between the end of the wait and the
reader's own code costs more than all of this.
"""

cimport numpy as cnp
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from native.batch cimport BatchFields
from native.follow cimport RECORDS, Followers, LogCursor

cnp.import_array()

cdef enum:
    MOST_NS = 500000000  # a wait's slice, so that Ctrl-C is noticed everywhere


cdef class DirectReader:
    """Base of a subscription. While its one channel's cursor is open nothing else has to be looked at, for whatever is to
    come before the log's next records closes the cursor first. Else, and for all else, there is ``_poll``."""

    cdef LogCursor _cursor
    cdef Followers _logs
    cdef int _idle
    cdef object _batch_class, _channel, _record, _origin, _client, _machine, _hub

    def read_directly(self, LogCursor cursor, Followers logs not None, int idle, batch_class, str channel, record, origin,
                      client, machine, hub):
        """``cursor`` is the one of the only channel, and one of ``logs``; None: from now on only ``_poll`` reads.
        ``batch_class`` is a BatchFields; ``machine.stale`` goes into each batch; ``hub.owner`` is a thread that must not
        wait."""
        self._logs, self._idle, self._batch_class = logs, idle, batch_class
        self._channel, self._record, self._origin = channel, record, origin
        self._client, self._machine, self._hub = client, machine, hub
        self._cursor = cursor

    def poll(self, max_records=None, timeout=0.0):
        """The next batch, at most ``max_records`` long (a snapshot comes whole); None if there is none within ``timeout``
        seconds (None: wait), or at the end. Raises RecordsLost at a hole, Closed after ``close``."""
        cdef int64_t timeout_ns
        if self._cursor is not None and self._cursor.is_open() and (max_records is None or max_records > 0):
            timeout_ns = MOST_NS if timeout is None else <int64_t>(min(timeout, 0.5) * 1e9)
            batch = self._directly(-1 if max_records is None else max_records, timeout_ns)
            if batch is not None:
                return batch
            if timeout is not None:
                timeout = timeout - timeout_ns * 1e-9
        return self._poll(max_records, timeout)

    def __next__(self):
        cdef LogCursor cursor = self._cursor
        if cursor is not None and cursor.is_open():
            batch = self._directly(-1, MOST_NS)
            if batch is not None:
                return batch
        return self._next()

    cdef _directly(self, Py_ssize_t max_records, int64_t timeout_ns):
        cdef LogCursor cursor = self._cursor
        cdef uint32_t ticket
        view = cursor._take(max_records)
        if view is None and timeout_ns > 0 and not self._must_not_wait():
            ticket = self._logs._ticket()
            if cursor.is_open() and self._logs._wait(ticket, timeout_ns, self._idle) == RECORDS and cursor.is_open():
                view = cursor._take(max_records)
        return None if view is None else self._batch(cursor, view)

    cdef bint _must_not_wait(self):
        owner = self._hub.owner
        return owner is not None and <unsigned long>owner == <unsigned long>PyThread_get_thread_ident()

    cdef BatchFields _batch(self, LogCursor cursor, cnp.ndarray records):
        cdef BatchFields batch = self._batch_class.__new__(self._batch_class)
        batch.channel, batch.record, batch.records = self._channel, self._record, records
        batch.session = cursor._control._page.session
        batch.last = cursor._follower.cursor - 1
        batch._first = cursor._follower.cursor - cnp.PyArray_DIM(records, 0)
        batch.stale = self._machine.stale
        batch._origin, batch._client = self._origin, self._client
        return batch
