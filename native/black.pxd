"""C entry points of the pricing kernel; units and edge cases as in black.pyi and black_math.h.

A ``Column`` is an array with a step in bytes (0: one value for all). Doubles, but for is_call, which is bytes.
An element's result depends on its own inputs alone, to the bit.
"""

cdef extern from "black_greeks.h" nogil:
    ctypedef struct Values "black_values":
        double price, delta, gamma, vega, theta, rho, vanna, volga, charm, speed

    double price_one "black_price"(
        double forward, double strike, double expiry_years, double vol, int is_call, double discount
    ) noexcept
    void greeks_one "black_greeks"(
        double forward, double strike, double expiry_years, double vol, int is_call, double discount, int second,
        Values* out
    ) noexcept
    int classify "black_classify"(
        double forward, double strike, double expiry_years, double vol, double discount
    ) noexcept

cdef extern from "black_iv.h" nogil:
    double implied_vol_one "black_implied_vol"(
        double price, double forward, double strike, double expiry_years, int is_call, double discount,
        unsigned char* status
    ) noexcept

cpdef enum Status:
    OK = 0
    BELOW_INTRINSIC = 1
    ABOVE_MAXIMUM = 2
    EXPIRED = 3
    NON_POSITIVE = 4
    NO_TIME_VALUE = 5

cdef struct Column:
    char* data
    Py_ssize_t step

# inputs: forward, strike, expiry_years, vol (the price for implied_vol_block), is_call, discount
cdef void price_block(Py_ssize_t count, const Column* inputs, Column out) noexcept nogil
cdef void greeks_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil
cdef void greeks2_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil
cdef void implied_vol_block(Py_ssize_t count, const Column* inputs, Column out, Column status) noexcept nogil

cdef class _Columns:
    cdef Py_buffer[18] buffers
    cdef Column[18] columns
    cdef int held
    cdef int add(self, object array, Py_ssize_t count, bint writable) except -1
