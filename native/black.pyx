"""Black-76 value, greeks and implied volatility of European options on arrays; the mathematics is in black_*.h."""

import os
from collections import namedtuple
from types import GenericAlias

import numpy as np

cimport numpy as cnp
from cpython.float cimport PyFloat_Check, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_SET_ITEM
from libc.math cimport isfinite, isnan

cdef extern from "black_kernel.h" nogil:
    ctypedef struct Kernel "black_kernel":
        const char* name
        void values(Py_ssize_t count, const Column* inputs, const Column* outputs, int fields) noexcept nogil
        void implied_vol(Py_ssize_t count, const Column* inputs, const Column* out, const Column* status) noexcept nogil
        void values_one(
            double forward, double strike, double expiry, double vol, int is_call, double discount, int fields,
            double* out
        ) noexcept nogil
        double implied_vol_one(
            double price, double forward, double strike, double expiry, int is_call, double discount,
            unsigned char* status
        ) noexcept nogil
    const Kernel* active "black_active"
    int select "black_select"(const char* name) noexcept nogil
    const char* target_name "black_target_name"(int i, int* runs) noexcept nogil

cdef extern from *:
    """
    /* A tuple of ``items`` empty places. From 3.14 on a tuple remembers its hash, and 0 would be taken for one. */
    static PyObject *black_new_tuple(PyTypeObject *type, Py_ssize_t items)
    {
        PyObject *made = PyType_GenericAlloc(type, items);
    #if PY_VERSION_HEX >= 0x030E0000
        if (made != NULL) ((PyTupleObject *)made)->ob_hash = -1;
    #endif
        return made;
    }
    """
    object new_tuple "black_new_tuple"(PyTypeObject* type, Py_ssize_t items)

cdef extern from "black_math.h" nogil:
    int classify "black_classify"(
        double forward, double strike, double expiry_years, double vol, double discount
    ) noexcept

cnp.import_array()

cdef enum:
    ONE_BLOCK_FROM = 2048  # elements
    FEW = 512  # as many elements are done sooner than the interpreter lock is given up and taken back
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


def target():
    return active.name.decode()


def targets():
    cdef int i = 0, runs = 0
    found = []
    while target_name(i, &runs) is not NULL:
        if runs:
            found.append(target_name(i, &runs).decode())
        i += 1
    return tuple(found)


def select_target(name=None):
    wanted = (name or "").encode()
    if select(<const char*>wanted if wanted else NULL) != 0:
        raise ValueError(f"this machine has no target {name!r}: it runs {', '.join(targets())}")


try:
    select_target(os.environ.get("FABRIC_BLACK_TARGET"))
except ValueError as error:
    raise ImportError(f"FABRIC_BLACK_TARGET: {error}") from error


cdef void price_block(Py_ssize_t count, const Column* inputs, Column out) noexcept nogil:
    active.values(count, inputs, &out, 1)


cdef void greeks_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil:
    active.values(count, inputs, out, 6)


cdef void greeks8_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil:
    active.values(count, inputs, out, 8)


cdef void greeks2_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil:
    active.values(count, inputs, out, 10)


cdef void implied_vol_block(Py_ssize_t count, const Column* inputs, Column out, Column status) noexcept nogil:
    active.implied_vol(count, inputs, &out, &status)


cdef double price_one(
    double forward, double strike, double expiry_years, double vol, int is_call, double discount
) noexcept nogil:
    cdef double value
    active.values_one(forward, strike, expiry_years, vol, is_call, discount, 1, &value)
    return value


cdef void greeks_one(
    double forward, double strike, double expiry_years, double vol, int is_call, double discount, int second, Values* out
) noexcept nogil:
    active.values_one(forward, strike, expiry_years, vol, is_call, discount, 10 if second else 6, &out.price)


cdef double implied_vol_one(
    double price, double forward, double strike, double expiry_years, int is_call, double discount,
    unsigned char* status
) noexcept nogil:
    return active.implied_vol_one(price, forward, strike, expiry_years, is_call, discount, status)


include "black_call.pxi"


cdef int _check_scalars(double forward, double strike, double expiry_years, double vol, double discount) except -1:
    if classify(forward, strike, expiry_years, vol, discount) >= 0:
        return 0
    for name, value in (
        ("forward", forward), ("strike", strike), ("expiry_years", expiry_years), ("vol", vol), ("discount", discount),
    ):
        if not value >= 0 or (value == float("inf") and name not in ("expiry_years", "vol")):
            raise ValueError(f"{name} must be {'a number' if isnan(value) else 'finite and not negative'}: it is {value}")
    raise ValueError("expiry_years and vol have no product")


