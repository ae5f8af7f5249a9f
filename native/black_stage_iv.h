/* Implied volatility of a block of options, stage by stage; the equation and its sources as in black_iv.h.
 *
 * Lanes solve ln(z) for the normalised time value, or, where s > 0.5 and a < t at the solution, ln of its complement
 * ("high"): so the first form needs Mills' ratio only where it is a series or its arguments are not negative, the
 * second nowhere else. The border between them is known only to 1e-2, and the fit of Mills' ratio reaches a little
 * below 0. First guesses: the normal (Bachelier) value inverted, then corrected for its largest term that is missing,
 * s = s0 (1 + t^2 (m(1)/2 - m(3))); the complement N(-d) (1 + R(e)/R(d)), with d = t - a and e = t + a =
 * sqrt(d*d + 2 |x|), inverted by the form 26.2.23 of Abramowitz and Stegun in two rounds. Both are within 2 % where
 * options trade: two Householder steps do. Lanes that need more are gathered and go on alone; what still moves after
 * that, or is not served here, is reported, and done one by one by the caller.
 */
#ifndef NATIVE_BLACK_STAGE_IV_H
#define NATIVE_BLACK_STAGE_IV_H

#include "black_iv.h"
#include "black_stage.h"

#define IV_MOST_STEPS 6
#define IV_LOWEST -0.3 /* Mills' ratio is not asked for further down: only a step that went too far would */

typedef struct {
    double x[BLOCK] ALIGNED, scale[BLOCK] ALIGNED, s[BLOCK] ALIGNED, g[BLOCK] ALIGNED;
    double part[BLOCK] ALIGNED, largest[BLOCK] ALIGNED, high[BLOCK] ALIGNED; /* high: 1 or 0 */
    uint64_t odd_one[BLOCK] ALIGNED, more[BLOCK] ALIGNED;
    uint64_t any_odd, any_more, any_high, any_series, any_direct;
} iv_lanes;

/* Mills' ratio to 1 %, for guesses. */
LANE double iv_rough_mills(double y)
{
    return LANE_FMA(0.46, y, 1.2533141) / LANE_FMA(LANE_FMA(0.46, y, 1.1649), y, 1.0);
}

/* d >= 0 with N(-d) = part, to 5e-4. */
LANE double iv_rough_quantile(double part)
{
    const double most = part < 0.52 ? part : 0.52, q = sqrt(-2.0 * lane_log(most));
    const double top = LANE_FMA(LANE_FMA(0.010328, q, 0.802853), q, 2.515517);
    const double bottom = LANE_FMA(LANE_FMA(LANE_FMA(0.001308, q, 0.189269), q, 1.432788), q, 1.0);
    const double d = q - top / bottom;
    return d > 0.0 ? d : 0.0;
}

LANE void iv_prepare(int n, const stage_inputs *in, iv_lanes *lanes)
{
    uint64_t any_odd = 0, any_high = 0;
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict expiry = in->expiry;
    const double *restrict price = in->fourth, *restrict discount = in->discount, *restrict call = in->call;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], k = strike[i], d = discount[i], p = price[i];
        const double mine = call[i] != 0.0 ? f : k, smaller = f < k ? f : k;
        const double time_value = stage_time_value(f, k, d, p, call[i]);
        double x, x_low, most, inverse;
        const double most_low = lane_product(d, mine, &most), complement = (most - p) + most_low;
        const double root = sqrt(f * k), largest = d * smaller;
        lane_log_ratio(f, k, d * root, &x, &x_low, &inverse);
        const double size = fabs(x), y = sqrt(2.0 * size);
        const double border = size < 0.125 ? 0.1954 - 0.376 * size : 0.498 - 0.39894 * iv_rough_mills(y);
        const double high = time_value > border * largest ? 1.0 : 0.0;
        const double z = (high != 0.0 ? complement : time_value) * inverse;
        const uint64_t odd = stage_odd(f, k, expiry[i], 1.0, d) | stage_outside(time_value, 1000)
                             | stage_outside(complement, 1000) | stage_outside(z, 900);
        lanes->x[i] = size;
        lanes->part[i] = z;
        lanes->scale[i] = BLACK_INV_SQRT_2PI / z;
        lanes->largest[i] = complement / largest;
        lanes->high[i] = high;
        lanes->odd_one[i] = odd;
        any_odd |= odd;
        any_high |= lane_bits(high);
    }
    lanes->any_odd = any_odd;
    lanes->any_high = any_high;
}

