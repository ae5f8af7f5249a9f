/* Value and greeks of the options near the money, most of any chain: a + t < NEAR; notation as in black_math.h.
 *
 * With y = a - t and z = a + t the value out of the money is min(F, K) n(y) (R(y) - R(z)). For the difference of two
 * rational functions R = P/Q that nearly cancel, nothing need cancel: with the divided difference of a polynomial,
 * P[y, z] = (P(z) - P(y)) / (z - y), which Horner's scheme gives beside P(y) (each step once more with z), it is
 * (z - y) (P(y) Q[y, z] - P[y, z] Q(y)) / (Q(y) Q(z)), where the second product is at most 0.83 of the first and
 * z - y = 2 t is known. So one form serves from no total volatility at all up to t = NEAR_SUM_FROM; from there on,
 * where a < t, the value is min(F, K) (1 - n(y) (R(-y) + R(z))).
 *
 * R is fitted on -NEAR_SHIFT <= y <= NEAR as a rational function of y + NEAR_SHIFT at Chebyshev points (relative error
 * 6e-17, of its slope 3e-16, with the coefficients rounded as they stand here); all are positive. The exponent y*y/2
 * stays below 12.5, so plain double precision carries it. Lanes further out, and senseless ones, are told in ``far``.
 */
#ifndef NATIVE_BLACK_NEAR_H
#define NATIVE_BLACK_NEAR_H

#include "black_stage.h"

#define NEAR 5.0
#define NEAR_SHIFT 0.25
#define NEAR_SUM_FROM 0.25 /* the least y asked for is -NEAR_SHIFT */

/* A cache line more than a block: rows 2048 bytes apart would all share two sets of a 32 KiB cache. */
#define NEAR_ROW (BLOCK + 8)

typedef struct {
    double x[NEAR_ROW] ALIGNED, a[NEAR_ROW] ALIGNED, t[NEAR_ROW] ALIGNED, inverse_s[NEAR_ROW] ALIGNED, root[NEAR_ROW] ALIGNED;
    double weight[NEAR_ROW] ALIGNED; /* min(F, K) n(y) = F n(d1) */
    double tail[NEAR_ROW] ALIGNED; /* R of d1 or of -d1: N(-d1) or N(d1), over n(d1) */
    uint64_t far[NEAR_ROW] ALIGNED; /* not served here */
    uint64_t any_far;
} near_lanes;

/* Highest bit set unless 2^-range < y < 2^range: positive doubles are ordered as their bits are. */
LANE uint64_t near_outside(double y, uint64_t range)
{
    const uint64_t bits = lane_bits(y);
    return (bits - ((1023u - range) << 52)) | (((1023u + range) << 52) - bits);
}

/* ln(f/k) for normal f, k > 0: k and f over a power of two lie within a factor 3/2, so that their difference is exact
 * and nothing cancels near f = k. ``by``: what else will be divided by, for one division less; *inverse_by = 1/by. */
LANE double near_log_ratio(double f, double k, double by, double *inverse_by)
{
    const uint64_t half = (uint64_t)1 << 51, bias = (uint64_t)2048 << 52;
    const uint64_t apart = (lane_bits(f) - lane_bits(k) + (half + bias)) >> 52; /* between their exponents, + 2048 */
    const double n = lane_double(apart | 0x4330000000000000u) - (LANE_INTEGER + 2048.0);
    const double m = lane_double(lane_bits(f) - (apart << 52) + bias);
    const double gain = m - k, sum = m + k, both = 1.0 / (sum * by), u = gain * (by * both), w = u * u;
    const double w2 = w * w; /* 2 artanh(u) = 2 u + u w p(w); relative error 6e-17 for |u| <= 1/5 */
    const double low = LANE_FMA(LANE_FMA(0.2222218236947741, w, 0.2857142883944641), w2,
                                LANE_FMA(0.39999999999325336, w, 0.6666666666666694));
    const double high = LANE_FMA(0.15123295208614101, w2, LANE_FMA(0.15283173320297727, w, 0.18184632005423831));
    const double p = LANE_FMA(w2 * w2, high, low);
    *inverse_by = sum * both;
    return LANE_FMA(n, 0.6931471805599453, LANE_FMA(u * w, p, 2.0 * u));
}

