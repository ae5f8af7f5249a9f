"""Reading a subscription: look, take and make a batch, and wait for its only channel, without running Python code.

A record that was just published finds the reader with cold caches: each line of Python between the end of the wait and the
reader's own code costs more than all of this.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pythread cimport PyThread_acquire_lock, PyThread_allocate_lock, \
    PyThread_free_lock, PyThread_get_thread_ident, PyThread_release_lock, NOWAIT_LOCK, PyThread_type_lock
from libc.stdint cimport int64_t, uint32_t, uint64_t

from native.batch cimport BatchFields
from native.follow cimport RECORDS, SPIN, Followers, LogCursor, follow_has_records, log_follower
from native.log cimport load_acquire_u32
from native.wire cimport Inlet, Lane

cdef extern from "pythread.h" nogil:
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long timeout_us, int may_be_interrupted) noexcept

cdef extern from "platform.h" nogil:
    int64_t monotonic_ns() noexcept

cnp.import_array()

cdef enum:
    MOST_NS = 500000000  # a wait's slice, so that Ctrl-C is noticed everywhere
    ALL = 1 << 30
    MOST_IN_A_ROW = 64


cdef class Turn:
    """Held by whoever turns a hub: the hub's own thread, or a reader in its place."""

    cdef PyThread_type_lock _lock
    cdef public object owner
    """Identity of the thread that turns it; None between the turns of a reader or the hub's thread."""
    cdef public Py_ssize_t readers
    """Readers that turn it, or want to: the hub's thread stays away."""
    cdef public int64_t led_ns
    """When a reader turned it last."""

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock == NULL:
            raise MemoryError
        self.owner = None

    def __dealloc__(self):
        if self._lock != NULL:
            PyThread_free_lock(self._lock)

    cdef bint take_now(self):
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            return False
        self.owner = PyThread_get_thread_ident()
        return True

    cdef void give(self):
        self.owner = None
        PyThread_release_lock(self._lock)

    def acquire(self, double timeout_s=0.0):
        """Within that time (negative: whenever); False if it was not to be had."""
        cdef bint taken = self.take_now()
        cdef long long timeout_us = -1 if timeout_s < 0 else <long long>(timeout_s * 1e6)
        if not taken and timeout_us:
            with nogil:
                taken = PyThread_acquire_lock_timed(self._lock, timeout_us, 0) == 1
            if taken:
                self.owner = PyThread_get_thread_ident()
        return taken

    def release(self):
        self.give()


