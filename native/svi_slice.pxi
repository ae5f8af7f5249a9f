# One raw SVI slice: w(k) = a + b (rho y + r), y = k - m, r = sqrt(y^2 + sigma^2); k = ln(strike / forward), w total variance.


cdef struct Raw:
    double a, b, rho, m, sigma


cdef inline double variance(const Raw* s, double k) noexcept nogil:
    cdef double y = k - s.m
    return s.a + s.b * (s.rho * y + sqrt(y * y + s.sigma * s.sigma))


cdef inline double durrleman(const Raw* s, double k) noexcept nogil:
    """g(k) of Gatheral & Jacquier (2014), equation 2.1; minus infinity where w is not above 0."""
    cdef double y = k - s.m, square = y * y + s.sigma * s.sigma
    cdef double r = sqrt(square), w = s.a + s.b * (s.rho * y + r)
    cdef double slope, h
    if not w > 0:
        return -INFINITY
    slope = s.b * (s.rho + y / r)
    h = 1.0 - 0.5 * k * slope / w
    return h * h - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * s.b * s.sigma * s.sigma / (square * r)


cdef inline double wing_limit(double slope) noexcept nogil:
    """g at infinity, where w grows by ``slope`` per unit of |k|: not below 0 up to Lee's slope of 2."""
    return 0.25 - 0.0625 * slope * slope


cdef inline double left_slope(const Raw* s) noexcept nogil:
    return s.b * (1.0 - s.rho)


cdef inline double right_slope(const Raw* s) noexcept nogil:
    return s.b * (1.0 + s.rho)