/* exp(-e) for 0 <= e < 700. */
LANE double near_exp_minus(double e)
{
    const double shifted = LANE_FMA(e, -1.4426950408889634, LANE_ROUND), n = shifted - LANE_ROUND;
    const double r = LANE_FMA(n, -LANE_LN2_HIGH, -e) - n * LANE_LN2_LOW;
    return lane_exp_rest(r) * lane_double((lane_bits(shifted) + 1023u) << 52);
}

/* P(y) and Q(y) with R = P/Q, and their divided differences for y and z; y and z are NEAR_SHIFT larger than R's. */
#define NEAR_STEP(value, slope, c)          \
    slope = LANE_FMA(slope, z, value);      \
    value = LANE_FMA(value, y, c);
LANE void near_mills(double y, double z, double *top, double *bottom, double *top_slope, double *bottom_slope)
{
    double p = LANE_FMA(1.2833668091412805e-06, y, 4.136737321646606e-05), slope_p = 1.2833668091412805e-06;
    NEAR_STEP(p, slope_p, 0.0006339795356796634)
    NEAR_STEP(p, slope_p, 0.0060391818227482)
    NEAR_STEP(p, slope_p, 0.039353462617150045)
    NEAR_STEP(p, slope_p, 0.18216755123522474)
    NEAR_STEP(p, slope_p, 0.6017548112395262)
    NEAR_STEP(p, slope_p, 1.38157505640221)
    NEAR_STEP(p, slope_p, 2.036724203557542)
    NEAR_STEP(p, slope_p, 1.548372621547658)
    double q = LANE_FMA(1.2833669842088946e-06, y, 4.104651906976436e-05), slope_q = 1.2833669842088946e-06;
    NEAR_STEP(q, slope_q, 0.0006249214930575273)
    NEAR_STEP(q, slope_q, 0.005922365262469037)
    NEAR_STEP(q, slope_q, 0.038485667709827774)
    NEAR_STEP(q, slope_q, 0.17844263775906846)
    NEAR_STEP(q, slope_q, 0.5958213794515667)
    NEAR_STEP(q, slope_q, 1.4106954484228968)
    NEAR_STEP(q, slope_q, 2.2612079558851295)
    NEAR_STEP(q, slope_q, 2.211236049577148)
    NEAR_STEP(q, slope_q, 1.0)
    *top = p;
    *bottom = q;
    *top_slope = slope_p;
    *bottom_slope = slope_q;
}

/* ``rooted``: the expiry is one for all, and ``lanes->root`` has its root already. */
LANE void near_prepare(int n, int rooted, const stage_inputs *in, near_lanes *lanes)
{
    uint64_t any_far = 0;
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict expiry = in->expiry;
    const double *restrict volatility = in->fourth, *restrict discount = in->discount;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], k = strike[i], vol = volatility[i];
        const double root = rooted ? lanes->root[i] : sqrt(expiry[i]), s = vol * root, t = 0.5 * s;
        const uint64_t odd = near_outside(f, 500) | near_outside(k, 500) | near_outside(expiry[i], 230)
                             | near_outside(vol, 230) | near_outside(discount[i], 500);
        double inverse_s;
        const double x = near_log_ratio(f, k, s, &inverse_s), size = fabs(x), rough = size * inverse_s;
        const double a = LANE_FMA(-lane_residual(rough, s, size), inverse_s, rough), y = a - t;
        const uint64_t far = (odd | ~lane_bits(a + t - NEAR)) >> 63;
        if (!rooted)
            lanes->root[i] = root;
        lanes->x[i] = x;
        lanes->a[i] = a;
        lanes->t[i] = t;
        lanes->inverse_s[i] = inverse_s;
        lanes->far[i] = far;
        lanes->weight[i] = (f < k ? f : k) * (BLACK_INV_SQRT_2PI * near_exp_minus(0.5 * y * y));
        any_far |= far;
    }
    lanes->any_far = any_far;
}

