"""C entry points of the pricing kernel; units and edge cases as in black.pyi and black_math.h.

A ``Column`` is an array with a step in bytes (0: one value for all). Doubles, but for is_call, which is bytes.
An element's result depends on its own inputs alone, to the bit. Outputs must not overlap inputs.
"""

cdef extern from "black_kernel.h" nogil:
    ctypedef struct Column "black_column":
        char* data
        Py_ssize_t step

cpdef enum Status:
    OK = 0
    BELOW_INTRINSIC = 1
    ABOVE_MAXIMUM = 2
    EXPIRED = 3
    NON_POSITIVE = 4
    NO_TIME_VALUE = 5

cdef struct Values:
    double price, delta, gamma, vega, theta, rho, vanna, volga, charm, speed

# inputs: forward, strike, expiry_years, vol (the price for implied_vol_block), is_call, discount
cdef void price_block(Py_ssize_t count, const Column* inputs, Column out) noexcept nogil
cdef void greeks_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil
cdef void greeks8_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil  # up to volga
cdef void greeks2_block(Py_ssize_t count, const Column* inputs, const Column* out) noexcept nogil
cdef void implied_vol_block(Py_ssize_t count, const Column* inputs, Column out, Column status) noexcept nogil

# one option; ``second``: also those after rho
cdef double price_one(
    double forward, double strike, double expiry_years, double vol, int is_call, double discount
) noexcept nogil
cdef void greeks_one(
    double forward, double strike, double expiry_years, double vol, int is_call, double discount, int second, Values* out
) noexcept nogil
cdef double implied_vol_one(
    double price, double forward, double strike, double expiry_years, int is_call, double discount,
    unsigned char* status
) noexcept nogil
