/* Black-76 value and greeks of one European option, in double precision.
 *
 * Notation: x = ln(F/K), s = vol * sqrt(T), a = |x| / s, t = s / 2, d1 = x / s + t, d2 = d1 - s, and Mills' ratio
 * R(y) = N(-y) / n(y) = integral over u > 0 of exp(-y u - u*u/2). As F n(d1) = K n(d2) = w, the value of the
 * out-of-the-money option of a pair is w * (R(a - t) - R(a + t)), with w = sqrt(F K) exp(-(a*a + t*t)/2) / sqrt(2 pi);
 * the other one is that plus the intrinsic value. Nothing is ever computed by subtracting from 1 what is close to 1.
 *
 * Sources: F. Black, "The pricing of commodity contracts" (1976); E. G. Haug, "The complete guide to option pricing
 * formulas" (greeks); P. Jaeckel, "Let's be rational" (2015) for the normalised form. The rational functions were
 * fitted to 60-digit values at Chebyshev points of y = c (1 + z) / (1 - z); their coefficients are all positive, so
 * they are as exact as double precision allows for y >= 0.
 */
#ifndef NATIVE_BLACK_MATH_H
#define NATIVE_BLACK_MATH_H

#include <math.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define BLACK_INV_SQRT_2PI 0.39894228040143267794
#define BLACK_SQRT_2PI 2.50662827463100050242
/* Below this t the difference of two Mills' ratios is summed as a series in t. */
#define BLACK_SERIES_BELOW 0.25
/* exp(-FAR * FAR / 2) is 0 in double precision, and no power of it that occurs overflows. */
#define BLACK_FAR 64.0

typedef struct {
    double price, delta, gamma, vega, theta, rho, vanna, volga, charm, speed;
} black_values;

/* a * b = high + the returned low part, exactly, unless it over- or underflows. In software where there is no such
 * instruction: that is slow, but what is computed by this file is rare, and reaches to the largest numbers. */
static inline double black_product(double a, double b, double *high)
{
    *high = a * b;
    return fma(a, b, -*high);
}

/* a + b = high + the returned low part, exactly (Knuth). */
static inline double black_sum(double a, double b, double *high)
{
    const double sum = a + b, part = sum - a;
    *high = sum;
    return (a - (sum - part)) + (b - part);
}

static inline double black_horner(const double *coefficient, int degree, double y)
{
    double value = coefficient[degree];
    for (int i = degree - 1; i >= 0; i--)
        value = value * y + coefficient[i];
    return value;
}

/* Mills' ratio for 0 <= y <= 2 FAR; relative error of the fit 2.2e-17. */
static inline double black_mills(double y)
{
    static const double top[11] = {
        1.2533141373155003, 2.1579260283216843, 1.8349106192623743, 0.9988352702071057,
        0.3824005361129063, 0.10719830603144209, 0.022272312377164878, 0.003393812407902026,
        0.00036480677892731237, 2.520291757586895e-05, 8.634943994072101e-07};
    static const double bottom[12] = {
        1.0, 2.5196604221553853, 2.9744450028664335, 2.176350294818652,
        1.0994979979374775, 0.4039518693304244, 0.11054171261622948, 0.022635392167119316,
        0.0034190153254793935, 0.000365670273326713, 2.5202917575868965e-05, 8.634943994072101e-07};
    return black_horner(top, 10, y) / black_horner(bottom, 11, y);
}

/* R(a - t) - R(a + t) for t < SERIES_BELOW, a >= 0: 2 sum over odd n < 17 of t^n m(n), where
 * m(n) = integral of u^n / n! exp(-a u - u*u/2) > 0. They obey m(n-1) = (n+1) m(n+1) + a m(n), which loses nothing
 * downwards; it starts from a fit of m(16) / m(15) (relative error 6e-18) and is scaled by m(1) + a m(0) = 1. */
static inline double black_series(double a, double t)
{
    static const double top[13] = {
        0.2461266013679579, 0.17327038841126113, 0.06493372716528079, 0.01663373402636096,
        0.003198112097925998, 0.0004822503289198842, 5.8220111426492045e-05, 5.659827126564578e-06,
        4.399937570400234e-07, 2.675956971258978e-08, 1.216329211363357e-09, 3.752968551061547e-11,
        6.080530238467935e-13};
    static const double bottom[14] = {
        1.0, 0.8289129450546049, 0.3593278498400668, 0.10583413265048858,
        0.023382977745562625, 0.004066661568867629, 0.0005707038757443505, 6.533469290088048e-05,
        6.103255728172281e-06, 4.6048528940656557e-07, 2.7397574366274333e-08, 1.226666112768746e-09,
        3.752968551061547e-11, 6.080530238467935e-13};
    const double square = t * t;
    double even = black_horner(top, 12, a) / black_horner(bottom, 13, a);
    double odd = 1.0, sum = 1.0;
    for (int n = 14; n >= 2; n -= 2) {
        even = (n + 2) * even + a * odd;
        odd = (n + 1) * odd + a * even;
        sum = sum * square + odd;
    }
    even = 2.0 * even + a * odd;
    return 2.0 * t * sum / (odd + a * even);
}

