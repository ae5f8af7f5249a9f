# Least squares over the five parameters, as x = (lowest, u, v, m, sigma): the smallest total variance, the roots of the
# slopes of the left and right wing, and m, sigma. So every bound is a bound of one x:
#     w = lowest - sigma u v + u^2 (r - y) / 2 + v^2 (r + y) / 2,   b = (u^2 + v^2) / 2,   b rho = (v^2 - u^2) / 2

cdef enum:
    LOWEST = 0
    LEFT = 1
    RIGHT = 2
    CENTRE = 3
    CURVE = 4
    PARAMETERS = 5
    GRID_CENTRES = 9
    GRID_CURVES = 7
    SEARCH = 60
    ROUNDS = 16

cdef double SMALLEST_ROOT = 1e-4
cdef double STEEPEST = 2.0 * (1.0 - 1e-9)  # Lee's bound, and rounding
cdef double FIRM = 30.0  # what penalties are in a warm start where the last slice touches its bounds


cdef struct Problem:
    Py_ssize_t count
    double* k
    double* w
    double* root  # of the weight, over the scale: residuals are relative to the mean total variance
    double scale
    double low[5]
    double high[5]
    # penalties: g and the distance to the earlier slice at these k are to be no less than the margin
    double firmness, hold, margin, gap  # firmness: of g; hold: of the distance
    int butterflies, calendars
    double g_nodes[NODES]
    double w_nodes[NODES]
    const Raw* floor


cdef struct Range:  # of k, where arbitrage is looked for
    double low, high


cdef struct Normal:
    double cost
    double slope[5]
    double matrix[25]  # only the lower triangle is filled


cdef Raw raw_of(const double* x) noexcept nogil:
    cdef Raw s
    cdef double left = x[LEFT] * x[LEFT], right = x[RIGHT] * x[RIGHT]
    s.b = 0.5 * (left + right)
    s.rho = (right - left) / (right + left)
    s.a = x[LOWEST] - x[CURVE] * x[LEFT] * x[RIGHT]
    s.m, s.sigma = x[CENTRE], x[CURVE]
    return s


cdef void point_of(const Problem* p, const Raw* s, double* x) noexcept nogil:
    """The slice as x, moved into the bounds."""
    cdef int i
    x[LEFT], x[RIGHT] = sqrt(left_slope(s)), sqrt(right_slope(s))
    x[LOWEST] = s.a + s.sigma * x[LEFT] * x[RIGHT]
    x[CENTRE], x[CURVE] = s.m, s.sigma
    for i in range(PARAMETERS):
        x[i] = max(p.low[i], min(p.high[i], x[i]))


cdef inline void add(Normal* n, double residual, const double* j) noexcept nogil:
    cdef int row, column
    n.cost += residual * residual
    for row in range(PARAMETERS):
        n.slope[row] += residual * j[row]
        for column in range(row + 1):
            n.matrix[5 * row + column] += j[row] * j[column]


cdef void add_calendar(const Problem* p, const double* x, const Raw* s, double k, Normal* n) noexcept nogil:
    cdef double y = k - s.m, r = sqrt(y * y + s.sigma * s.sigma)
    cdef double j[5]
    cdef double short = p.gap + variance(p.floor, k) - variance(s, k)
    cdef double by = -p.hold / p.scale
    if short <= 0:
        return
    j[LOWEST] = by
    j[LEFT] = by * (x[LEFT] * (r - y) - s.sigma * x[RIGHT])
    j[RIGHT] = by * (x[RIGHT] * (r + y) - s.sigma * x[LEFT])
    j[CENTRE] = -by * s.b * (s.rho + y / r)
    j[CURVE] = by * (s.b * s.sigma / r - x[LEFT] * x[RIGHT])
    add(n, -by * short, j)


cdef void add_butterfly(const Problem* p, const double* x, const Raw* s, double k, Normal* n) noexcept nogil:
    cdef double y = k - s.m, square = y * y + s.sigma * s.sigma, r = sqrt(square), cube = square * r
    cdef double w = variance(s, k), slope = s.b * (s.rho + y / r), bend = s.b * s.sigma * s.sigma / cube
    cdef double h = 1.0 - 0.5 * k * slope / w
    cdef double j[5]
    cdef double g = h * h - 0.25 * slope * slope * (1.0 / w + 0.25) + 0.5 * bend
    cdef double by_w, by_slope, by_bend, u = x[LEFT], v = x[RIGHT]
    if g >= p.margin:
        return
    by_w = -p.firmness * (h * k * slope + 0.25 * slope * slope) / (w * w)
    by_slope = p.firmness * (h * k / w + 0.5 * slope * (1.0 / w + 0.25))
    by_bend = -0.5 * p.firmness
    j[LOWEST] = by_w
    j[LEFT] = by_w * (u * (r - y) - s.sigma * v) + by_slope * u * (y / r - 1.0) + by_bend * u * s.sigma * s.sigma / cube
    j[RIGHT] = by_w * (v * (r + y) - s.sigma * u) + by_slope * v * (y / r + 1.0) + by_bend * v * s.sigma * s.sigma / cube
    j[CENTRE] = -by_w * slope - by_slope * bend + by_bend * 3.0 * bend * y / square
    j[CURVE] = (
        by_w * (s.b * s.sigma / r - u * v)
        - by_slope * s.b * y * s.sigma / cube
        + by_bend * bend * (2.0 / s.sigma - 3.0 * s.sigma / square)
    )
    add(n, p.firmness * (p.margin - g), j)


