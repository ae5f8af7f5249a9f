/* Implied volatility of one Black-76 option.
 *
 * With z = (value of the out-of-the-money option) / (D sqrt(F K)) and g(s) = R(a - t) - R(a + t) (black_math.h),
 * ln z = ln g - (a*a + t*t)/2 - ln sqrt(2 pi), whose derivative to s is simply 1 / g. It is concave, far closer to a
 * line than z itself, and nothing under- or overflows. Above half of its largest value the complement (largest value
 * less z) is solved for in the same way, with -(R(t - a) + R(t + a)) in the place of g. Each step is Householder's of
 * third order; the derivatives of z to s are those of P. Jaeckel, "Let's be rational" (2015), section 3. The first
 * guess inverts the normal (Bachelier) value, or the leading term of the complement: both are below the solution.
 */
#ifndef NATIVE_BLACK_IV_H
#define NATIVE_BLACK_IV_H

#include "black_math.h"

enum { BLACK_OK, BLACK_BELOW_INTRINSIC, BLACK_ABOVE_MAXIMUM, BLACK_EXPIRED, BLACK_NON_POSITIVE, BLACK_NO_TIME_VALUE };

/* After a relative step of this size the next one would be below rounding (the order of convergence is 4). */
#define BLACK_LAST_STEP 5e-5
#define BLACK_MOST_STEPS 40

static inline double black_mills_any(double y)
{
    return y >= 0.0 ? black_mills(y) : BLACK_SQRT_2PI * exp(0.5 * y * y) - black_mills(-y);
}

/* s at which a normal model has the value ``z``: with y = z / |x| = n(a)/a - N(-a), and q = ln(1 + 1/(2y)),
 * a / q is a smooth function of q; relative error of the fit 4e-4. */
static inline double black_guess_low(double x, double z)
{
    const double half = 0.5 * x / z;
    const double q = half < 1e300 ? log1p(half) : log(0.5 * x) - log(z);
    static const double top[4] = {0.63653227, 0.236535944, 0.0470880323, 0.00096839201913};
    static const double bottom[5] = {1.0, 1.36216570, 0.261296633, 0.0283044330, 0.00048557650676};
    const double scale = sqrt(black_horner(top, 3, q) / black_horner(bottom, 4, q));
    return q > 1e-8 ? x / (q * scale) : BLACK_SQRT_2PI * z;
}

/* s at which the leading term of the complement, N(a - t), is ``part`` of the largest value (part <= 1/2). The inverse
 * normal distribution is the rational form 26.2.22 of Abramowitz and Stegun, made up to 0 at 1/2. */
static inline double black_guess_high(double x, double part)
{
    const double q = sqrt(-2.0 * log(part));
    const double d = fmax(q - (2.30753 + 0.27061 * q) / (1.0 + q * (0.99229 + 0.04481 * q)), 0.01);
    return d + sqrt(d * d + 2.0 * x);
}

/* s for x = |ln(F/K)| and the normalised value z, or its complement if ``high``. */
static inline double black_solve(double x, double z, double largest, int high)
{
    double s = high ? black_guess_high(x, z / largest) : black_guess_low(x, z);
    const double log_z = z < 1e-280 ? log(z) : 0.0;
    const double scale = z < 1e-280 ? BLACK_INV_SQRT_2PI : BLACK_INV_SQRT_2PI / z;
    for (int i = 0; i < BLACK_MOST_STEPS; i++) {
        const double a = x / s, t = 0.5 * s;
        double g;
        if (high)
            g = -(black_mills_any(t - a) + black_mills(t + a));
        else if (t < BLACK_SERIES_BELOW)
            g = black_series(a, t);
        else
            g = black_mills_any(a - t) - black_mills(a + t);
        const double f = log(fabs(g) * scale) - log_z - 0.5 * (a * a + t * t);
        const double slope = 1.0 / g;
        const double second = (a * a - t * t) / s; /* z'' / z' */
        const double third = second * second - (3.0 * a * a + t * t) / (s * s);
        const double curve = second - slope;
        const double twist = third + slope * (2.0 * slope - 3.0 * second);
        const double newton = -f * g;
        const double above = 1.0 + 0.5 * curve * newton;
        const double below = 1.0 + newton * (curve + twist * newton / 6.0);
        double step = above > 0.0 && below > 0.0 ? newton * above / below : newton;
        /* far from the solution the cubic model says little: stay within a factor */
        step = fmin(fmax(step, -0.7 * s), 3.0 * s + 0.5);
        s += step;
        if (!(fabs(step) > BLACK_LAST_STEP * s))
            break;
    }
    return s;
}

/* Volatility at which the discounted Black-76 value is ``price``; NaN and a code where there is none. */
static inline double black_implied_vol(
    double price, double forward, double strike, double expiry, int is_call, double discount, unsigned char *status)
{
    double gain, product, low, x, z;
    if (!(price == price && forward > 0.0 && strike > 0.0 && discount > 0.0 && expiry == expiry && price < INFINITY
          && forward < INFINITY && strike < INFINITY && discount < INFINITY && expiry < INFINITY)) {
        *status = BLACK_NON_POSITIVE;
        return NAN;
    }
    if (expiry <= 0.0) {
        *status = BLACK_EXPIRED;
        return NAN;
    }
    /* price less discounted intrinsic value, each product and difference with its rounding error made good */
    const double gain_low = is_call ? black_sum(forward, -strike, &gain) : black_sum(strike, -forward, &gain);
    double time_value = price, intrinsic = 0.0;
    if (gain > 0.0) {
        intrinsic = discount * gain; /* as price() rounds it: a price of just that is not below it */
        low = black_product(discount, gain, &product) + discount * gain_low;
        time_value = (price - product) - low;
    }
    if (!(time_value > 0.0)) {
        *status = price < intrinsic ? BLACK_BELOW_INTRINSIC : BLACK_NO_TIME_VALUE;
        return NAN;
    }
    low = black_product(discount, is_call ? forward : strike, &product);
    const double complement = (product - price) + low;
    if (!(complement > 0.0)) {
        *status = BLACK_ABOVE_MAXIMUM;
        return NAN;
    }
    const double root = sqrt(forward) * sqrt(strike);
    const double largest = fmin(forward, strike) / root;
    const double scale = discount * root;
    const int high = complement < 0.5 * discount * fmin(forward, strike);
    const double x_low = black_log_ratio(forward, strike, &x);
    x = fabs(x + x_low);
    z = (high ? complement : time_value) / scale;
    if (!(z > 0.0)) {
        *status = BLACK_NO_TIME_VALUE;
        return NAN;
    }
    *status = BLACK_OK;
    return black_solve(x, z, largest, high) / sqrt(expiry);
}

#endif
