"""Black-76 value, greeks and implied volatility of European options on arrays; the mathematics is in black_*.h."""

from collections import namedtuple
from types import GenericAlias

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_STRIDED_RO, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.float cimport PyFloat_Check
from cpython.long cimport PyLong_CheckExact
from libc.math cimport isnan

_GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho")
_GREEKS2 = (*_GREEKS, "vanna", "volga", "charm", "speed")
_REASONS = {
    BELOW_INTRINSIC: "the price is below intrinsic value",
    ABOVE_MAXIMUM: "the price is not below the largest value an option can have",
    EXPIRED: "expiry_years is not positive",
    NON_POSITIVE: "price, forward, strike, expiry_years and discount must be finite, forward, strike, discount above 0",
    NO_TIME_VALUE: "the price is the intrinsic value: no time value to solve from",
}


class Greeks(namedtuple("Greeks", _GREEKS)):
    """Value and five greeks."""

    __slots__ = ()
    __class_getitem__ = classmethod(GenericAlias)


class Greeks2(namedtuple("Greeks2", _GREEKS2)):
    """Value and nine greeks."""

    __slots__ = ()
    __class_getitem__ = classmethod(GenericAlias)


cdef inline double number(const Column* column, Py_ssize_t i) noexcept nogil:
    return (<const double*>(column.data + i * column.step))[0]


cdef inline int truth(const Column* column, Py_ssize_t i) noexcept nogil:
    return (<const unsigned char*>(column.data + i * column.step))[0] != 0


cdef void price_block(Py_ssize_t count, const Column* inputs, Column out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        (<double*>(out.data + i * out.step))[0] = price_one(
            number(&inputs[0], i), number(&inputs[1], i), number(&inputs[2], i), number(&inputs[3], i),
            truth(&inputs[4], i), number(&inputs[5], i)
        )


cdef inline void _greeks_block(Py_ssize_t count, const Column* inputs, const Column* out, int fields) noexcept nogil:
    cdef Py_ssize_t i
    cdef int field
    cdef Values values
    for i in range(count):
        greeks_one(
            number(&inputs[0], i), number(&inputs[1], i), number(&inputs[2], i), number(&inputs[3], i),
            truth(&inputs[4], i), number(&inputs[5], i), fields > 6, &values
        )
        for field in range(fields):
            (<double*>(out[field].data + i * out[field].step))[0] = (<double*>&values)[field]


cdef void greeks_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil:
    _greeks_block(count, inputs, out, 6)


cdef void greeks2_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil:
    _greeks_block(count, inputs, out, 10)


cdef void implied_vol_block(Py_ssize_t count, const Column* inputs, Column out, Column status) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        (<double*>(out.data + i * out.step))[0] = implied_vol_one(
            number(&inputs[3], i), number(&inputs[0], i), number(&inputs[1], i), number(&inputs[2], i),
            truth(&inputs[4], i), number(&inputs[5], i), <unsigned char*>(status.data + i * status.step)
        )


@cython.auto_pickle(False)
cdef class _Columns:
    """The buffers of one call, released with it."""

    def __dealloc__(self):
        cdef int i
        for i in range(self.held):
            PyBuffer_Release(&self.buffers[i])

    cdef int add(self, object array, Py_ssize_t count, bint writable) except -1:
        cdef int i = self.held
        PyObject_GetBuffer(array, &self.buffers[i], (PyBUF_STRIDES | PyBUF_WRITABLE) if writable else PyBUF_STRIDED_RO)
        self.held = i + 1
        self.columns[i].data = <char*>self.buffers[i].buf
        # one value for all: count of the array is 1 (or the array has no axis)
        self.columns[i].step = 0
        if self.buffers[i].ndim == 1 and self.buffers[i].shape[0] == count and count != 1:
            self.columns[i].step = self.buffers[i].strides[0]
        return 0


cdef object _flags(object is_call):
    """As an array of bools. +1 and -1 would both be true: refused, as are all other numbers but 0 and 1."""
    array = np.asarray(is_call)
    if array.dtype != np.bool_:
        if not ((array == 0) | (array == 1)).all():
            raise ValueError("is_call must be true or false (1 or 0), not +1 and -1")
        array = array.astype(np.bool_)
    return array


cdef tuple _shape(list arrays):
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        shapes.discard(())
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)


cdef list _inputs(tuple arguments):
    """Forward, strike, expiry_years, vol (or price), is_call, discount."""
    return [_flags(value) if i == 4 else np.asarray(value, np.float64) for i, value in enumerate(arguments)]


cdef _Columns _columns(list arrays, tuple shape, Py_ssize_t count, list outputs):
    """Inputs and outputs as columns. An input that an output overlaps, but is not the same as, is copied first."""
    cdef _Columns columns = _Columns()
    cdef int i
    for i, array in enumerate(arrays):
        if array.size != 1:
            if array.shape != shape:
                array = np.broadcast_to(array, shape)
            if array.ndim != 1:
                array = array.reshape(-1)
        elif array.ndim:
            array = array.reshape(())
        if not array.flags.aligned:
            array = array.copy()
        for out in outputs:
            if np.may_share_memory(array, out) and not (
                array.ctypes.data == out.ctypes.data and array.strides == out.strides
            ):
                array = array.copy()
                break
        columns.add(array, count, False)
    return columns