/* What price and greeks share. */
typedef struct {
    double x, s, a, t, root_expiry, weight; /* weight: w / sqrt(2 pi) above, F n(d1) */
} black_terms;

/* ln(F/K) as high + returned low part: the rounding of F/K is made good, so nothing cancels near the money. */
static inline double black_log_ratio(double forward, double strike, double *high)
{
    const double ratio = forward / strike;
    if (!(ratio > 1e-290 && ratio < 1e290)) {
        *high = log(forward) - log(strike);
        return 0.0;
    }
    double product;
    const double low = black_product(ratio, strike, &product);
    return black_sum(log(ratio), ((forward - product) - low) / product, high);
}

/* For finite F, K, T, vol > 0 with s > 0. The exponent (a*a + t*t)/2 is carried with a correction, because its
 * absolute error is the relative error of everything that follows. */
static inline void black_prepare(double forward, double strike, double expiry, double vol, black_terms *terms)
{
    double x, s, product, low, a, a_low, t, t_low, square_a, square_t, exponent;
    const double x_low = black_log_ratio(forward, strike, &x);
    const double root = sqrt(expiry);
    low = black_product(root, root, &product);
    const double root_low = ((expiry - product) - low) / (2.0 * root);
    const double s_low = black_product(vol, root, &s) + vol * root_low;
    a = fabs(x) / s;
    low = black_product(a, s, &product);
    a_low = (((fabs(x) - product) - low) + (x < 0 ? -x_low : x_low) - a * s_low) / s;
    if (!(a < BLACK_FAR)) {
        a = BLACK_FAR;
        a_low = 0.0;
    }
    t = 0.5 * s;
    t_low = 0.5 * s_low;
    if (!(t < BLACK_FAR)) {
        t = BLACK_FAR;
        t_low = 0.0;
    }
    low = black_product(a, a, &square_a) + black_product(t, t, &square_t);
    low += 2.0 * (a * a_low + t * t_low) + black_sum(square_a, square_t, &exponent);
    terms->x = x;
    terms->s = s;
    terms->a = a;
    terms->t = t;
    terms->root_expiry = root;
    terms->weight =
        sqrt(forward) * sqrt(strike) * BLACK_INV_SQRT_2PI * (exp(-0.5 * exponent) * (1.0 - 0.5 * low));
}

/* Undiscounted value of the out-of-the-money one of call and put. */
static inline double black_time_value(double forward, double strike, const black_terms *terms)
{
    const double a = terms->a, t = terms->t;
    if (t < BLACK_SERIES_BELOW)
        return terms->weight * black_series(a, t);
    if (a >= t)
        return terms->weight * (black_mills(a - t) - black_mills(a + t));
    return fmin(forward, strike) - terms->weight * (black_mills(t - a) + black_mills(t + a));
}

static inline double black_intrinsic(double forward, double strike, int is_call)
{
    const double gain = is_call ? forward - strike : strike - forward;
    return gain > 0.0 ? gain : 0.0;
}

/* 0: an ordinary option; 1: a limit (something is zero or infinite); -1: no meaning (negative, NaN). */
static inline int black_classify(double forward, double strike, double expiry, double vol, double discount)
{
    const double s = vol * sqrt(expiry);
    if (forward > 0.0 && strike > 0.0 && discount >= 0.0 && vol > 0.0 && expiry > 0.0 && s > 1e-290 && s < 1e290
        && forward < INFINITY && strike < INFINITY && discount < INFINITY)
        return 0;
    if (forward >= 0.0 && strike >= 0.0 && discount >= 0.0 && s >= 0.0 && vol >= 0.0 && forward < INFINITY
        && strike < INFINITY && discount < INFINITY)
        return 1;
    return -1;
}

/* Discounted value. */
static inline double black_price(
    double forward, double strike, double expiry, double vol, int is_call, double discount)
{
    const int kind = black_classify(forward, strike, expiry, vol, discount);
    black_terms terms;
    if (kind < 0)
        return NAN;
    const double intrinsic = black_intrinsic(forward, strike, is_call);
    if (kind > 0)
        return discount * (vol * sqrt(expiry) >= 1e290 ? (is_call ? forward : strike) : intrinsic);
    black_prepare(forward, strike, expiry, vol, &terms);
    return discount * (intrinsic + black_time_value(forward, strike, &terms));
}

#endif
