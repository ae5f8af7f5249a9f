/* Value and greeks of a block of options, stage by stage; notation and formulas as in black_math.h, black_greeks.h.
 *
 * Each stage is one loop without branches over at most BLOCK lanes, short enough that the processor works on several
 * lanes' chains at once. With v = vol^2 T: a = |x| s / v, t = s/2, d1^2 / 2 = (x^2/v + v/4 + x) / 2. That exponent
 * is carried in two doubles, since its absolute error is the relative error of everything after it. Lanes that the
 * formulas do not serve (limits, meaningless input, extreme magnitudes) are reported and done one by one by the caller.
 */
#ifndef NATIVE_BLACK_STAGE_H
#define NATIVE_BLACK_STAGE_H

#include "black_math.h"
#include "black_mills.h"

#define BLOCK 256
#if defined(__clang__)
#define STAGE_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define STAGE_LOOP _Pragma("GCC ivdep")
#endif
#define ALIGNED __attribute__((aligned(64)))
#define MOST_EXPONENT 1400.0 /* exp(-MOST_EXPONENT) times any forward served is 0 */

typedef struct {
    const double *restrict forward, *restrict strike, *restrict expiry, *restrict fourth, *restrict discount;
    const double *restrict call; /* 1 or 0 */
} stage_inputs;

typedef struct {
    double x[BLOCK] ALIGNED, s[BLOCK] ALIGNED, inverse_v[BLOCK] ALIGNED, root[BLOCK] ALIGNED;
    double a[BLOCK] ALIGNED, t[BLOCK] ALIGNED, exponent[BLOCK] ALIGNED, exponent_low[BLOCK] ALIGNED;
    double weight[BLOCK] ALIGNED, density[BLOCK] ALIGNED; /* F n(d1), n(d1) */
    double difference[BLOCK] ALIGNED; /* R(a - t) - R(a + t), or -R(t - a) - R(t + a) if that is not a series and a < t */
    double tail[BLOCK] ALIGNED; /* R of d1 or of -d1, as it stands in ``difference`` */
    uint64_t odd_one[BLOCK] ALIGNED; /* not served here */
    uint64_t any_odd, any_series, any_direct;
} stage_lanes;

/* 0 if 2^-range < y < 2^range, else 1, by the exponent: so that the narrowest instruction sets do it in vectors too. */
LANE uint64_t stage_outside(double y, uint64_t range)
{
    const uint64_t exponent = lane_bits(y) >> 52; /* with the sign above it: negative is too large */
    return ((exponent - (1023u - range)) | (1022u + range - exponent)) >> 63;
}

LANE uint64_t stage_odd(double f, double k, double expiry, double vol, double discount)
{
    return stage_outside(f, 500) | stage_outside(k, 500) | stage_outside(discount, 500) | stage_outside(expiry, 230)
           | stage_outside(vol, 230);
}

/* -ln(D), the rate times the time; of crypto options D is mostly 1. */
LANE void stage_rates(int n, const double *restrict discount, double *restrict rate)
{
    uint64_t other = 0;
    STAGE_LOOP
    for (int i = 0; i < n; i++)
        other |= lane_bits(discount[i]) ^ lane_bits(1.0);
    if (other == 0)
        for (int i = 0; i < n; i++)
            rate[i] = -0.0;
    else
        STAGE_LOOP
        for (int i = 0; i < n; i++)
            rate[i] = -lane_log(discount[i]);
}

/* A price less the discounted intrinsic value, each product and difference with its rounding error made good. */
LANE double stage_time_value(double f, double k, double d, double price, double call)
{
    const double mine = call != 0.0 ? f : k, other = call != 0.0 ? k : f;
    double gain, product;
    const double gain_low = lane_sum(mine, -other, &gain);
    const double low = lane_product(d, gain, &product) + d * gain_low;
    const double inside = (price - product) - low;
    return gain > 0.0 ? inside : price;
}

LANE void stage_prepare(int n, const stage_inputs *in, stage_lanes *lanes)
{
    uint64_t any_odd = 0, any_series = 0, any_direct = 0;
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict expiry = in->expiry;
    const double *restrict volatility = in->fourth, *restrict discount = in->discount;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double vol = volatility[i], years = expiry[i];
        const uint64_t odd = stage_odd(forward[i], strike[i], years, vol, discount[i]);
        double x, x_low, square, v, x2, residual, inverse;
        const double square_low = lane_product(vol, vol, &square);
        const double v_low = lane_product(square, years, &v) + square_low * years;
        lane_log_ratio(forward[i], strike[i], v, &x, &x_low, &inverse);
        const double root = sqrt(years), s = vol * root, t = 0.5 * s, a = fabs(x) * s * inverse;
        const double x2_low = lane_product(x, x, &x2) + 2.0 * x * x_low;
        const double q = x2 * inverse;
        residual = (x2_low - q * v_low) - lane_residual(q, v, x2);
        double sum, twice;
        const double low1 = lane_sum(q, 0.25 * v, &sum), low2 = lane_sum(sum, x, &twice);
        const double low = (low1 + low2) + (residual * inverse + (0.25 * v_low + x_low));
        const int far = twice > 2.0 * MOST_EXPONENT;
        const double capped = t < BLACK_FAR ? t : BLACK_FAR;
        lanes->x[i] = x;
        lanes->s[i] = s;
        lanes->root[i] = root;
        lanes->inverse_v[i] = inverse;
        lanes->a[i] = a < BLACK_FAR ? a : BLACK_FAR;
        lanes->t[i] = capped;
        lanes->exponent[i] = far ? MOST_EXPONENT : 0.5 * twice;
        lanes->exponent_low[i] = far ? 0.0 : 0.5 * low;
        lanes->odd_one[i] = odd;
        any_odd |= odd;
        const uint64_t series = lane_bits(capped - MILLS_SERIES_BELOW) >> 63;
        any_series |= series;
        any_direct |= 1u ^ series;
    }
    lanes->any_odd = any_odd;
    lanes->any_series = any_series;
    lanes->any_direct = any_direct;
}

