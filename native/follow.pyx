"""Following mapped logs: a cursor for each, views of what is committed, and one wait for all of them (log_follow.h).

Mapping files is fabric.log's business: a ``LogCursor`` is given a function for it.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport write

from native.arrays cimport array_view
from native.log cimport Control, load_acquire_u32, load_acquire_u64, log_control, log_wait, store_release_u32, \
    store_release_u64

cnp.import_array()

cdef extern from "log_follow.h" nogil:
    uint32_t follow_ticket(const log_wait *own) noexcept
    void follow_poke(log_wait *own) noexcept
    int follow_wait(log_follower **all, size_t count, log_wait *own, uint32_t ticket, int64_t timeout_ns,
                    int idle) noexcept
    int follow_look(log_follower **all, size_t count) noexcept


cdef class LogCursor:
    """Where one reader stands in one session of a mapped log.

    ``map_segment(begin)`` gives the segment whose first record has sequence ``begin``, as a read-only structured array
    that keeps its mapping alive; it raises IndexError where retention has removed it. While the cursor is not ``open``
    it gives nothing, and no wait looks at it.
    """

    def __cinit__(self, Control control not None, map_segment, cnp.dtype dtype not None, uint64_t sequence):
        self._control = control
        self._map_segment = map_segment
        self._dtype = dtype
        self._record_bytes = dtype.itemsize
        if <uint32_t>self._record_bytes != control._page.record_bytes:
            raise ValueError(f"the log's records have {control._page.record_bytes} bytes, not {self._record_bytes}")
        self._segment = None
        self._begin = self._end = 0
        self._follower.control = control._page
        self._follower.wait = control._wait
        self._follower.open = 0
        self._follower.told_state = 1
        self._follower.rung = 0
        self.seek(sequence)

    @property
    def session(self):
        """The session of every record that it gives."""
        return self._control._page.session

    @property
    def next(self):
        """The sequence of the record that is read next."""
        return load_acquire_u64(&self._follower.cursor)

    @property
    def open(self):
        return self._follower.open != 0

    @open.setter
    def open(self, bint value):
        store_release_u32(&self._follower.open, value)
        if value and self.bell is not None:
            follow_poke(&self.bell._own)

    @property
    def rung(self):
        """A bell (``Followers.ring``) has rung for it, and does not again until this is false and the bell was poked."""
        return load_acquire_u32(&self._follower.rung) != 0

    @rung.setter
    def rung(self, bint value):
        store_release_u32(&self._follower.rung, value)

    @property
    def told_state(self):
        """The state of the log that was told last (a LogState); a wait tells of another one once."""
        return load_acquire_u32(&self._follower.told_state)

    @property
    def behind(self):
        """Records that are committed and not read yet."""
        cdef uint64_t end = self._control._page.base + load_acquire_u64(&self._control._page.commit)
        cdef uint64_t cursor = load_acquire_u64(&self._follower.cursor)
        return end - cursor if end > cursor else 0

    def seek(self, uint64_t sequence):
        """Read on from this sequence."""
        if sequence < self._control._page.base:
            raise ValueError(f"the log begins with sequence {self._control._page.base}, not {sequence}")
        self.overrun = False
        store_release_u64(&self._follower.cursor, sequence)

    def reach(self):
        """Map the segment that holds ``next`` now, if it is there: then it can be read although its file is removed meanwhile."""
        cdef uint64_t cursor = self._follower.cursor
        if not self._begin <= cursor < self._end:
            self._turn_to(cursor)

    def take(self, Py_ssize_t max_records=-1):
        """A read-only view of the records that are ready, at most ``max_records`` (negative: all) and up to a segment's
        end; None if there are none, the cursor is not open, or retention was faster (``overrun``)."""
        return self._take(max_records) if self.is_open() else None

    cdef bint is_open(self) noexcept:
        return load_acquire_u32(&self._follower.open) != 0

    cdef _take(self, Py_ssize_t max_records):
        cdef log_control *page = self._control._page
        cdef uint64_t end = page.base + load_acquire_u64(&page.commit)
        cdef uint64_t cursor = self._follower.cursor
        cdef cnp.npy_intp count
        cdef cnp.ndarray view
        cdef bint found
        if end <= cursor:
            return None
        if not self._begin <= cursor < self._end:
            found = self._turn_to(cursor)
            # Mapping a file lets other threads run: what closed the cursor meanwhile, or moved it, has counted without this.
            if not load_acquire_u32(&self._follower.open) or self._follower.cursor != cursor:
                return None
            if not found:
                self.overrun = True
                return None
        if end > self._end:
            end = self._end
        count = end - cursor
        if 0 <= max_records < count:
            count = max_records
        view = array_view(self._dtype, count, self._bytes + (cursor - self._begin) * self._record_bytes, self._segment)
        store_release_u64(&self._follower.cursor, cursor + count)
        return view

    cdef bint _turn_to(self, uint64_t cursor) except -1:
        """Map the segment that holds the sequence; False where retention has removed it."""
        cdef uint64_t records = self._control._page.segment_records
        cdef uint64_t begin = cursor - (cursor - self._control._page.base) % records
        cdef cnp.ndarray segment
        if cursor < load_acquire_u64(&self._control._page.first_available):
            return False
        try:
            segment = self._map_segment(begin)
        except IndexError:
            return False
        if <uint64_t>cnp.PyArray_SIZE(segment) != records or cnp.PyArray_ITEMSIZE(segment) != self._record_bytes:
            raise ValueError(f"segment {begin} has {cnp.PyArray_SIZE(segment)} records, not {records}")
        self._segment = segment
        self._bytes = <char *>cnp.PyArray_DATA(segment)
        self._begin, self._end = begin, begin + records
        return True


cdef class Followers:
    """Cursors that are waited for together. ``poke`` ends the waits, from any thread. A wait is for the cursors that were
    there when it began."""

    def __cinit__(self):
        self._own.sleepers = self._own.wake_seq = 0
        self._cursors = ()
        self._array = b""

    def __len__(self):
        return len(self._cursors)

    def __contains__(self, cursor):
        return cursor in self._cursors

    cdef _set(self, tuple cursors):
        # Both are made anew, never changed: who waits keeps those that it began with.
        cdef bytes array = PyBytes_FromStringAndSize(NULL, len(cursors) * sizeof(log_follower *))
        cdef log_follower **all = <log_follower **>PyBytes_AS_STRING(array)
        cdef LogCursor cursor
        for i, cursor in enumerate(cursors):
            all[i] = &cursor._follower
        self._cursors, self._array = cursors, array

    def add(self, LogCursor cursor not None):
        """Wait for this one too."""
        self._set((*self._cursors, cursor))

    def remove(self, LogCursor cursor not None):
        """Wait for it no longer."""
        self._set(tuple([each for each in self._cursors if each is not cursor]))

    def cursors(self):
        """All of them, in the order in which they were added."""
        return self._cursors

    def poke(self):
        """End the wait that is under way, or the next one whose ticket was drawn before."""
        follow_poke(&self._own)

    def ticket(self):
        """Draw it before looking at what a poke announces; then no poke is missed."""
        return self._ticket()

    cdef uint32_t _ticket(self) noexcept:
        return follow_ticket(&self._own)

    cdef int _wait(self, uint32_t ticket, int64_t timeout_ns, int idle):
        cdef tuple cursors = self._cursors
        cdef bytes array = self._array
        cdef log_follower **all = <log_follower **>PyBytes_AS_STRING(array)
        cdef size_t count = len(cursors)
        cdef int found
        with nogil:
            found = follow_wait(all, count, &self._own, ticket, timeout_ns, idle)
        return found

    def look(self):
        """What a wait would find now: Found.RECORDS, Found.STATE (told once a change) or Found.NOTHING."""
        return follow_look(<log_follower **>PyBytes_AS_STRING(self._array), len(self._cursors))

    def wait(self, uint32_t ticket, int64_t timeout_ns, int idle):
        """Until there are records or another state of a log, a poke since the ticket was drawn, a signal, or the time is
        over (the last two: Found.NOTHING). ``idle`` is an Idle. Without the GIL."""
        return self._wait(ticket, timeout_ns, idle)

    def ready(self):
        """The cursors that have records now, as positions in the order in which they were added."""
        cdef bytes array = self._array
        cdef log_follower **all = <log_follower **>PyBytes_AS_STRING(array)
        cdef Py_ssize_t i
        return [i for i in range(len(self._cursors)) if load_acquire_u32(&all[i].open) and follow_has_records(all[i])]

    def ring(self, int descriptor, Followers bell not None, uint32_t ticket):
        """Write to an eventfd whenever one of these has records or another state, and mark those ``rung``: they are left out
        until that is taken back and ``bell`` poked. Ends when this was poked since the ticket was drawn, and ``bell`` after it.
        For event loops: call it from a thread of its own, it holds the GIL at no time. Raises MemoryError."""
        cdef tuple cursors = self._cursors
        cdef bytes array = self._array
        cdef log_follower **all = <log_follower **>PyBytes_AS_STRING(array)
        cdef Py_ssize_t count = len(cursors)
        cdef Py_ssize_t heeded, i
        cdef uint32_t armed
        cdef uint64_t one = 1
        cdef int found
        cdef log_follower **some = <log_follower **>malloc((count + 1) * sizeof(log_follower *))
        if some == NULL:
            raise MemoryError
        with nogil:
            while follow_ticket(&self._own) == ticket:
                armed = follow_ticket(&bell._own)
                heeded = 0
                for i in range(count):
                    if not load_acquire_u32(&all[i].rung):
                        some[heeded] = all[i]
                        heeded += 1
                found = follow_wait(some, heeded, &bell._own, armed, INT64_MAX, BLOCK)
                if found != RECORDS and found != STATE:
                    continue
                for i in range(heeded):
                    if load_acquire_u32(&some[i].open) and follow_has_records(some[i]):
                        store_release_u32(&some[i].rung, 1)
                write(descriptor, &one, sizeof(one))
        free(some)
