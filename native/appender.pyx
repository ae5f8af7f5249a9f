"""The fast path of a log's one writer: records into the current segment, stamped and committed, with nothing of Python's
for each of them. What does not fit the fast path is refused, and the writer does it the slow way (fabric.log.writer).
"""

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_GetItem
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from native.log cimport Control, load_acquire_u32, log_commit, log_control, log_wait

cdef extern from "Python.h":
    PyObject **PySequence_Fast_ITEMS(object)

cnp.import_array()

cdef enum:
    PUBLISH_OFFSET = 16   # of ts_publish_ns, within a record
    FLAGS_OFFSET = 28
    HEAD_BYTES = 32
    OPEN = 1              # LogState
    MOST_BYTES = 65536    # more are copied past the cache, the slow way



cdef class Appender:
    """One writer's place in its log. ``mark`` is or-ed to the flags of the last record of each write (LAST_IN_EVENT).

    Every method returns the first sequence written, or 0 where it did nothing: no room in the segment, another dtype, a value
    that needs more care, or the appender is shut; also where the log's state is not OPEN, which any thread may set: nothing is
    written after a newer session has taken the channel over.
    """

    def __cinit__(self, Control control not None, cnp.dtype dtype not None, uint32_t mark):
        control._check_writable()
        self._control = control
        self._dtype = dtype
        self._record_bytes = dtype.itemsize
        self._mark = mark
        self._held = False
        self._room = 0
        self._places = _places_of(dtype)
        self._nobody.sleepers = 0
        self.count = control._page.commit
        self.publish_ns = control._page.last_publish_ns

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)

    def turn_to(self, segment, uint64_t first, Py_ssize_t records):
        """Write into this segment (a writable buffer), whose first record has sequence ``first``, from the commit on."""
        self.shut()
        PyObject_GetBuffer(segment, &self._view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self._held = True
        if self._view.len < records * self._record_bytes:
            raise ValueError(f"a segment of {records} records has {records * self._record_bytes} bytes, not {self._view.len}")
        self._catch_up()
        self._segment_first = first
        self._at = <char *>self._view.buf + (self._control._page.base + self.count - first) * self._record_bytes
        self._room = records - (self._control._page.base + self.count - first)

    def shut(self):
        """Write nothing any more, until it is turned to a segment."""
        self._room = 0
        if self._held:
            self._held = False
            PyBuffer_Release(&self._view)

    cdef void _catch_up(self) noexcept:
        """The slow way may have written since."""
        self.count = self._control._page.commit
        if self._control._page.last_publish_ns > self.publish_ns:
            self.publish_ns = self._control._page.last_publish_ns

    cdef inline uint64_t commit(self, Py_ssize_t records, int64_t now_ns) noexcept nogil:
        """Stamp what was copied to the place, mark its last one, make it visible."""
        cdef Py_ssize_t i
        cdef uint32_t flags
        cdef char *last = self._at + (records - 1) * self._record_bytes
        cdef uint64_t first = self._control._page.base + self.count
        if now_ns > self.publish_ns:
            self.publish_ns = now_ns
        for i in range(records):
            memcpy(self._at + i * self._record_bytes + PUBLISH_OFFSET, &self.publish_ns, 8)
        memcpy(&flags, last + FLAGS_OFFSET, 4)
        flags |= self._mark
        memcpy(last + FLAGS_OFFSET, &flags, 4)
        self._at += records * self._record_bytes
        self._room -= records
        self.count += records
        self._control._page.last_publish_ns = self.publish_ns
        log_commit(self._control._page, self._control._wait if self._control._wait != NULL else &self._nobody, self.count)
        return first

    cdef inline uint64_t put_raw(self, const void *records, Py_ssize_t count, int64_t now_ns) noexcept nogil:
        """Write records that lie in memory."""
        if count <= 0 or count > self._room or load_acquire_u32(&self._control._page.state) != OPEN:
            return 0
        memcpy(self._at, records, count * self._record_bytes)
        return self.commit(count, now_ns)

    def write(self, cnp.ndarray records not None, int64_t now_ns):
        """Write an array of records (one dimension, the log's dtype) as one event."""
        cdef Py_ssize_t count
        if (<PyObject *>cnp.PyArray_DESCR(records) != <PyObject *>self._dtype or cnp.PyArray_NDIM(records) != 1
                or not cnp.PyArray_IS_C_CONTIGUOUS(records)):
            return 0
        count = cnp.PyArray_DIM(records, 0)
        if count * self._record_bytes > MOST_BYTES:
            return 0
        return self.put_raw(cnp.PyArray_DATA(records), count, now_ns)

    def put(self, dict columns not None, int64_t now_ns):
        """Write one record of plain Python numbers by field name, at most MOST_NAMES; what is not named is zero. 0: not plain."""
        cdef list values = list(columns.values())
        return self.put_named(tuple(columns), PySequence_Fast_ITEMS(values), now_ns)

    cdef uint64_t put_named(self, tuple names, PyObject *const *values, int64_t now_ns) except? 0:
        """As ``put``. A call that stands in one place gives the same tuple of names each time: they are looked up once."""
        cdef Py_ssize_t i
        if self._room < 1 or load_acquire_u32(&self._control._page.state) != OPEN:
            return 0
        if names is not self._names and not self._learn(names):
            return 0
        memset(self._at, 0, self._record_bytes)
        for i in range(PyTuple_GET_SIZE(names)):
            if not self._store(&self._named[i], <object>values[i]):
                return 0
        return self.commit(1, now_ns)

    cdef bint _learn(self, tuple names):
        cdef Py_ssize_t i
        cdef PyObject *found
        self._names = None
        if PyTuple_GET_SIZE(names) > MOST_NAMES:
            return False
        for i in range(PyTuple_GET_SIZE(names)):
            found = PyDict_GetItem(self._places, <object>PyTuple_GET_ITEM(names, i))
            if found == NULL:
                return False
            memcpy(&self._named[i], <const char *>(<bytes>found), sizeof(field_place))
        self._names = names
        return True

    cdef inline bint _store(self, const field_place *place, object value):
        cdef double number
        cdef float single
        cdef long long whole
        cdef int overflow = 0
        if place.kind == c"f":
            if PyFloat_Check(value):
                number = PyFloat_AS_DOUBLE(value)
                single = <float>number
            elif PyLong_CheckExact(value):
                whole = PyLong_AsLongLongAndOverflow(value, &overflow)
                if overflow:
                    return False
                number = <double>whole
                single = <float>whole  # rounded once
            else:
                return False
            if place.size == 8:
                memcpy(self._at + place.offset, &number, 8)
            else:
                memcpy(self._at + place.offset, &single, 4)
            return True
        if not PyLong_CheckExact(value):
            return False
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return False
        if place.kind == c"u":
            if whole < 0 or (place.size < 8 and whole >> (8 * place.size)):
                return False
        elif place.size < 8 and not -(<long long>1 << (8 * place.size - 1)) <= whole < <long long>1 << (8 * place.size - 1):
            return False
        memcpy(self._at + place.offset, &whole, place.size)  # little-endian: the low bytes
        return True


cdef dict _places_of(cnp.dtype dtype):
    """Where each plain number of a record is; others take the slow way."""
    cdef field_place place
    cdef dict places = {}
    for name, (field, offset, *_) in dtype.fields.items():
        if field.kind in "fiu" and not field.shape and field.itemsize in (1, 2, 4, 8) and field.str[0] in "<|" \
                and not (field.kind == "f" and field.itemsize < 4):
            place.offset = offset
            place.kind = ord(field.kind)
            place.size = field.itemsize
            places[name] = (<char *>&place)[:sizeof(place)]
    return places
