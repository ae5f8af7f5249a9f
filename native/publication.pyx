"""One channel being published: into the log, and out of the log's own bytes to its socket, in one call.

Nothing is sent while nobody subscribes: who does so is answered with a heartbeat that says how far the log has come, and
readers on this host map the log.
"""

cimport numpy as cnp
from cpython.object cimport PyObject, PyTypeObject
from cpython.pythread cimport PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, \
    WAIT_LOCK, NOWAIT_LOCK
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from native.appender cimport Appender
from native.arrays cimport array_copy
from native.log cimport log_control
from native.packet cimport packet_header
from native.wire cimport Outlet

cdef extern from "packet_layout.h" nogil:
    const int PACKET_DATA
    const int PACKET_HAS_CRC
    const int PACKET_HEADER_BYTES
    const int PACKET_MAX_BYTES

cdef extern from "stamp_clock.h" nogil:
    int64_t stamp_ns() noexcept

cdef extern from "Python.h":
    ctypedef object (*PyCFunction)(object, object)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    const int METH_FASTCALL
    const int METH_KEYWORDS
    PyObject **PySequence_Fast_ITEMS(object)
    object PyDescr_NewMethod(type of, PyMethodDef *definition)
    void PyType_Modified(type changed)

cnp.import_array()

cdef enum:
    PACKETS = 0  # index of the log's counter (fabric.transport.publisher)


cdef class SocketLock:
    """Who holds it may use the socket. Held by native code without the GIL too; who waits for it has let go of the GIL."""

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock != NULL:
            PyThread_free_lock(self._lock)

    cdef void take(self) noexcept nogil:
        PyThread_acquire_lock(self._lock, WAIT_LOCK)

    cdef void give(self) noexcept nogil:
        PyThread_release_lock(self._lock)

    def __enter__(self):
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self._lock, WAIT_LOCK)
        return self

    def __exit__(self, *_):
        PyThread_release_lock(self._lock)


cdef class Publication:
    """A channel's log and its socket. ``outlet`` is None where packets go out another way (pyzmq, fault injection): then
    every write is refused while somebody subscribes.

    ``write`` and ``put`` return the last sequence written, or 0 where they did nothing: see ``Appender``.
    """

    def __cinit__(self, Appender appender not None, Outlet outlet, SocketLock lock not None, *, uint64_t channel,
                  uint64_t session, uint32_t schema, bint crc):
        self._appender = appender
        self._page = appender._control._page
        self._outlet = outlet
        self._lock = lock
        self.wanted = False
        self.handler = None
        self.announced = self._page.base + appender.count
        memset(&self._header, 0, sizeof(self._header))
        self._header.channel = channel
        self._header.session = session
        self._header.schema = schema
        self._header.size = <unsigned short>appender._record_bytes
        self._header.kind = PACKET_DATA
        self._header.flags = PACKET_HAS_CRC if crc else 0
        self._packet_records = (PACKET_MAX_BYTES - PACKET_HEADER_BYTES) // appender._record_bytes

    cdef void send(self, const char *records, uint64_t first, Py_ssize_t count, int64_t sent_ns) noexcept nogil:
        """Records that were committed, from wherever they lie. What libzmq refuses is in the log. The caller holds the lock.
        ``sent_ns`` goes into the packets; 0: each is stamped as it is made."""
        cdef packet_header header = self._header
        cdef int64_t packets
        header.sequence = first
        header.sent_ns = sent_ns
        packets = self._outlet.send(&header, records, count, self._packet_records)
        if packets > 0:
            self._page.counters[PACKETS] += packets
        self.announced = first + count

    cdef uint64_t publish(self, const void *records, Py_ssize_t count, int64_t now_ns) noexcept nogil:
        """Append, commit, send; the last sequence, or 0. Not with the GIL held."""
        cdef uint64_t first
        if self.wanted and self._outlet is None:
            return 0
        first = self._appender.put_raw(records, count, now_ns)
        if first == 0:
            return 0
        if self.wanted:
            self._lock.take()
            self.send(self._appender._at - count * self._appender._record_bytes, first, count, now_ns)
            self._lock.give()
        else:
            self.announced = first + count
        return first + count - 1

    cdef uint64_t _sent(self, uint64_t first, Py_ssize_t count, int64_t now_ns) except? 0:
        """Send what was just appended. With the GIL, which is let go of to wait for the lock: its holder may want the GIL."""
        if self.wanted:
            with self._lock:
                self.send(self._appender._at - count * self._appender._record_bytes, first, count, now_ns)
        else:
            self.announced = first + count
        if self.handler is not None:
            self._hand(first, count)
        return first + count - 1

    cdef int _hand(self, uint64_t first, Py_ssize_t count) except -1:
        """Call the handler with a copy of what the log holds: it may keep that, and what it raises is the publisher's to see."""
        cdef Py_ssize_t size = count * self._appender._record_bytes
        self.handler(array_copy(self._appender._dtype, count, self._appender._at - size), first)
        return 0

    def write(self, cnp.ndarray records not None, int64_t now_ns):
        """Publish an array of records (the log's dtype) as one event."""
        return self._write(records, now_ns)

    cdef uint64_t _write(self, cnp.ndarray records, int64_t now_ns) except? 0:
        cdef uint64_t first
        if self.wanted and self._outlet is None:
            return 0
        first = self._appender.write(records, now_ns)
        return self._sent(first, cnp.PyArray_DIM(records, 0), now_ns) if first else 0

    def put(self, dict columns not None, int64_t now_ns):
        """Publish one record of plain Python numbers by field name."""
        cdef list values = list(columns.values())
        return self._put_named(tuple(columns), PySequence_Fast_ITEMS(values), now_ns)

    cdef uint64_t _put_named(self, tuple names, PyObject *const *values, int64_t now_ns) except? 0:
        cdef uint64_t first
        if self.wanted and self._outlet is None:
            return 0
        first = self._appender.put_named(names, values, now_ns)
        return self._sent(first, 1, now_ns) if first else 0

    def send_committed(self, cnp.ndarray records not None, uint64_t first):
        """Send records that the log holds already from sequence ``first`` on; False where they must go out another way."""
        cdef Py_ssize_t count = cnp.PyArray_DIM(records, 0)
        cdef const char *at = <const char *>cnp.PyArray_DATA(records)
        if not self.wanted:
            self.announced = first + count
            return True
        if self._outlet is None or not cnp.PyArray_IS_C_CONTIGUOUS(records) \
                or cnp.PyArray_ITEMSIZE(records) != self._appender._record_bytes:
            return False
        with self._lock, nogil:
            self.send(at, first, count, 0)
        return True