def price(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    cdef Call call
    cdef double value
    cdef double* x = call.numbers
    if _simple(forward, strike, expiry_years, vol, is_call, discount, &call):
        if call.count < 0 and out is None:
            active.values_one(x[0], x[1], x[2], x[3], call.flag, x[5], 1, &value)
            if isnan(value):
                _check_scalars(x[0], x[1], x[2], x[3], x[5])
            return value
        if call.count >= 0 and out is None:
            out = _fresh(cnp.NPY_FLOAT64, &call, &call.outputs[0])
            _run(&call, 1)
            return out
        if _taken(out, cnp.NPY_FLOAT64, &call, &call.outputs[0]):
            _run(&call, 1)
            return out
    arrays = _inputs((forward, strike, expiry_years, vol, is_call, discount))
    shape = _shape(arrays)
    if out is None and not shape:
        return price(*[float(array) for array in arrays[:4]], bool(arrays[4]), float(arrays[5]))
    return _run_general(tuple(arrays), shape, (out,), (np.float64,), ("out",), 1)[0]


cdef object _GREEKS_FORM = Greeks
cdef object _GREEKS2_FORM = Greeks2


cdef object _numbers(object form, const double* values, int count):
    result = new_tuple(<PyTypeObject*>form, count)
    cdef object number  # else it would be taken for a double
    cdef int i
    for i in range(count):
        number = values[i]
        Py_INCREF(number)
        PyTuple_SET_ITEM(result, i, number)
    return result


cdef object _named(object form, list values):
    """form._make(values), for a tuple type without attributes of its own."""
    cdef Py_ssize_t i, count = len(values)
    result = new_tuple(<PyTypeObject*>form, count)
    for i in range(count):
        value = values[i]
        Py_INCREF(value)
        PyTuple_SET_ITEM(result, i, value)
    return result


cdef inline bint _all_taken(object form, int fields, object out, Call* call):
    cdef int i
    if type(out) is not form or PyTuple_GET_SIZE(out) != fields:
        return False
    for i in range(fields):
        if not _taken(<object>PyTuple_GET_ITEM(out, i), cnp.NPY_FLOAT64, call, &call.outputs[i]):
            return False
    return True


cdef object _all_greeks(
    object form, int fields, object f, object k, object t, object v, object is_call, object d, object out
):
    cdef Call call
    cdef Values values
    cdef double* x = call.numbers
    if _simple(f, k, t, v, is_call, d, &call):
        if call.count < 0 and out is None:
            active.values_one(x[0], x[1], x[2], x[3], call.flag, x[5], fields, &values.price)
            if isnan(values.price):
                _check_scalars(x[0], x[1], x[2], x[3], x[5])
            return _numbers(form, &values.price, fields)
        if call.count >= 0 and out is None:
            filled = _fresh_rows(fields, &call)
            _run(&call, fields)
            return _named(form, filled)
        if _all_taken(form, fields, out, &call):
            _run(&call, fields)
            return out
    arrays = _inputs((f, k, t, v, is_call, d))
    shape = _shape(arrays)
    if out is None and not shape:
        f, k, t, v, d = [float(arrays[i]) for i in (0, 1, 2, 3, 5)]
        return _all_greeks(form, fields, f, k, t, v, bool(arrays[4]), d, None)
    if out is not None and len(out) != fields:
        raise ValueError(f"out must have {fields} arrays, those of {form.__name__}")
    names = tuple([f"out.{name}" for name in form._fields])
    outs = (None,) * fields if out is None else tuple(out)
    filled = _run_general(tuple(arrays), shape, outs, (np.float64,) * fields, names, fields)
    return _named(form, filled) if out is None else out


def greeks(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    return _all_greeks(_GREEKS_FORM, 6, forward, strike, expiry_years, vol, is_call, discount, out)


def greeks2(forward, strike, expiry_years, vol, is_call, discount=1.0, out=None):
    return _all_greeks(_GREEKS2_FORM, 10, forward, strike, expiry_years, vol, is_call, discount, out)


cdef str _no_volatility(int code, const double* x):
    if code == NON_POSITIVE:
        for name, value in (("forward", x[0]), ("strike", x[1]), ("discount", x[5])):
            if not (value > 0 and isfinite(value)):
                return f"{name} must be finite and above 0: it is {value}"
        for name, value in (("price", x[3]), ("expiry_years", x[2])):
            if not isfinite(value):
                return f"{name} must be finite: it is {value}"
    return f"no implied volatility: {_REASONS[code]} (price {x[3]}, forward {x[0]}, strike {x[1]}, expiry_years {x[2]})"


def implied_vol(price, forward, strike, expiry_years, is_call, discount=1.0, out=None, status=None):
    cdef Call call
    cdef unsigned char code
    cdef double* x = call.numbers
    if _simple(forward, strike, expiry_years, price, is_call, discount, &call):
        if call.count < 0 and out is None and status is None:
            vol = implied_vol_one(x[3], x[0], x[1], x[2], call.flag, x[5], &code)
            if code != OK:
                raise ValueError(_no_volatility(code, x))
            return vol
        if call.count >= 0 and (out is None or _taken(out, cnp.NPY_FLOAT64, &call, &call.outputs[0])) and (
            status is None or _taken(status, cnp.NPY_UINT8, &call, &call.outputs[1])
        ):
            if out is None:
                out = _fresh(cnp.NPY_FLOAT64, &call, &call.outputs[0])
            if status is None:
                status = _fresh(cnp.NPY_UINT8, &call, &call.outputs[1])
            _run(&call, 0)
            return out
    arrays = _inputs((forward, strike, expiry_years, price, is_call, discount))
    shape = _shape(arrays)
    if out is None and status is None and not shape:
        numbers = [float(array) for array in (arrays[3], *arrays[:3])]
        return implied_vol(*numbers, bool(arrays[4]), float(arrays[5]))
    return _run_general(
        tuple(arrays), shape, (out, status), (np.float64, np.uint8), ("out", "status"), 0
    )[0]
