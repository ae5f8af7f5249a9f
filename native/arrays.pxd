"""Read-only arrays of records."""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(type subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims, cnp.npy_intp *strides,
                                void *data, int flags, object obj)


cdef inline cnp.ndarray array_view(cnp.dtype dtype, cnp.npy_intp count, const char *at, owner):
    """``count`` elements of ``owner``'s memory, which the array keeps alive."""
    Py_INCREF(dtype)  # the array takes it over
    cdef cnp.ndarray array = PyArray_NewFromDescr(
        cnp.ndarray, dtype, 1, &count, NULL, <void *>at, cnp.NPY_ARRAY_CARRAY_RO, None
    )
    cnp.set_array_base(array, owner)
    return array


cdef inline cnp.ndarray array_copy(cnp.dtype dtype, cnp.npy_intp count, const char *at):
    """``count`` elements, copied. Into bytes, because numpy clears memory of its own first, field by field of
    the dtype, which takes longer than all the rest."""
    cdef bytes copy = PyBytes_FromStringAndSize(at, count * dtype.itemsize)
    return array_view(dtype, count, PyBytes_AS_STRING(copy), copy)
