# Where a slice is worst: the smallest g (butterfly), the smallest distance to an earlier slice (calendar).

cdef enum:
    EVEN = 96  # points between low and high
    WING = 64  # points on each side of m, evenly spaced in asinh((k - m) / sigma)
    NARROW = 24  # the same around the minimum, where that is narrower than sigma
    REFINE = 40
    NODES = 64

cdef double FAR = 1e4
cdef double GOLDEN = 0.61803398874989484820


cdef struct WorstOf:
    double value, at
    # where a fit puts its penalties: local minima below ``limit``
    double limit
    int count
    double* nodes


cdef inline double measure(const Raw* s, const Raw* earlier, double k) noexcept nogil:
    return durrleman(s, k) if earlier is NULL else variance(s, k) - variance(earlier, k)


cdef void found(WorstOf* worst, double value, double k) noexcept nogil:
    if value < worst.value:
        worst.value, worst.at = value, k
    if worst.nodes is not NULL and value < worst.limit:
        worst.nodes[worst.count % NODES] = k
        worst.count += 1


cdef void refine(
    const Raw* s, const Raw* earlier, double left, double middle, double value, double right, WorstOf* worst
) noexcept nogil:
    """The minimum between ``left`` and ``right`` by golden section, unless it can hardly matter."""
    cdef double below = value - 0.5 * (max(measure(s, earlier, left), measure(s, earlier, right)) - value)
    cdef double low = left, high = right, one, other, at_one, at_other
    cdef int i
    if not (below < worst.value or below < worst.limit):
        return
    one, other = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_one, at_other = measure(s, earlier, one), measure(s, earlier, other)
    for i in range(REFINE):
        if at_one < at_other:
            high, other, at_other = other, one, at_one
            one = high - GOLDEN * (high - low)
            at_one = measure(s, earlier, one)
        else:
            low, one, at_one = one, other, at_other
            other = low + GOLDEN * (high - low)
            at_other = measure(s, earlier, other)
        if high - low <= 1e-9 * (right - left):
            break
    if at_one < value or at_other < value:
        if at_one < at_other:
            found(worst, at_one, one)
        else:
            found(worst, at_other, other)
    else:
        found(worst, value, middle)


cdef void even(const Raw* s, const Raw* earlier, double low, double high, WorstOf* worst) noexcept nogil:
    """Points at equal distances from ``low`` to ``high``."""
    cdef double step = (high - low) / EVEN, before = INFINITY, here = measure(s, earlier, low), after, k
    cdef int i
    found(worst, here, low)
    for i in range(EVEN):
        k = low + step * i
        after = measure(s, earlier, k + step)
        if i and here <= before and here <= after:
            refine(s, earlier, k - step, k, here, k + step, worst)
        before, here = here, after
    found(worst, here, high)


cdef void around(
    const Raw* s, const Raw* earlier, double centre, double scale, double reach, int count, double low, double high,
    WorstOf* worst,
) noexcept nogil:
    """``count`` points on each side of ``centre``: dense within ``scale``, then each further by a factor, up to ``reach``;
    those outside of ``low`` to ``high`` are left out."""
    cdef double growth = exp(asinh(reach / scale) / count), power
    cdef double ends[2]
    cdef double last = centre, k = centre, next_k, before, here, after
    cdef int i, side
    for side in range(-1, 2, 2):
        power = 1.0
        last = centre - side * 0.5 * scale * (growth - 1.0 / growth)
        k = centre
        before, here = measure(s, earlier, last), measure(s, earlier, k)
        for i in range(count):
            power *= growth
            next_k = centre + side * 0.5 * scale * (power - 1.0 / power)
            after = measure(s, earlier, next_k)
            if here <= before and here <= after and low <= k <= high:
                ends[0], ends[1] = max(low, min(last, next_k)), min(high, max(last, next_k))
                refine(s, earlier, ends[0], k, here, ends[1], worst)
            last, k, before, here = k, next_k, here, after
        if low <= k <= high:
            found(worst, here, k)


cdef void butterfly_of(const Raw* s, double low, double high, WorstOf* worst) noexcept nogil:
    """The smallest g: evenly from ``low`` to ``high``, around m out to 10,000 and more, and in the limit of each wing."""
    cdef double reach = FAR * (1.0 + fabs(s.m) + s.sigma)
    cdef double root = sqrt(1.0 - s.rho * s.rho), lowest = s.a + s.b * s.sigma * root
    cdef double bottom = s.m - s.rho * s.sigma / root, bend, width
    if not lowest > 0:
        worst.value, worst.at = -INFINITY, bottom
        return
    even(s, NULL, low, high, worst)
    around(s, NULL, s.m, s.sigma, reach, WING, -INFINITY, INFINITY, worst)
    bend = s.b * root * root * root / s.sigma
    width = sqrt(2.0 * lowest / bend) if bend > 0 else INFINITY
    if width < 0.5 * s.sigma / root:  # w doubles within less than sigma of its minimum
        around(s, NULL, bottom, width, 3.0 * s.sigma / root, NARROW, -INFINITY, INFINITY, worst)
    if wing_limit(left_slope(s)) < worst.value:
        worst.value, worst.at = wing_limit(left_slope(s)), -INFINITY
    if wing_limit(right_slope(s)) < worst.value:
        worst.value, worst.at = wing_limit(right_slope(s)), INFINITY


cdef void calendar_of(const Raw* earlier, const Raw* s, double low, double high, WorstOf* worst) noexcept nogil:
    """The smallest w(k) less that of the earlier slice, for k from ``low`` to ``high``."""
    even(s, earlier, low, high, worst)
    around(s, earlier, s.m, s.sigma, high - low, NARROW, low, high, worst)
    around(s, earlier, earlier.m, earlier.sigma, high - low, NARROW, low, high, worst)


cdef inline WorstOf nothing(double* nodes, double limit) noexcept nogil:
    cdef WorstOf worst
    worst.value, worst.at, worst.limit, worst.count, worst.nodes = INFINITY, NAN, limit, 0, nodes
    return worst