LANE void stage_density(int n, const stage_inputs *in, stage_lanes *lanes)
{
    const double *restrict forward = in->forward;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        double scale1, scale2;
        const double p = BLACK_INV_SQRT_2PI
                         * lane_exp_minus(lanes->exponent[i], lanes->exponent_low[i], &scale1, &scale2);
        lanes->density[i] = p * scale1 * scale2;
        lanes->weight[i] = forward[i] * p * scale1 * scale2;
    }
}

LANE void stage_mills(int n, stage_lanes *lanes, int tails)
{
    if (lanes->any_series)
        STAGE_LOOP
        for (int i = 0; i < n; i++) {
            double even, odd;
            lane_mills_series(lanes->a[i], lanes->t[i], &even, &odd);
            lanes->difference[i] = 2.0 * odd;
            if (tails)
                lanes->tail[i] = lanes->x[i] < 0.0 ? even + odd : even - odd;
        }
    if (lanes->any_direct)
        STAGE_LOOP
        for (int i = 0; i < n; i++) {
            const double a = lanes->a[i], t = lanes->t[i];
            double near, far;
            lane_mills(fabs(a - t), a + t, &near, &far);
            const int series = t < MILLS_SERIES_BELOW;
            const double direct = (a < t ? -near : near) - far, side = lanes->x[i] < 0.0 ? near : far;
            lanes->difference[i] = series ? lanes->difference[i] : direct;
            if (tails)
                lanes->tail[i] = series ? lanes->tail[i] : side;
        }
}

/* Undiscounted value. */
LANE void stage_price(int n, const stage_inputs *in, const stage_lanes *lanes, double *restrict price)
{
    const double *restrict forward = in->forward, *restrict strike = in->strike, *restrict call = in->call;
    const double *restrict discount = in->discount;
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], k = strike[i], t = lanes->t[i];
        const double smaller = f < k ? f : k, gain = call[i] != 0.0 ? f - k : k - f;
        const double most = lanes->a[i] < t ? smaller : 0.0, base = t < MILLS_SERIES_BELOW ? 0.0 : most;
        const double time_value = LANE_FMA(lanes->weight[i], lanes->difference[i], base);
        price[i] = discount[i] * ((gain > 0.0 ? gain : 0.0) + time_value);
    }
}

/* The five greeks after the price. */
LANE void stage_greeks(int n, const stage_inputs *in, const stage_lanes *lanes, const double *restrict rate,
                       double *const *out)
{
    const double *restrict forward = in->forward, *restrict expiry = in->expiry, *restrict volatility = in->fourth;
    const double *restrict discount = in->discount, *restrict call = in->call, *restrict price = out[0];
    double *restrict delta = out[1], *restrict gamma = out[2], *restrict vega = out[3], *restrict theta = out[4];
    double *restrict rho = out[5];
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], years = expiry[i], t = lanes->t[i], density = lanes->density[i];
        const double inverse = 1.0 / (f * years), d = discount[i], tail = density * lanes->tail[i];
        const double crossed = (lanes->a[i] < t ? 1.0 : 0.0) * (t < MILLS_SERIES_BELOW ? 0.0 : 1.0);
        const double below = (lanes->x[i] < 0.0 ? 1.0 : 0.0) * (1.0 - crossed); /* tail is N(d1), else N(-d1) */
        const double above = below == call[i] ? tail : 1.0 - tail;
        const double sensitivity = d * lanes->weight[i] * lanes->root[i];
        delta[i] = (call[i] != 0.0 ? d : -d) * above;
        gamma[i] = d * density * (lanes->s[i] * lanes->inverse_v[i]) * (years * inverse);
        vega[i] = sensitivity;
        theta[i] = (rate[i] * price[i] - 0.5 * sensitivity * volatility[i]) * (f * inverse);
        rho[i] = -years * price[i];
    }
}

/* The four after those; they overwrite nothing that they need. */
LANE void stage_greeks2(int n, const stage_inputs *in, const stage_lanes *lanes, const double *restrict rate,
                        double *const *out)
{
    const double *restrict forward = in->forward, *restrict expiry = in->expiry, *restrict volatility = in->fourth;
    const double *restrict discount = in->discount, *restrict delta = out[1], *restrict gamma = out[2];
    const double *restrict vega = out[3];
    double *restrict vanna = out[6], *restrict volga = out[7], *restrict charm = out[8], *restrict speed = out[9];
    STAGE_LOOP
    for (int i = 0; i < n; i++) {
        const double f = forward[i], years = expiry[i], a = lanes->a[i], t = lanes->t[i], x = lanes->x[i];
        const double inverse = 1.0 / (f * years), inverse_vol = volatility[i] * years * lanes->inverse_v[i];
        const double d1 = x < 0.0 ? t - a : a + t, d2 = x < 0.0 ? -(a + t) : a - t;
        const double slope = discount[i] * lanes->density[i] * d2;
        vanna[i] = -slope * inverse_vol;
        volga[i] = vega[i] * (d1 * d2) * inverse_vol;
        charm[i] = (rate[i] * delta[i] + 0.5 * slope) * (f * inverse);
        speed[i] = -(gamma[i] * (years * inverse)) * (1.0 + d1 * (lanes->s[i] * lanes->inverse_v[i]));
    }
}

#endif
