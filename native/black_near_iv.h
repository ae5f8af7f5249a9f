/* Implied volatility of the options near the money; the equation as in black_iv.h, the domain as in black_near.h.
 *
 * The first guess inverts the normal (Bachelier) value and corrects for its largest missing term (black_stage_iv.h).
 * One step of Householder's third order from there with R and logarithm to 1e-6 leaves an error below 1e-5 where
 * options trade, the next one, in full precision, none: its logarithm is of a number close to 1, taken as the ratio of
 * value and price less 1, so that neither needs a logarithm. A lane that has not come to rest with that, or left the
 * domain, is told in ``far`` like those that never were in it.
 */
#ifndef NATIVE_BLACK_NEAR_IV_H
#define NATIVE_BLACK_NEAR_IV_H

#include "black_iv.h"
#include "black_near.h"

#define NEAR_IV_LAST_STEP 2e-5 /* relative: the next one would be below rounding */

typedef struct {
    double x[NEAR_ROW] ALIGNED, scale[NEAR_ROW] ALIGNED, s[NEAR_ROW] ALIGNED;
    uint64_t far[NEAR_ROW] ALIGNED;
    uint64_t any_far;
} near_iv_lanes;

/* ln(y) for normal y > 0 to 2e-6 of itself, also near y = 1. */
LANE double near_rough_log(double y)
{
    const uint64_t apart = (lane_bits(y) + ((uint64_t)1 << 51)) >> 52;
    const double n = lane_double(apart | 0x4330000000000000u) - (LANE_INTEGER + 1023.0);
    const double u = lane_double(lane_bits(y) - (apart << 52) + 0x3ff0000000000000u) - 1.0;
    double p = 0.08125891878065779;
    p = LANE_FMA(p, u, -0.166785072415017);
    p = LANE_FMA(p, u, 0.20667849246689518);
    p = LANE_FMA(p, u, -0.25073240343732206);
    p = LANE_FMA(p, u, 0.333155382243087);
    p = LANE_FMA(p, u, -0.49998423548708115);
    p = LANE_FMA(p, u, 1.0000007948468455);
    return LANE_FMA(n, 0.6931471805599453, u * p);
}

/* As near_mills, to 4e-9 (and 2e-7 of the slope). */
LANE void near_rough_mills(double y, double z, double *top, double *bottom, double *top_slope, double *bottom_slope)
{
    double p = LANE_FMA(0.009235347359302542, y, 0.0981841652386218), slope_p = 0.009235347359302542;
    NEAR_STEP(p, slope_p, 0.4706440935115154)
    NEAR_STEP(p, slope_p, 1.1896688524970984)
    NEAR_STEP(p, slope_p, 1.5483726216992408)
    double q = LANE_FMA(0.00923289939805436, y, 0.09595295313453767), slope_q = 0.00923289939805436;
    NEAR_STEP(q, slope_q, 0.4541939177537366)
    NEAR_STEP(q, slope_q, 1.1828132247133374)
    NEAR_STEP(q, slope_q, 1.6641743673096796)
    NEAR_STEP(q, slope_q, 1.0)
    *top = p;
    *bottom = q;
    *top_slope = slope_p;
    *bottom_slope = slope_q;
}

/* Householder's step from s = 1/inverse_s for ln z = ..., of which ``f`` is left over; g is the inverse of its slope. */
LANE double near_householder(double f, double g, double a, double t, double inverse_s)
{
    const double a2 = a * a, t2 = t * t, newton = -f * g;
    const double second = (a2 - t2) * inverse_s * newton, curve = second + f;
    const double third = second * second - LANE_FMA(3.0, a2, t2) * (inverse_s * newton) * (inverse_s * newton);
    const double twist = third + f * LANE_FMA(2.0, f, 3.0 * second);
    const double above = LANE_FMA(0.5, curve, 1.0), below = LANE_FMA(1.0 / 6.0, twist, 1.0 + curve);
    return newton * (above / below);
}