cdef void normal_at(const Problem* p, const double* x, Normal* n) noexcept nogil:
    """Cost, gradient and Gauss-Newton matrix at x; one pass over the strikes."""
    cdef Raw s = raw_of(x)
    cdef double m = x[CENTRE], curve = x[CURVE], u = x[LEFT], v = x[RIGHT], product = u * v, y, r, weight, over
    cdef double j[5]
    cdef double b = s.b, tilt = s.b * s.rho, square = curve * curve, a = s.a
    cdef Py_ssize_t i
    memset(n, 0, sizeof(Normal))
    for i in range(p.count):
        y = p.k[i] - m
        r = sqrt(y * y + square)
        over = 1.0 / r
        weight = p.root[i]
        j[LOWEST] = weight
        j[LEFT] = weight * (u * (r - y) - curve * v)
        j[RIGHT] = weight * (v * (r + y) - curve * u)
        j[CENTRE] = -weight * (tilt + b * y * over)
        j[CURVE] = weight * (b * curve * over - product)
        add(n, weight * (a + tilt * y + b * r - p.w[i]), j)
    for i in range(p.butterflies):
        add_butterfly(p, x, &s, p.g_nodes[i], n)
    for i in range(p.calendars):
        add_calendar(p, x, &s, p.w_nodes[i], n)


cdef bint solve(const Normal* n, double damping, const bint* free, double* step) noexcept nogil:
    """Step of the free parameters that solves (M + damping diag M) step = -slope, by Cholesky; the others' is given."""
    cdef double lower[25]
    cdef double sum_, diagonal = 1.0
    cdef int i, j, l
    for i in range(PARAMETERS):
        if not free[i]:
            continue
        for j in range(i + 1):
            if not free[j]:
                continue
            sum_ = n.matrix[5 * i + j]
            if i == j:
                diagonal = sum_ * (1.0 + damping) + 1e-300
                sum_ = diagonal
            for l in range(j):
                if free[l]:
                    sum_ -= lower[5 * i + l] * lower[5 * j + l]
            if i > j:
                lower[5 * i + j] = sum_ / lower[6 * j]
            elif sum_ > 1e-15 * diagonal:
                lower[6 * i] = sqrt(sum_)
            else:
                return False
    for i in range(PARAMETERS):
        if not free[i]:
            continue
        sum_ = -n.slope[i]
        for l in range(PARAMETERS):
            if not free[l]:
                sum_ -= n.matrix[5 * max(i, l) + min(i, l)] * step[l]
            elif l < i:
                sum_ -= lower[5 * i + l] * step[l]
        step[i] = sum_ / lower[6 * i]
    for i in range(PARAMETERS - 1, -1, -1):
        if not free[i]:
            continue
        sum_ = step[i]
        for l in range(i + 1, PARAMETERS):
            if free[l]:
                sum_ -= lower[5 * l + i] * step[l]
        step[i] = sum_ / lower[6 * i]
    return True


cdef bint bounded_step(const Problem* p, const double* x, const Normal* n, double damping, double* step) noexcept nogil:
    """The step within the bounds: a parameter that would pass one goes as far as that, and the rest is solved again."""
    cdef bint free[5]
    cdef bint again = True
    cdef int i, _
    for i in range(PARAMETERS):
        step[i] = 0.0
        free[i] = not (x[i] <= p.low[i] and n.slope[i] > 0 or x[i] >= p.high[i] and n.slope[i] < 0)
    for _ in range(PARAMETERS):
        if not solve(n, damping, free, step):
            return False
        again = False
        for i in range(PARAMETERS):
            if free[i] and not p.low[i] <= x[i] + step[i] <= p.high[i]:
                step[i] = (p.low[i] if step[i] < 0 else p.high[i]) - x[i]
                free[i] = False
                again = True
        if not again:
            break
    return True


cdef int descend(const Problem* p, double* x, int most, int* passes) noexcept nogil:
    """Levenberg-Marquardt within the bounds from x; CONVERGED or not. Counts passes over the strikes."""
    cdef Normal here, there
    cdef double damping = 1e-4, gain
    cdef double trial[5]
    cdef double step[5]
    cdef int i, flat = 0
    normal_at(p, x, &here)
    passes[0] += 1
    for _ in range(most):
        if here.cost < 1e-26:
            return CONVERGED
        if not bounded_step(p, x, &here, damping, step):
            damping = max(1e-8, damping * 10.0)
            continue
        for i in range(PARAMETERS):
            trial[i] = max(p.low[i], min(p.high[i], x[i] + step[i]))
        normal_at(p, trial, &there)
        passes[0] += 1
        if there.cost < here.cost:
            gain = (here.cost - there.cost) / here.cost
            flat = flat + 1 if gain < 1e-6 else 0
            memcpy(x, trial, sizeof(trial))
            here = there
            damping = max(1e-14, damping * 0.1)
            if gain < 1e-9 or flat == 4:  # creeping along a valley: nothing that quotes could tell
                return CONVERGED
        else:
            if there.cost - here.cost <= 1e-13 * here.cost or damping > 1e8:
                return CONVERGED
            damping *= 8.0
    return NOT_CONVERGED