LANE void iv_guess(int n, iv_lanes *lanes)
{
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double x = lanes->x[i], z = lanes->part[i], half = 0.5 * x / z, sum = 1.0 + half;
        const double q = lane_log(sum) + (half - (sum - 1.0)) / sum;
        const double top = LANE_FMA(LANE_FMA(LANE_FMA(0.00096839201913, q, 0.0470880323), q, 0.236535944), q, 0.63653227);
        const double bottom = LANE_FMA(
            LANE_FMA(LANE_FMA(LANE_FMA(0.00048557650676, q, 0.0283044330), q, 0.261296633), q, 1.36216570), q, 1.0);
        const double wide = x * sqrt(bottom / top) / q, s = q > 1e-8 ? wide : BLACK_SQRT_2PI * z, a = x / s;
        lanes->s[i] = s + 0.25 * s * s * s / LANE_FMA(LANE_FMA(2.0, a, 1.12), a, 6.0);
    }
    uint64_t any_series = 0, any_direct = 0;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const uint64_t series = lane_bits(0.5 * lanes->s[i] + lanes->high[i] - MILLS_SERIES_BELOW) >> 63;
        lanes->g[i] = 0.0;
        lanes->more[i] = 1;
        any_series |= series;
        any_direct |= 1u ^ series;
    }
    lanes->any_series = any_series;
    lanes->any_direct = any_direct;
}

/* Better guesses for the lanes that are high. */
LANE void iv_guess_high(int n, iv_lanes *lanes)
{
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double x2 = 2.0 * lanes->x[i], part = lanes->largest[i];
        const double first = iv_rough_quantile(part / (1.0 + 1.0 / (1.0 + 0.5 * sqrt(x2))));
        const double e = sqrt(LANE_FMA(first, first, x2));
        const double d = iv_rough_quantile(part / (1.0 + iv_rough_mills(e) / iv_rough_mills(first)));
        const double high = d + sqrt(LANE_FMA(d, d, x2)), low = lanes->s[i];
        lanes->s[i] = lanes->high[i] != 0.0 ? high : low;
    }
}

/* One step of Householder's third order in the lanes that need it. */
LANE void iv_step(int n, iv_lanes *lanes)
{
    uint64_t any_more = 0, any_series = 0, any_direct = 0;
    if (lanes->any_series)
        STAGE_LOOP
        for (int i = 0; i < n; i++) {
            double even, odd;
            lane_mills_series(lanes->x[i] / lanes->s[i], 0.5 * lanes->s[i], &even, &odd);
            lanes->g[i] = 2.0 * odd;
        }
    if (lanes->any_direct)
        STAGE_LOOP
        for (int i = 0; i < n; i++) {
            const double a = lanes->x[i] / lanes->s[i], t = 0.5 * lanes->s[i], high = lanes->high[i];
            const double distance = high != 0.0 ? t - a : a - t, y = distance > IV_LOWEST ? distance : IV_LOWEST;
            const double old = lanes->g[i];
            double near, far;
            lane_mills(y, a + t, &near, &far);
            const double direct = (high != 0.0 ? -near : near) - far;
            lanes->g[i] = t + high < MILLS_SERIES_BELOW ? old : direct;
        }
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double s = lanes->s[i], g = lanes->g[i], inverse = 1.0 / (s * g), slope = s * inverse;
        const double over = g * inverse, a = lanes->x[i] / s, t = 0.5 * s, a2 = a * a, t2 = t * t;
        const double value = lane_log(fabs(g) * lanes->scale[i]) - 0.5 * (a2 + t2);
        const double second = (a2 - t2) * over, third = second * second - (3.0 * a2 + t2) * (over * over);
        const double curve = second - slope, twist = third + slope * (2.0 * slope - 3.0 * second);
        const double newton = -value * g, above = 1.0 + 0.5 * curve * newton;
        const double below = 1.0 + newton * (curve + twist * newton * (1.0 / 6.0));
        const double cubic = newton * above / below, smaller = above < below ? above : below;
        const double free = smaller > 0.0 ? cubic : newton, least = -0.7 * s, most = 3.0 * s + 0.5;
        const double raised = free > least ? free : least, step = raised < most ? raised : most;
        const double moved = s + step, next = lane_choose(lanes->more[i], moved, s);
        const uint64_t more = lanes->more[i] & ((lane_bits(BLACK_LAST_STEP * next - fabs(step)) >> 63) | stage_outside(next, 900));
        const uint64_t series = lane_bits(0.5 * next + lanes->high[i] - MILLS_SERIES_BELOW) >> 63;
        lanes->s[i] = next;
        lanes->more[i] = more;
        any_more |= more;
        any_series |= series;
        any_direct |= 1u ^ series;
    }
    lanes->any_more = any_more;
    lanes->any_series = any_series;
    lanes->any_direct = any_direct;
}