cdef tuple _output(object out, tuple shape, object dtype, str name):
    """The array to return, and a flat one to fill (a view of it wherever that can be)."""
    if out is None:
        flat = np.empty(shape, dtype)
        return flat, flat.reshape(-1)
    if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != shape:
        raise ValueError(f"{name} must be an array of {np.dtype(dtype).name} and of shape {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if out.ndim == 1 and out.flags.aligned:
        return out, out
    if out.flags.c_contiguous and out.flags.aligned:
        return out, out.reshape(-1)
    return out, np.empty(out.size, dtype)


cdef object _finish(object out, object flat):
    if flat is not out and not np.may_share_memory(flat, out):
        out[...] = flat.reshape(out.shape)
    return out


cdef int _check_scalars(double forward, double strike, double expiry_years, double vol, double discount) except -1:
    if classify(forward, strike, expiry_years, vol, discount) >= 0:
        return 0
    for name, value in (
        ("forward", forward), ("strike", strike), ("expiry_years", expiry_years), ("vol", vol), ("discount", discount),
    ):
        if not value >= 0 or (value == float("inf") and name not in ("expiry_years", "vol")):
            raise ValueError(f"{name} must be {'a number' if isnan(value) else 'finite and not negative'}: it is {value}")
    raise ValueError("expiry_years and vol have no product")


cdef inline bint _plain(object a, object b, object c, object d, object e, object flag):
    """Python numbers and a bool: no array is needed to take them."""
    return (
        (PyFloat_Check(a) or PyLong_CheckExact(a)) and (PyFloat_Check(b) or PyLong_CheckExact(b))
        and (PyFloat_Check(c) or PyLong_CheckExact(c)) and (PyFloat_Check(d) or PyLong_CheckExact(d))
        and (PyFloat_Check(e) or PyLong_CheckExact(e)) and (flag is True or flag is False)
    )


def price(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    cdef _Columns columns
    cdef Py_ssize_t count
    cdef double f, k, t, v, d
    if out is None and _plain(forward, strike, expiry_years, vol, discount, is_call):
        f, k, t, v, d = forward, strike, expiry_years, vol, discount
        _check_scalars(f, k, t, v, d)
        return price_one(f, k, t, v, is_call is True, d)
    cdef list arrays = _inputs((forward, strike, expiry_years, vol, is_call, discount))
    cdef tuple shape = _shape(arrays)
    if out is None and not shape:
        return price(*[float(array) for array in arrays[:4]], bool(arrays[4]), float(arrays[5]))
    target, flat = _output(out, shape, np.float64, "out")
    count = flat.size
    columns = _columns(arrays, shape, count, [] if out is None else [flat])
    columns.add(flat, count, True)
    with nogil:
        price_block(count, columns.columns, columns.columns[6])
    return _finish(target, flat)


cdef object _all_greeks(object form, tuple arguments, object out):
    cdef _Columns columns
    cdef Py_ssize_t count
    cdef Values values
    cdef double f, k, t, v, d
    cdef int fields = len(form._fields), i
    cdef list arrays
    cdef tuple shape = ()
    if not (out is None and _plain(
        arguments[0], arguments[1], arguments[2], arguments[3], arguments[5], arguments[4]
    )):
        arrays = _inputs(arguments)
        shape = _shape(arrays)
        arguments = tuple(arrays)
    if out is None and not shape:
        f, k, t, v, d = arguments[0], arguments[1], arguments[2], arguments[3], arguments[5]
        _check_scalars(f, k, t, v, d)
        greeks_one(f, k, t, v, bool(arguments[4]), d, fields > 6, &values)
        return form._make([(<double*>&values)[i] for i in range(fields)])
    if out is None:
        pairs = [(row, row.reshape(-1)) for row in np.empty((fields, *shape), np.float64)]
    elif len(out) != fields:
        raise ValueError(f"out must have {fields} arrays, those of {form.__name__}")
    else:
        pairs = [_output(out[i], shape, np.float64, f"out.{form._fields[i]}") for i in range(fields)]
    count = pairs[0][1].size
    columns = _columns(arrays, shape, count, [] if out is None else [flat for _, flat in pairs])
    for _, flat in pairs:
        columns.add(flat, count, True)
    with nogil:
        _greeks_block(count, columns.columns, &columns.columns[6], fields)
    filled = form._make([_finish(target, flat) for target, flat in pairs])
    return filled if out is None else out


def greeks(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    return _all_greeks(Greeks, (forward, strike, expiry_years, vol, is_call, discount), out)


def greeks2(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    return _all_greeks(Greeks2, (forward, strike, expiry_years, vol, is_call, discount), out)


def implied_vol(price, forward, strike, expiry_years, is_call, discount=1.0, out=None, status=None):
    cdef _Columns columns
    cdef Py_ssize_t count
    cdef double f, k, t, p, d, vol
    cdef unsigned char code
    cdef list arrays
    cdef tuple shape = ()
    cdef tuple arguments = (forward, strike, expiry_years, price, is_call, discount)
    if not (out is None and status is None and _plain(forward, strike, expiry_years, price, discount, is_call)):
        arrays = _inputs(arguments)
        shape = _shape(arrays)
        arguments = tuple(arrays)
    if out is None and status is None and not shape:
        f, k, t, p, d = arguments[0], arguments[1], arguments[2], arguments[3], arguments[5]
        vol = implied_vol_one(p, f, k, t, bool(arguments[4]), d, &code)
        if code != OK:
            raise ValueError(f"no implied volatility: {_REASONS[code]} (price {p}, forward {f}, strike {k})")
        return vol
    target, flat = _output(out, shape, np.float64, "out")
    codes, flat_codes = _output(status, shape, np.uint8, "status")
    count = flat.size
    columns = _columns(arrays, shape, count, [] if out is None and status is None else [flat, flat_codes])
    columns.add(flat, count, True)
    columns.add(flat_codes, count, True)
    with nogil:
        implied_vol_block(count, columns.columns, columns.columns[6], columns.columns[7])
    _finish(codes, flat_codes)
    return _finish(target, flat)
