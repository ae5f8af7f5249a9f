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


# All of it


cdef void bound(Problem* p) noexcept nogil:
    """Where x may be: by the strikes' range and the largest total variance."""
    cdef double first = p.k[0], last = p.k[0], highest = 0.0, width
    cdef Py_ssize_t i
    for i in range(p.count):
        first, last = min(first, p.k[i]), max(last, p.k[i])
        highest = max(highest, p.w[i])
        if p.floor is not NULL:
            highest = max(highest, variance(p.floor, p.k[i]))
    width = last - first
    p.low[LOWEST], p.high[LOWEST] = 1e-6 * p.scale, 2.0 * highest
    p.low[LEFT], p.high[LEFT] = SMALLEST_ROOT, sqrt(STEEPEST)
    p.low[RIGHT], p.high[RIGHT] = SMALLEST_ROOT, sqrt(STEEPEST)
    p.low[CENTRE], p.high[CENTRE] = first - width, last + width
    p.low[CURVE], p.high[CURVE] = 1e-3 * width, 10.0 * width


cdef bint free_of_arbitrage(const Problem* p, const Raw* s, double low, double high, WorstOf* g, WorstOf* gap) noexcept nogil:
    butterfly_of(s, low, high, g)
    if p.floor is not NULL:
        calendar_of(p.floor, s, low, high, gap)
    return g.value >= 0 and (p.floor is NULL or gap.value >= 0)


cdef void lift(const Problem* p, Raw* s, Range where) noexcept nogil:
    """Raise a by the least that frees the slice of arbitrage: far enough up, it is free of both."""
    cdef double below = 0.0, above = 1e-6 * p.scale, middle, from_ = s.a
    cdef WorstOf g, gap
    cdef int i
    for i in range(60):
        g, gap = nothing(NULL, 0), nothing(NULL, 0)
        s.a = from_ + above
        if free_of_arbitrage(p, s, where.low, where.high, &g, &gap):
            break
        below, above = above, 2.0 * above
    for i in range(20):
        middle = 0.5 * (below + above)
        g, gap = nothing(NULL, 0), nothing(NULL, 0)
        s.a = from_ + middle
        if free_of_arbitrage(p, s, where.low, where.high, &g, &gap):
            above = middle
        else:
            below = middle
    s.a = from_ + above


cdef double distance(const Problem* p, const Raw* s) noexcept nogil:
    """Weighted mean of the squared residuals, relative to the scale."""
    cdef double sum_ = 0.0, residual
    cdef Py_ssize_t i
    for i in range(p.count):
        residual = p.root[i] * (variance(s, p.k[i]) - p.w[i])
        sum_ += residual * residual
    return sum_


cdef void tighten(Problem* p, const Raw* s) noexcept nogil:
    """Penalties start as large as the cost of the fit, or a thousandth of the total variance, and are then made firmer:
    had they begun firm, the fit would leave the quotes for whatever slice is nearest and flat."""
    cdef double cost = 1e-6 + distance(p, s), short_g = 0.0, short_w = 0.0, each
    cdef int i
    for i in range(p.butterflies):
        each = p.margin - durrleman(s, p.g_nodes[i])
        short_g += each * each if each > 0 else 0.0
    for i in range(p.calendars):
        each = (p.gap + variance(p.floor, p.w_nodes[i]) - variance(s, p.w_nodes[i])) / p.scale
        short_w += each * each if each > 0 else 0.0
    if short_g > 0:
        p.firmness = 4.0 * p.firmness if p.firmness > 0 else min(0.1, sqrt(cost / short_g))
    if short_w > 0:
        p.hold = 4.0 * p.hold if p.hold > 0 else min(0.1, sqrt(cost / short_w))


cdef int settle(Problem* p, double* x, int code, Range where, int most, Raw* s, int* passes) noexcept nogil:
    """From x, where a descent ended with ``code``, to a slice free of arbitrage: it is checked, penalties are put where it
    is worst, and the descent goes on, more firmly each time. How the last one ended, or ARBITRAGE if some is left."""
    cdef int round_
    cdef WorstOf g = nothing(p.g_nodes, 0.5 * p.margin), gap = nothing(p.w_nodes, 0.5 * p.gap)
    g.count, gap.count = p.butterflies, p.calendars
    for round_ in range(ROUNDS):
        s[0] = raw_of(x)
        g.value = gap.value = INFINITY
        if free_of_arbitrage(p, s, where.low, where.high, &g, &gap):
            return code
        p.butterflies, p.calendars = min(g.count, NODES), min(gap.count, NODES)
        tighten(p, s)
        code = descend(p, x, most, passes)
    return ARBITRAGE


cdef int settle_from(Problem* p, const Raw* start, Range where, int most, Raw* s, int* passes) noexcept nogil:
    """The same from a slice that is free of arbitrage, or nearly so: what it nearly touches is held from the beginning."""
    cdef double x[5]
    cdef int code
    cdef WorstOf g = nothing(p.g_nodes, 10.0 * p.margin), gap = nothing(p.w_nodes, 10.0 * p.gap)
    point_of(p, start, x)
    s[0] = raw_of(x)
    free_of_arbitrage(p, s, where.low, where.high, &g, &gap)
    p.butterflies, p.calendars = min(g.count, NODES), min(gap.count, NODES)
    p.firmness, p.hold = FIRM if g.count else 0.0, FIRM if gap.count else 0.0
    code = descend(p, x, most, passes)
    return settle(p, x, code, where, most, s, passes)


cdef void better(Problem* p, const Raw* start, Range where, int most, Raw* s, int* code, int* passes) noexcept nogil:
    """Another try, taken if it is nearer to the quotes."""
    cdef Raw other
    cdef int ended = settle_from(p, start, where, most, &other, passes)
    if ended != ARBITRAGE and (code[0] == ARBITRAGE or distance(p, &other) < distance(p, s)):
        s[0], code[0] = other, ended


cdef int fit_slice(
    Problem* p, const Raw* start, bint arbitrage_free, Range where, int most, Raw* s, int* passes
) noexcept nogil:
    """From the slice ``start``, or by the search if it is NULL."""
    cdef double x[5]
    cdef Raw plain, raised
    cdef int code
    bound(p)
    p.firmness, p.hold, p.margin, p.gap = 0.0, 0.0, 1e-4, 1e-5 * p.scale
    p.butterflies = p.calendars = 0
    if start is not NULL and arbitrage_free:
        code = settle_from(p, start, where, most, s, passes)
        if code == ARBITRAGE:
            lift(p, s, where)
            code = RAISED
        return code
    if start is NULL:
        search(p, s, passes)
        point_of(p, s, x)
    else:
        point_of(p, start, x)
    code = descend(p, x, most, passes)
    s[0] = plain = raw_of(x)
    if not arbitrage_free:
        return code
    code = settle(p, x, code, where, most, s, passes)
    if code == ARBITRAGE or distance(p, s) > 2.0 * distance(p, &plain) + 2e-3:
        # it may have left the quotes on the way: from slices that are free of arbitrage already, the way is another
        raised = plain
        lift(p, &raised, where)
        better(p, &raised, where, most, s, &code, passes)
        if p.floor is not NULL:
            better(p, p.floor, where, most, s, &code, passes)
        if code == ARBITRAGE:
            s[0], code = raised, RAISED
    return code