LANE void iv_solve(int n, iv_lanes *lanes)
{
    if (lanes->any_high)
        iv_guess_high(n, lanes);
    iv_step(n, lanes);
    iv_step(n, lanes);
}

/* The ``found`` lanes at ``place`` as a block of their own, filled up to whole vectors; returns its length. */
static int iv_gather(const iv_lanes *lanes, const int *place, int found, int vector, iv_lanes *few)
{
    const int n = (found + vector - 1) / vector * vector;
    few->any_high = 0;
    for (int i = 0; i < n; i++) {
        const int from = place[i < found ? i : found - 1];
        few->x[i] = lanes->x[from];
        few->scale[i] = lanes->scale[from];
        few->high[i] = lanes->high[from];
        few->largest[i] = lanes->largest[from];
        few->s[i] = lanes->s[from];
        few->g[i] = 0.0;
        few->more[i] = 1;
        few->any_high |= lane_bits(few->high[i]);
    }
    return n;
}

/* A block that needs series and direct values: each lane with its like, so that it pays for one of them alone. */
static __attribute__((noinline)) void iv_solve_apart(int m, int vector, iv_lanes *lanes)
{
    iv_lanes few;
    int place[2][BLOCK], found[2] = {0, 0};
    for (int i = 0; i < m; i++) {
        const int series = (int)(lane_bits(0.5 * lanes->s[i] + lanes->high[i] - MILLS_SERIES_BELOW) >> 63);
        place[0][found[0]] = place[1][found[1]] = i;
        found[series]++;
    }
    lanes->any_more = 0;
    for (int series = 0; series < 2; series++) {
        if (found[series] == 0)
            continue;
        few.any_series = (uint64_t)series;
        few.any_direct = (uint64_t)!series;
        iv_solve(iv_gather(lanes, place[series], found[series], vector, &few), &few);
        lanes->any_more |= few.any_more;
        for (int i = 0; i < found[series]; i++) {
            lanes->s[place[series][i]] = few.s[i];
            lanes->more[place[series][i]] = few.more[i];
        }
    }
}

/* The lanes that need further steps, out of the first ``m``, on their own. */
static __attribute__((noinline)) void iv_further(int m, int vector, iv_lanes *lanes)
{
    iv_lanes few;
    int place[BLOCK], found = 0;
    for (int i = 0; i < m; i++)
        if (lanes->more[i] & ~lanes->odd_one[i])
            place[found++] = i;
    if (found == 0)
        return;
    const int n = iv_gather(lanes, place, found, vector, &few);
    few.any_series = few.any_direct = few.any_more = 1;
    for (int steps = 0; few.any_more && steps < IV_MOST_STEPS; steps++)
        iv_step(n, &few);
    for (int i = 0; i < found; i++) {
        lanes->s[place[i]] = few.s[i];
        lanes->odd_one[place[i]] |= few.more[i] | (uint64_t)!(few.s[i] > 0.0);
        lanes->any_odd |= lanes->odd_one[place[i]];
    }
}

LANE void iv_finish(int n, const stage_inputs *in, const iv_lanes *lanes, double *restrict vol)
{
    const double *restrict expiry = in->expiry;
    STAGE_LOOP
    for (int i = 0; i < n; i++)
        vol[i] = lanes->s[i] / sqrt(expiry[i]);
}

#endif
