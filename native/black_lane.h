/* Elementary functions of one lane, without branches or library calls, so that a loop over them becomes vector code.
 *
 * Every operation is rounded as IEEE 754 says and none is contracted by the compiler (-ffp-contract=off): a lane has
 * the same bits in a vector, in the rest of a loop and alone. FMA is used where the instruction set has it.
 *
 * Sources: exact products and sums by Dekker (1971) and Knuth; exponential and logarithm by argument reduction (Cody
 * and Waite, "Software manual for the elementary functions", 1980): exp(n ln 2 + r) = 2^n exp(r), and ln(f/k) =
 * n ln 2 + 2 artanh((f - k)/(f + k)), whose numerator is exact. The polynomials interpolate at Chebyshev points
 * (relative error 1.3e-17 and 4.7e-18).
 */
#ifndef NATIVE_BLACK_LANE_H
#define NATIVE_BLACK_LANE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANE static inline __attribute__((always_inline))

#ifdef __FP_FAST_FMA
#define LANE_FMA(a, b, c) __builtin_fma((a), (b), (c))
#else
#define LANE_FMA(a, b, c) ((a) * (b) + (c))
#endif

#define LANE_LN2_HIGH 0.693147180559663 /* 41 bits: times any exponent it is exact */
#define LANE_LN2_LOW 2.8235290563031577e-13
#define LANE_SQRT2 1.4142135623730951
#define LANE_ROUND 6755399441055744.0 /* 1.5 * 2^52: adding it rounds to an integer in the low bits */
#define LANE_INTEGER 4503599627370496.0 /* 2^52 */

LANE uint64_t lane_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

LANE double lane_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

/* a if ``flag`` is 1, b if it is 0: by bits, as SSE2 does not compare whole numbers of 64. */
LANE double lane_choose(uint64_t flag, double a, double b)
{
    const uint64_t mask = 0u - flag;
    return lane_double((lane_bits(a) & mask) | (lane_bits(b) & ~mask));
}

/* a * b = *high + the returned low part, exactly. */
LANE double lane_product(double a, double b, double *high)
{
    const double product = a * b;
    *high = product;
#ifdef __FP_FAST_FMA
    return __builtin_fma(a, b, -product);
#else
    const double ca = 134217729.0 * a, cb = 134217729.0 * b;
    const double ah = ca - (ca - a), al = a - ah;
    const double bh = cb - (cb - b), bl = b - bh;
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl;
#endif
}

/* a + b = *high + the returned low part, exactly. */
LANE double lane_sum(double a, double b, double *high)
{
    const double sum = a + b, part = sum - a;
    *high = sum;
    return (a - (sum - part)) + (b - part);
}

/* a * b - c, where the difference all but cancels. */
LANE double lane_residual(double a, double b, double c)
{
#ifdef __FP_FAST_FMA
    return __builtin_fma(a, b, -c);
#else
    double high;
    const double low = lane_product(a, b, &high);
    return (high - c) + low;
#endif
}

/* 2 artanh(u) - 2 u for |u| <= (sqrt 2 - 1) / (sqrt 2 + 1). */
LANE double lane_artanh_rest(double u)
{
    const double w = u * u;
    double p = 0.14616585424888623;
    p = LANE_FMA(p, w, 0.15331710618210773);
    p = LANE_FMA(p, w, 0.18182889455674947);
    p = LANE_FMA(p, w, 0.22222211130259878);
    p = LANE_FMA(p, w, 0.2857142862600327);
    p = LANE_FMA(p, w, 0.39999999999899444);
    p = LANE_FMA(p, w, 0.666666666666667);
    return u * w * p;
}

#define LANE_MANTISSA(bits) lane_double(((bits) & 0x000fffffffffffffu) | 0x3ff0000000000000u)
#define LANE_EXPONENT(bits) lane_double(((bits) >> 52) | 0x4330000000000000u) /* biased, and by 2^52 too large */