cdef class DirectReader:
    """Base of a subscription. While its only channel's cursor is open, or its lane plain and nothing left in its machine,
    the next records there are all that can come next; then they are taken here. Else, and for all else, there is ``_poll``.
    ``_lane_to_take()`` says so of the lane, to who has the turn; ``_lane_now()``, to the thread that turns the hub always."""

    cdef LogCursor _cursor
    cdef Followers _logs
    cdef Inlet _inlet
    cdef Turn _turn
    cdef int _idle
    cdef bint _waited
    cdef object _batch_class, _only, _origin, _client
    cdef dict _of_cursor
    cdef Py_ssize_t _next_log, _in_a_row

    def read_directly(self, int idle, batch_class, only, origin, client, Turn turn not None):
        """``batch_class`` is a BatchFields; ``only``, the channel, has its ``name``, ``record`` and ``machine.stale``; None where
        there are several."""
        self._idle, self._batch_class, self._only = idle, batch_class, only
        self._origin, self._client, self._turn = origin, client, turn

    def read_log(self, LogCursor cursor, Followers logs not None):
        """The only channel comes by this cursor, one of ``logs``; None: no more."""
        self._logs = logs
        self._cursor = cursor

    def read_logs(self, dict of_cursor not None, Followers logs not None):
        """Of several channels those come by these cursors whose channels ``of_cursor`` has."""
        self._logs = logs
        self._of_cursor = of_cursor

    def read_lane(self, Inlet inlet):
        """The only channel may come by packets: who waits for them asks ``_lane_to_take`` first, in turn."""
        self._inlet = inlet

    def poll(self, max_records=None, timeout=0.0):
        """The next batch, at most ``max_records`` long (a snapshot comes whole); None if there is none within ``timeout``
        seconds (None: wait), or at the end. Raises RecordsLost at a hole, Closed after ``close``."""
        cdef int64_t timeout_ns
        if self._turn is not None and (max_records is None or max_records > 0):
            timeout_ns = MOST_NS if timeout is None else <int64_t>(min(timeout, 0.5) * 1e9)
            batch = self._directly(ALL if max_records is None else max_records, timeout_ns)
            if batch is not None:
                return batch
            if timeout is not None:
                timeout = timeout - timeout_ns * 1e-9 if self._waited else timeout
        return self._poll(max_records, timeout)

    def __next__(self):
        if self._turn is not None:
            batch = self._directly(ALL, MOST_NS)
            if batch is not None:
                return batch
        return self._next()

    def take_now(self, max_records=None):
        """The next batch, if it is here by now; False: there is nothing before the next records, and they are not here; None:
        ``_poll`` has to look. For coroutines, in the loop that turns the hub."""
        cdef Lane lane
        cdef LogCursor cursor = self._cursor
        cdef Py_ssize_t most = ALL if max_records is None else max_records
        if self._turn is None or most <= 0:
            return None
        if self._of_cursor is not None:
            return self._by_logs(most)
        if cursor is not None and cursor.is_open():
            batch = self._by_log(most, 0)
            return False if batch is None and cursor.is_open() and not cursor.overrun else batch
        if self._inlet is None or not self._must_not_wait():
            return None
        lane = self._lane_now()  # nobody else turns the hub meanwhile: what this says still holds below
        if lane is None or not lane._lane.plain:
            return None
        taken = lane.take(most)
        return False if taken is None else self._batch(self._only, taken[0], taken[1], taken[2])

    cdef _directly(self, Py_ssize_t max_records, int64_t timeout_ns):
        self._waited = False
        if self._of_cursor is not None:
            return self._by_logs(max_records)
        if self._cursor is not None and self._cursor.is_open():
            return self._by_log(max_records, timeout_ns)
        if self._inlet is not None and timeout_ns > 0:
            return self._by_lane(max_records, timeout_ns)
        return None

    cdef _by_log(self, Py_ssize_t max_records, int64_t timeout_ns):
        cdef LogCursor cursor = self._cursor
        cdef uint32_t ticket
        view = cursor._take(max_records)
        if view is None and timeout_ns > 0 and not self._must_not_wait():
            self._waited = True
            ticket = self._logs._ticket()
            if cursor.is_open() and self._logs._wait(ticket, timeout_ns, self._idle) == RECORDS and cursor.is_open():
                view = cursor._take(max_records)
        if view is None:
            return None
        return self._batch(self._only, cursor._control._page.session, cursor._follower.cursor - cnp.PyArray_DIM(view, 0), view)

    cdef _by_logs(self, Py_ssize_t max_records):
        """The next records of any open cursor, by turns; now and then ``_poll`` has its turn, with what else there is."""
        cdef tuple cursors = self._logs._cursors
        cdef bytes array = self._logs._array
        cdef log_follower **all = <log_follower **>PyBytes_AS_STRING(array)
        cdef LogCursor cursor
        cdef Py_ssize_t count = len(cursors)
        cdef Py_ssize_t tried, at
        if self._in_a_row < MOST_IN_A_ROW:
            for tried in range(count):
                at = (self._next_log + tried) % count
                if not load_acquire_u32(&all[at].open) or not follow_has_records(all[at]):
                    continue
                cursor = cursors[at]
                view = cursor._take(max_records)
                if view is None:
                    continue
                self._next_log = at + 1
                self._in_a_row += 1
                return self._batch(self._of_cursor[cursor], cursor._control._page.session,
                                   cursor._follower.cursor - cnp.PyArray_DIM(view, 0), view)
        self._in_a_row = 0
        return None

    cdef _by_lane(self, Py_ssize_t max_records, int64_t timeout_ns):
        cdef Lane lane
        taken = None
        if self._must_not_wait():
            return None
        self._turn.readers += 1  # the hub's thread stays away
        try:
            if not self._turn.take_now():
                return None
            try:
                lane = self._lane_to_take()
                if lane is not None:
                    self._waited = True
                    taken = self._inlet._take(lane, timeout_ns, self._idle == SPIN, max_records)
                    if self._inlet._others_ready(lane):
                        self._hand_out()
            finally:
                self._turn.give()
        finally:
            self._turn.readers -= 1
            self._turn.led_ns = monotonic_ns()
        return self._batch(self._only, taken[0], taken[1], taken[2]) if type(taken) is tuple else None

    cdef bint _must_not_wait(self):
        owner = self._turn.owner
        return owner is not None and <unsigned long>owner == <unsigned long>PyThread_get_thread_ident()

    cdef BatchFields _batch(self, of, uint64_t session, uint64_t first, cnp.ndarray records):
        cdef BatchFields batch = self._batch_class.__new__(self._batch_class)
        batch.channel, batch.record, batch.records = of.name, of.record, records
        batch.session = session
        batch.last = first + cnp.PyArray_DIM(records, 0) - 1
        batch._first = first
        batch.stale = of.machine.stale
        batch._origin, batch._client = self._origin, self._client
        return batch