LANE void near_iv_guess(int n, const stage_inputs *in, near_iv_lanes *lanes)
{
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict expiry = in->expiry;
    const double *restrict price = in->fourth, *restrict discount = in->discount, *restrict call = in->call;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], k = strike[i], d = discount[i], smaller = f < k ? f : k;
        const double time_value = stage_time_value(f, k, d, price[i], call[i]);
        double inverse;
        const double size = fabs(near_log_ratio(f, k, time_value, &inverse));
        const double relative = d * inverse, normal = relative * sqrt(f * k); /* 1/z */
        const uint64_t odd = near_outside(f, 500) | near_outside(k, 500) | near_outside(expiry[i], 230)
                             | near_outside(d, 500) | near_outside(time_value, 900) | near_outside(normal, 300);
        const double q = near_rough_log(LANE_FMA(0.5 * size, normal, 1.0));
        const double top = LANE_FMA(LANE_FMA(LANE_FMA(0.0002838636223504132, q, 0.009559732804817608), q,
                                             0.39117433725196155), q, 0.7978771645679148);
        const double bottom = LANE_FMA(LANE_FMA(LANE_FMA(0.0019297852528281038, q, 0.045572633724735745), q,
                                                0.9869167852561265), q, 1.0);
        const double wide = size * bottom / (q * top), s = q > 1e-8 ? wide : BLACK_SQRT_2PI / normal;
        const double s2 = s * s, a = LANE_FMA(2.0, size, 1.12 * s);
        lanes->s[i] = LANE_FMA(0.25 * s * s2, s2 / LANE_FMA(a, size, 6.0 * s2), s);
        lanes->x[i] = size;
        lanes->scale[i] = relative * (smaller * BLACK_INV_SQRT_2PI);
        lanes->far[i] = odd >> 63;
    }
}

/* The two steps. */
LANE void near_iv_solve(int n, near_iv_lanes *lanes)
{
    uint64_t any_far = 0;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double s = lanes->s[i], inverse_s = 1.0 / s, a = lanes->x[i] * inverse_s, t = 0.5 * s, y = a - t;
        double top, bottom, top_slope, bottom_slope;
        near_rough_mills(y + NEAR_SHIFT, a + t + NEAR_SHIFT, &top, &bottom, &top_slope, &bottom_slope);
        const double parted = s * LANE_FMA(top, bottom_slope, -(top_slope * bottom));
        const double g = parted / (bottom * LANE_FMA(s, bottom_slope, bottom));
        const double left = LANE_FMA(-0.5 * y, y, near_rough_log(lanes->scale[i] * g));
        const double step = near_householder(left, g, a, t, inverse_s);
        const uint64_t outside = lane_bits(y + NEAR_SHIFT) | ~lane_bits(a + t - NEAR);
        lanes->s[i] = s + step;
        lanes->far[i] |= (outside | lane_bits(s + 2.0 * step) | lane_bits(s - step)) >> 63;
    }
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double s = lanes->s[i], inverse_s = 1.0 / s, a = lanes->x[i] * inverse_s, t = 0.5 * s, y = a - t;
        double top, bottom, top_slope, bottom_slope;
        near_mills(y + NEAR_SHIFT, a + t + NEAR_SHIFT, &top, &bottom, &top_slope, &bottom_slope);
        const double parted = s * LANE_FMA(top, bottom_slope, -(top_slope * bottom));
        const double g = parted / (bottom * LANE_FMA(s, bottom_slope, bottom));
        const double over = LANE_FMA(lanes->scale[i] * g, near_exp_minus(0.5 * y * y), -1.0);
        const double left = over * LANE_FMA(over, LANE_FMA(over, 1.0 / 3.0, -0.5), 1.0);
        const double step = near_householder(left, g, a, t, inverse_s);
        const uint64_t outside = lane_bits(y + NEAR_SHIFT) | ~lane_bits(a + t - NEAR);
        const uint64_t far = lanes->far[i] | ((outside | ~lane_bits(fabs(step) - NEAR_IV_LAST_STEP * s)
                                               | ~lane_bits(fabs(over) - 1e-3)) >> 63);
        lanes->s[i] = s + step;
        lanes->far[i] = far;
        any_far |= far;
    }
    lanes->any_far = any_far;
}

LANE void near_iv_finish(int n, const stage_inputs *in, const near_iv_lanes *lanes, double *restrict vol)
{
    const double *restrict expiry = in->expiry;
    STAGE_LOOP
    for (int i = 0; i < n; i++)
        vol[i] = lanes->s[i] / sqrt(expiry[i]);
}

#endif