/* ln(f/k) = *high + *low for normal f, k > 0; nothing cancels near f = k. *inverse = 1/v, for one division less. */
LANE void lane_log_ratio(double f, double k, double v, double *high, double *low, double *inverse_v)
{
    const uint64_t bits_f = lane_bits(f), bits_k = lane_bits(k);
    const double mk = LANE_MANTISSA(bits_k), mantissa = LANE_MANTISSA(bits_f);
    const double exponent = LANE_EXPONENT(bits_f) - LANE_EXPONENT(bits_k);
    const double up = mantissa > LANE_SQRT2 * mk ? 1.0 : 0.0, down = LANE_SQRT2 * mantissa < mk ? 1.0 : 0.0;
    const double mf = mantissa * (1.0 - 0.5 * up + down), n = exponent + (up - down);
    double sum, x;
    const double sum_low = lane_sum(mf, mk, &sum);
    const double gain = mf - mk, both = 1.0 / (sum * v), inverse = v * both, u = gain * inverse;
    const double u_low = -(lane_residual(u, sum, gain) + u * sum_low) * inverse;
    const double big = n * LANE_LN2_HIGH, twice = 2.0 * u;
    const double rest = lane_artanh_rest(u) + (2.0 * u_low + n * LANE_LN2_LOW);
    *inverse_v = sum * both;
    x = big + twice;
    const double x_low = (twice - (x - big)) + rest;
    *high = x + x_low;
    *low = x_low - (*high - x);
}

/* ln(y) for normal y > 0, to the last bit or so. */
LANE double lane_log(double y)
{
    const uint64_t bits = lane_bits(y);
    const double mantissa = LANE_MANTISSA(bits), exponent = LANE_EXPONENT(bits) - (LANE_INTEGER + 1023.0);
    const double up = mantissa > LANE_SQRT2 ? 1.0 : 0.0;
    const double m = mantissa * (1.0 - 0.5 * up), n = exponent + up;
    const double gain = m - 1.0, sum = m + 1.0, u = gain / sum;
    const double u_low = -lane_residual(u, sum, gain) * (0.5 - 0.25 * gain);
    return (n * LANE_LN2_HIGH + 2.0 * u) + (lane_artanh_rest(u) + (2.0 * u_low + n * LANE_LN2_LOW))
           + ((2.0 * u - ((n * LANE_LN2_HIGH + 2.0 * u) - n * LANE_LN2_HIGH)));
}

/* exp(r) for |r| <= (ln 2)/2. By halves (Estrin): a single option waits for half as many operations one after another. */
LANE double lane_exp_rest(double r)
{
    const double r2 = r * r, r4 = r2 * r2;
    const double low = LANE_FMA(LANE_FMA(0.008333333333330062, r, 0.04166666666662413), r2,
                                LANE_FMA(0.16666666666666669, r, 0.5));
    const double high = LANE_FMA(LANE_FMA(2.7557268459997064e-06, r, 2.4801521295954376e-05), r2,
                                 LANE_FMA(0.00019841269863053618, r, 0.0013888888917213717));
    const double highest = LANE_FMA(2.510038549551032e-08, r, 2.7620088445409746e-07);
    return 1.0 + LANE_FMA(r2, LANE_FMA(r4, LANE_FMA(r4, highest, high), low), r);
}

/* exp(-(y + y_low)) = returned * *scale1 * *scale2 for -1400 < y < 1400; the scales are powers of two. */
LANE double lane_exp_minus(double y, double y_low, double *scale1, double *scale2)
{
    const double shifted = LANE_FMA(y, -1.4426950408889634, LANE_ROUND), n = shifted - LANE_ROUND;
    const double half = 0.5 * n + LANE_ROUND, n1 = half - LANE_ROUND, other = (n - n1) + LANE_ROUND;
    const double r = (-y - n * LANE_LN2_HIGH) - (n * LANE_LN2_LOW + y_low);
    *scale1 = lane_double((lane_bits(half) + 1023u) << 52);
    *scale2 = lane_double((lane_bits(other) + 1023u) << 52);
    return lane_exp_rest(r);
}

#endif