cdef class DirectWriter:
    """Base of an open channel: one ``send`` (below) is one native call where nothing is staged. For all else there is ``_send``."""

    def write_directly(self, Publication publication not None, list stage not None, now_ns):
        """``stage`` is what ``_send`` would put records behind; ``now_ns`` gives the time, None: the machine's own clock."""
        self._publication, self._staged, self._now_ns = publication, stage, now_ns


cdef object send_directly(DirectWriter self, PyObject *const *values, Py_ssize_t given, PyObject *names):
    """``send(records=None, **columns)``, as METH_FASTCALL | METH_KEYWORDS: no dict is made of the columns."""
    cdef uint64_t last = 0
    cdef int64_t now_ns
    cdef Py_ssize_t i
    if given > 1:
        raise TypeError(f"send() takes one array of records, or columns by name; {given} arguments were given")
    if not self._staged and (names == NULL or given == 0):
        now_ns = stamp_ns() if self._now_ns is None else self._now_ns()
        if names != NULL:
            last = self._publication._put_named(<tuple>names, values, now_ns)
        elif given and isinstance(<object>values[0], cnp.ndarray):
            last = self._publication._write(<cnp.ndarray>values[0], now_ns)
        if last:
            return last
    columns = {}
    if names != NULL:
        for i in range(len(<tuple>names)):
            columns[(<tuple>names)[i]] = <object>values[given + i]
    records = columns.pop("records", None) if given == 0 else <object>values[0]
    return self._send(records, columns)


cdef PyMethodDef send_definition
send_definition.ml_name = b"send"
send_definition.ml_meth = <PyCFunction><void *>send_directly
send_definition.ml_flags = METH_FASTCALL | METH_KEYWORDS
send_definition.ml_doc = b"``append`` and ``flush``; returns the last committed sequence."
(<dict>(<PyTypeObject *>DirectWriter).tp_dict)["send"] = PyDescr_NewMethod(DirectWriter, &send_definition)
PyType_Modified(DirectWriter)
