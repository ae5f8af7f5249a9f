"""The log's bytes: control page, commit, waiting, appending (layout and memory ordering: log_layout.h).

Files, names, locks and segments are fabric.log's business.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef enum:
    STAMP_END = 24  # of ts_publish_ns, within a record

PAGE_BYTES = LOG_PAGE_BYTES
COUNTERS = 16


cpdef enum LogState:
    OPEN = 1
    ENDED = 2
    SUPERSEDED = 3


cdef class Control:
    """A mapped control page, and the wait page beside it if it could be mapped writable."""

    def __cinit__(self, buffer, wait_buffer=None, *, bint writable=False):
        self._held = False
        self._wait = NULL
        self.writable = writable
        PyObject_GetBuffer(buffer, &self._view, PyBUF_SIMPLE | (PyBUF_WRITABLE if writable else 0))
        self._held = True
        if self._view.len < LOG_PAGE_BYTES:
            raise ValueError(f"a control page has {LOG_PAGE_BYTES} bytes, got {self._view.len}")
        self._page = <log_control *>self._view.buf
        if wait_buffer is not None:
            PyObject_GetBuffer(wait_buffer, &self._wait_view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            self._wait = <log_wait *>self._wait_view.buf
            if self._wait_view.len < <Py_ssize_t>sizeof(log_wait):
                raise ValueError(f"a wait page has {LOG_PAGE_BYTES} bytes, got {self._wait_view.len}")

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)
        if self._wait != NULL:
            PyBuffer_Release(&self._wait_view)

    cdef _check_writable(self):
        if not self.writable:
            raise TypeError("this control page is mapped read-only")

    def initialise(self, *, uint64_t channel, uint64_t session, uint64_t parent_session, uint64_t fork_sequence,
                   uint64_t base, uint64_t segment_records, uint32_t record_bytes, uint32_t schema,
                   int64_t created_ns, bytes boot_id not None):
        """Write the identity of a new log; the magic comes last, so that a half-made page is never taken for a log."""
        self._check_writable()
        if len(boot_id) != 16:
            raise ValueError("a boot id has 16 bytes")
        self._page.version = LOG_VERSION
        self._page.record_bytes = record_bytes
        self._page.channel = channel
        self._page.session = session
        self._page.parent_session = parent_session
        self._page.fork_sequence = fork_sequence
        self._page.base = base
        self._page.segment_records = segment_records
        self._page.schema = schema
        self._page.created_ns = created_ns
        memcpy(self._page.boot_id, <const char *>boot_id, 16)
        self._page.first_available = base
        store_release_u32(&self._page.state, OPEN)
        memcpy(self._page.magic, LOG_MAGIC, 8)

    @property
    def valid(self):
        """The page has this version's magic, sane sizes and a known state."""
        return (memcmp(self._page.magic, LOG_MAGIC, 8) == 0 and self._page.version == LOG_VERSION
                and self._page.record_bytes > 32 and self._page.segment_records > 0 and self._page.base > 0
                and OPEN <= load_acquire_u32(&self._page.state) <= SUPERSEDED)

    @property
    def channel(self):
        return self._page.channel

    @property
    def session(self):
        return self._page.session

    @property
    def parent_session(self):
        return self._page.parent_session

    @property
    def fork_sequence(self):
        return self._page.fork_sequence

    @property
    def base(self):
        return self._page.base

    @property
    def segment_records(self):
        return self._page.segment_records

    @property
    def record_bytes(self):
        return self._page.record_bytes

    @property
    def schema(self):
        return self._page.schema

    @property
    def created_ns(self):
        return self._page.created_ns

    @property
    def boot_id(self):
        return (<char *>self._page.boot_id)[:16]

    @property
    def commit(self):
        """Records committed since ``base``."""
        return load_acquire_u64(&self._page.commit)

    @property
    def next(self):
        """The sequence that the next record will have."""
        return self._page.base + load_acquire_u64(&self._page.commit)

    @property
    def last_publish_ns(self):
        return self._page.last_publish_ns

    @property
    def first_available(self):
        return load_acquire_u64(&self._page.first_available)

    @first_available.setter
    def first_available(self, uint64_t sequence):
        self._check_writable()
        store_release_u64(&self._page.first_available, sequence)

    @property
    def alive_ns(self):
        return <int64_t>load_acquire_u64(&self._page.alive_ns)

    @alive_ns.setter
    def alive_ns(self, int64_t value):
        self._check_writable()
        store_release_u64(&self._page.alive_ns, <uint64_t>value)

    @property
    def state(self):
        return LogState(load_acquire_u32(&self._page.state))

    @state.setter
    def state(self, int value):
        self._check_writable()
        store_release_u32(&self._page.state, value)

    @property
    def writer_pid(self):
        return self._page.writer_pid

    @writer_pid.setter
    def writer_pid(self, uint32_t pid):
        self._check_writable()
        self._page.writer_pid = pid

    @property
    def clean_close(self):
        return self._page.clean_close != 0

    @clean_close.setter
    def clean_close(self, bint value):
        self._check_writable()
        store_release_u32(&self._page.clean_close, value)

    def counter(self, int index):
        """One of the writer's counters (0 to 15)."""
        if not 0 <= index < COUNTERS:
            raise IndexError(index)
        return self._page.counters[index]

    def count(self, int index, uint64_t by=1):
        """Add to one of the writer's counters."""
        if not 0 <= index < COUNTERS:
            raise IndexError(index)
        self._check_writable()
        self._page.counters[index] += by

    def store_commit(self, uint64_t count, int64_t publish_ns):
        """Make the first ``count`` records since base visible and wake sleeping readers."""
        cdef log_wait nobody
        self._check_writable()
        if count < self._page.commit:
            raise ValueError("a commit never goes back")
        self._page.last_publish_ns = publish_ns
        if self._wait != NULL:
            log_commit(self._page, self._wait, count)
        else:
            nobody.sleepers = 0
            log_commit(self._page, &nobody, count)

    def cut(self, uint64_t count):
        """Take commits back, to the first ``count`` records: only for who opens a log and finds less than it says."""
        self._check_writable()
        if count > self._page.commit:
            raise ValueError("nothing can be cut off beyond the commit")
        store_release_u64(&self._page.commit, count)

    def wake(self):
        """Wake sleeping readers although nothing was committed: the state has changed, and they look at it."""
        if self._wait != NULL:
            log_wake(self._wait)

    def wait_beyond(self, uint64_t sequence, int64_t timeout_ns):
        """Block, without the GIL, until a record after ``sequence`` is committed or the time is over; returns ``next``."""
        cdef uint64_t commit
        cdef uint64_t seen = sequence + 1 - self._page.base if sequence + 1 > self._page.base else 0
        with nogil:
            commit = log_wait_for_commit(self._page, self._wait, seen, timeout_ns)
        return self._page.base + commit


def append(segment, Py_ssize_t at_record, records, Py_ssize_t first, Py_ssize_t count, Py_ssize_t record_bytes,
           int64_t publish_ns):
    """Stamp ``records[first:first+count]`` (a contiguous, writable buffer) with ``publish_ns`` and copy them to ``segment``
    (a writable buffer) from record ``at_record`` on. Nothing is visible to readers before the commit."""
    cdef Py_buffer to
    cdef Py_buffer source
    PyObject_GetBuffer(segment, &to, PyBUF_SIMPLE | PyBUF_WRITABLE)
    try:
        PyObject_GetBuffer(records, &source, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if (record_bytes < STAMP_END or at_record < 0 or first < 0 or count < 0 or (at_record + count) * record_bytes > to.len
                    or (first + count) * record_bytes > source.len):
                raise ValueError("records do not fit into the segment")
            with nogil:
                log_copy_stamped(<char *>to.buf + at_record * record_bytes, <char *>source.buf + first * record_bytes,
                                 record_bytes, count, publish_ns)
        finally:
            PyBuffer_Release(&source)
    finally:
        PyBuffer_Release(&to)