/* Discounted values; the tails for the greeks if asked for. */
LANE void near_price(int n, const stage_inputs *in, near_lanes *lanes, int tails, double *restrict price)
{
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict call = in->call;
    const double *restrict discount = in->discount;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], k = strike[i], a = lanes->a[i], t = lanes->t[i];
        const int sum = (a < t) & (t >= NEAR_SUM_FROM);
        const double y = sum ? t - a : a - t, apart = 2.0 * (sum ? a : t);
        double top, bottom, top_slope, bottom_slope;
        near_mills(y + NEAR_SHIFT, a + t + NEAR_SHIFT, &top, &bottom, &top_slope, &bottom_slope);
        const double top_z = LANE_FMA(apart, top_slope, top), bottom_z = LANE_FMA(apart, bottom_slope, bottom);
        const double inverse = 1.0 / (bottom * bottom_z);
        const double added = -LANE_FMA(top, bottom_z, top_z * bottom);
        const double parted = apart * LANE_FMA(top, bottom_slope, -(top_slope * bottom));
        const double smaller = f < k ? f : k, gain = call[i] != 0.0 ? f - k : k - f;
        const double time_value = LANE_FMA(lanes->weight[i] * inverse, sum ? added : parted, sum ? smaller : 0.0);
        price[i] = discount[i] * ((gain > 0.0 ? gain : 0.0) + time_value);
        if (tails)
            lanes->tail[i] = inverse * (lanes->x[i] < 0.0 ? top * bottom_z : top_z * bottom);
    }
}

/* The five greeks after the price. */
LANE void near_greeks(int n, const stage_inputs *in, const near_lanes *lanes, const double *restrict rate,
                      double *const *out)
{
    const double *restrict forward = in->forward, *restrict expiry = in->expiry, *restrict volatility = in->fourth;
    const double *restrict discount = in->discount, *restrict call = in->call, *restrict price = out[0];
    double *restrict delta = out[1], *restrict gamma = out[2], *restrict vega = out[3], *restrict theta = out[4];
    double *restrict rho = out[5];
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], years = expiry[i], t = lanes->t[i], d = discount[i], p = price[i];
        const double inverse = 1.0 / (f * years), density = lanes->weight[i] * (years * inverse);
        const double tail = density * lanes->tail[i], sensitivity = d * lanes->weight[i] * lanes->root[i];
        const double sum = (lanes->a[i] < t) & (t >= NEAR_SUM_FROM) ? 1.0 : 0.0;
        const double below = lanes->x[i] < 0.0 ? 1.0 - sum : 0.0; /* tail is of N(d1), else of N(-d1) */
        const double above = below == call[i] ? tail : 1.0 - tail;
        delta[i] = (call[i] != 0.0 ? d : -d) * above;
        gamma[i] = d * density * (lanes->inverse_s[i] * (years * inverse));
        vega[i] = sensitivity;
        theta[i] = (rate[i] * p - 0.5 * sensitivity * volatility[i]) * (f * inverse);
        rho[i] = -years * p;
    }
}

/* The two or four after those; they overwrite nothing that they need. */
LANE void near_greeks2(int n, const stage_inputs *in, const near_lanes *lanes, const double *restrict rate, int fields,
                       double *const *out)
{
    const double *restrict forward = in->forward, *restrict expiry = in->expiry, *restrict discount = in->discount;
    const double *restrict delta = out[1], *restrict gamma = out[2], *restrict vega = out[3];
    double *restrict vanna = out[6], *restrict volga = out[7], *restrict charm = out[8], *restrict speed = out[9];
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], years = expiry[i], a = lanes->a[i], t = lanes->t[i], x = lanes->x[i];
        const double inverse = 1.0 / (f * years), inverse_vol = lanes->inverse_s[i] * lanes->root[i];
        const double d1 = x < 0.0 ? t - a : a + t, d2 = x < 0.0 ? -(a + t) : a - t;
        const double slope = discount[i] * lanes->weight[i] * (years * inverse) * d2;
        vanna[i] = -slope * inverse_vol;
        volga[i] = vega[i] * (d1 * d2) * inverse_vol;
        if (fields > 8) {
            charm[i] = (rate[i] * delta[i] + 0.5 * slope) * (f * inverse);
            speed[i] = -(gamma[i] * (years * inverse)) * LANE_FMA(d1, lanes->inverse_s[i], 1.0);
        }
    }
}

#endif
