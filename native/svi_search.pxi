# The cold start: for each (m, sigma) the other three follow from linear least squares (De Marco & Martini 2009).


cdef double conditional(const Problem* p, double m, double sigma, Raw* best) noexcept nogil:
    """The least cost for this m and sigma, and its slice: p and c, the slopes of the wings, within 0 and 2, and a by them,
    such that the smallest total variance is not below 0."""
    cdef double mass = 0, ys = 0, rs = 0, ws = 0, yy = 0, yr = 0, rr = 0, yw = 0, rw = 0, ww = 0, y, r, weight, w
    cdef double aa, ab, bb, ra, rb, left = 1.0, right = 1.0, cost
    cdef Py_ssize_t i
    for i in range(p.count):
        y = p.k[i] - m
        r = sqrt(y * y + sigma * sigma)
        weight = p.root[i] * p.root[i]
        w = p.w[i]
        mass += weight
        ys += weight * y
        rs += weight * r
        ws += weight * w
        yy += weight * y * y
        yr += weight * y * r
        rr += weight * r * r
        yw += weight * y * w
        rw += weight * r * w
        ww += weight * w * w
    # in p and c, the multipliers of (r - y) / 2 and (r + y) / 2, about the means
    yy, yr, rr = yy - ys * ys / mass, yr - ys * rs / mass, rr - rs * rs / mass
    yw, rw = yw - ys * ws / mass, rw - rs * ws / mass
    aa, ab, bb = 0.25 * (rr - 2 * yr + yy), 0.25 * (rr - yy), 0.25 * (rr + 2 * yr + yy)
    ra, rb = 0.5 * (rw - yw), 0.5 * (rw + yw)
    boxed(aa, ab, bb, ra, rb, &left, &right)
    best.m, best.sigma = m, sigma
    best.a = (ws - 0.5 * left * (rs - ys) - 0.5 * right * (rs + ys)) / mass
    cost = ww - ws * ws / mass + left * left * aa + 2 * left * right * ab + right * right * bb - 2 * (left * ra + right * rb)
    if best.a + sigma * sqrt(left * right) < p.low[LOWEST]:  # a by the smallest total variance instead, and that many more
        best.a = p.low[LOWEST] - sigma * sqrt(left * right)
        w = best.a + 0.5 * left * (rs - ys) / mass + 0.5 * right * (rs + ys) / mass - ws / mass
        cost += w * w * mass
    best.b = 0.5 * (left + right)
    best.rho = (right - left) / (left + right)
    return cost


cdef inline double inside(double x) noexcept nogil:
    return max(SMALLEST_ROOT * SMALLEST_ROOT, min(STEEPEST, x))


cdef void boxed(double aa, double ab, double bb, double ra, double rb, double* left, double* right) noexcept nogil:
    """The p and c within 0 and 2 that minimise aa p^2 + 2 ab p c + bb c^2 - 2 (ra p + rb c)."""
    cdef double determinant = aa * bb - ab * ab, p, c, cost, least = INFINITY
    cdef int edge
    if determinant > 1e-14 * aa * bb:
        p, c = (ra * bb - rb * ab) / determinant, (rb * aa - ra * ab) / determinant
        if inside(p) == p and inside(c) == c:
            left[0], right[0] = p, c
            return
    for edge in range(4):
        if edge < 2:
            p = inside(2.0 * edge)
            c = inside((rb - ab * p) / bb)
        else:
            c = inside(2.0 * (edge - 2))
            p = inside((ra - ab * c) / aa)
        cost = aa * p * p + 2 * ab * p * c + bb * c * c - 2 * (ra * p + rb * c)
        if cost < least:
            least = cost
            left[0], right[0] = p, c


cdef void search(const Problem* p, Raw* best, int* passes) noexcept nogil:
    """A grid over m and sigma, then steps to the better neighbour, halved where there is none."""
    cdef double first = p.k[0], last = p.k[0], width, m, sigma, cost, least = INFINITY, across, by
    cdef Raw found_
    cdef int i, j, direction
    cdef bint better
    cdef Py_ssize_t each
    for each in range(p.count):
        first, last = min(first, p.k[each]), max(last, p.k[each])
    width = last - first
    for i in range(GRID_CENTRES):
        m = first + width * i / (GRID_CENTRES - 1)
        sigma = 0.02 * width
        for j in range(GRID_CURVES):
            cost = conditional(p, m, sigma, &found_)
            if cost < least:
                least = cost
                best[0] = found_
            sigma *= 2.0
    passes[0] += GRID_CENTRES * GRID_CURVES
    across, by = 0.5 * width / (GRID_CENTRES - 1), 1.5
    i = 0
    while i < SEARCH and across > 1e-3 * width:
        better = False
        for direction in range(4):
            m, sigma = best.m, best.sigma
            if direction == 0:
                m += across
            elif direction == 1:
                m -= across
            elif direction == 2:
                sigma = min(p.high[CURVE], sigma * by)
            else:
                sigma = max(p.low[CURVE], sigma / by)
            cost = conditional(p, m, sigma, &found_)
            i += 1
            if cost < least:
                least = cost
                best[0] = found_
                better = True
                break
        if not better:
            across, by = 0.5 * across, sqrt(by)
    passes[0] += i
