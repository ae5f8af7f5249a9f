"""Log-linear latency histogram in a caller's buffer (shared memory, so that it outlives its process).

Bucket layout as HdrHistogram's (G. Tene), unit 1, two significant digits, values 0 to 2^42 - 1 ns (73 minutes): a
relative error below 1 / 128. One writer; readers may see a record late, never torn.

    word    0      1     2     3      4 ...
            count  sum   max   min+1  counts[4608]
"""

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

cnp.import_array()

cdef enum:
    HALF = 128
    HALF_BITS = 7
    MAX_BITS = 42
    COUNTS = (MAX_BITS - HALF_BITS + 1) * HALF
    HEAD_WORDS = 4

BYTES = (HEAD_WORDS + COUNTS) * 8


cdef inline uint64_t highest_of(int index) noexcept nogil:
    """The largest value that falls into bucket ``index``."""
    cdef int bucket = (index >> HALF_BITS) - 1
    cdef uint64_t sub = (index & (HALF - 1)) + HALF
    if bucket < 0:
        bucket = 0
        sub -= HALF
    return ((sub + 1) << bucket) - 1


cdef class Histogram:
    """A histogram of non-negative nanoseconds; negative values (a clock that stepped back) count as 0."""

    def __cinit__(self, buffer):
        self._held = False
        PyObject_GetBuffer(buffer, &self._view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self._held = True
        if self._view.len < BYTES:
            raise ValueError(f"a histogram needs {BYTES} bytes, got {self._view.len}")
        self._words = <uint64_t *>self._view.buf

    def __dealloc__(self):
        if self._held:
            PyBuffer_Release(&self._view)

    def record(self, int64_t value_ns):
        """Count one value."""
        histogram_add(self._words, value_ns)

    def record_since(self, int64_t now_ns, stamps, Py_ssize_t stride_bytes, Py_ssize_t count):
        """Count ``now_ns - stamp`` of ``count`` int64 stamps, ``stride_bytes`` apart in a buffer; stamps of 0 are unknown
        and left out."""
        cdef Py_buffer view
        cdef Py_ssize_t i
        cdef int64_t stamp
        cdef char *at
        PyObject_GetBuffer(stamps, &view, PyBUF_SIMPLE)
        try:
            if count > 0 and (stride_bytes < 0 or view.len < 8 or (stride_bytes > 0 and
                              count - 1 > (view.len - 8) // stride_bytes)):
                raise ValueError("the stamps reach past the buffer")
            at = <char *>view.buf
            with nogil:
                for i in range(count):
                    memcpy(&stamp, at + i * stride_bytes, 8)
                    if stamp != 0:
                        histogram_add(self._words, now_ns - stamp)
        finally:
            PyBuffer_Release(&view)

    def record_field(self, int64_t now_ns, cnp.ndarray records not None, Py_ssize_t offset):
        """The same for the int64 field at ``offset`` of each of these records (one axis)."""
        cdef Py_ssize_t i, stride
        cdef int64_t stamp
        cdef const char *at
        if cnp.PyArray_NDIM(records) != 1 or offset < 0 or offset + 8 > cnp.PyArray_ITEMSIZE(records):
            raise ValueError("the field reaches past the records")
        at = <const char *>cnp.PyArray_DATA(records) + offset
        stride = cnp.PyArray_STRIDE(records, 0)
        for i in range(cnp.PyArray_DIM(records, 0)):
            memcpy(&stamp, at + i * stride, 8)
            if stamp != 0:
                histogram_add(self._words, now_ns - stamp)

    @property
    def count(self):
        return self._words[0]

    @property
    def mean_ns(self):
        return <double>self._words[1] / <double>self._words[0] if self._words[0] else 0.0

    @property
    def max_ns(self):
        return self._words[2]

    @property
    def min_ns(self):
        return self._words[3] - 1 if self._words[3] else 0

    def percentile_ns(self, double percent):
        """The upper edge of the bucket that holds this percentile (0 to 100), at most the true maximum; 0 if empty."""
        cdef uint64_t total = self._words[0]
        cdef uint64_t seen = 0
        cdef uint64_t wanted
        cdef int i
        if total == 0:
            return 0
        wanted = <uint64_t>(percent / 100.0 * total + 0.5)
        if wanted < 1:
            wanted = 1
        for i in range(COUNTS):
            seen += self._words[HEAD_WORDS + i]
            if seen >= wanted:
                return min(highest_of(i), self._words[2])
        return self._words[2]

    def add(self, Histogram other not None):
        """Add another's counts to this one."""
        cdef int i
        if other._words[0] == 0:
            return
        self._words[0] += other._words[0]
        self._words[1] += other._words[1]
        self._words[2] = max(self._words[2], other._words[2])
        if self._words[3] == 0 or other._words[3] < self._words[3]:
            self._words[3] = other._words[3]
        for i in range(COUNTS):
            self._words[HEAD_WORDS + i] += other._words[HEAD_WORDS + i]
