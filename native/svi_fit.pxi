# A whole fit: where from, within which bounds, and free of arbitrage if that is asked for.

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
