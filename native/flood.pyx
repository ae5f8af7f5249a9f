"""Publishing ready-made records one by one, or some at a time, in a loop without the GIL: what a native feed handler does, for
benchmarks of the path behind it."""

cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t

from native.log cimport load_acquire_u64
from native.publication cimport Publication

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int microseconds)

cnp.import_array()

cdef enum:
    NAP_US = 50


cdef extern from "stamp_clock.h" nogil:
    int64_t stamp_ns() noexcept


cdef Py_ssize_t slowest(const void *reached, Py_ssize_t readers) noexcept nogil:
    cdef Py_ssize_t least = <Py_ssize_t>load_acquire_u64(reached)
    cdef Py_ssize_t one, i
    for i in range(1, readers):
        one = <Py_ssize_t>load_acquire_u64(<const char *>reached + 8 * i)
        least = one if one < least else least
    return least


def flood(Publication out not None, cnp.ndarray records not None, Py_ssize_t begin, Py_ssize_t step, progress=None,
          Py_ssize_t window=0):
    """Publish ``records[begin:]``, ``step`` at a time, each time as one event, committed and sent; returns where it stopped: at
    the end, or at records that take the slow way (``LogWriter.write``), such as those that need the next segment.

    ``progress`` (8 bytes for each reader, which it writes: how many records it has) holds it back: never more than ``window``
    records ahead of the slowest. At the window's end it sleeps until half of it is free, as libzmq does at its high-water mark. Raises ValueError for records of another size, or not contiguous.
    """
    cdef Py_buffer view
    cdef const void *reached = NULL
    cdef const char *memory = <const char *>cnp.PyArray_DATA(records)
    cdef Py_ssize_t count = cnp.PyArray_DIM(records, 0)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(records)
    cdef Py_ssize_t at = begin
    cdef Py_ssize_t some
    cdef Py_ssize_t readers = 0
    if size != out._appender._record_bytes or not cnp.PyArray_IS_C_CONTIGUOUS(records) or begin < 0 or step < 1:
        raise ValueError("contiguous records of the log's size, from 0 on, at least one at a time")
    if progress is not None:
        PyObject_GetBuffer(progress, &view, PyBUF_SIMPLE)
        reached = view.buf
        readers = view.len // 8
    try:
        with nogil:
            while at < count:
                some = step if count - at > step else count - at
                if reached != NULL and at + some > slowest(reached, readers) + window:
                    while at + some > slowest(reached, readers) + window // 2:
                        usleep(NAP_US)
                if out.publish(memory + at * size, some, stamp_ns()) == 0:
                    break
                at += some
    finally:
        if progress is not None:
            PyBuffer_Release(&view)
    return at
