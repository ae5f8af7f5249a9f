/* Greeks of one Black-76 option: derivatives of the discounted value V = D U(F, K, T, vol), D = exp(-r T).
 *
 * delta, gamma, speed: to the forward. vega, volga: per 1.00 of volatility. rho: dV/dr at a fixed forward, -T V.
 * theta = -dV/dT and charm = -d(delta)/dT, a year: the change as calendar time passes, at a fixed forward and rate
 * r = -ln(D)/T. vanna = d(delta)/d(vol). (Haug, "The complete guide to option pricing formulas", chapter 2.)
 */
#ifndef NATIVE_BLACK_GREEKS_H
#define NATIVE_BLACK_GREEKS_H

#include "black_math.h"

/* The limits at no volatility or no time. At the money without time value some derivatives are infinite, and those
 * that depend on the way to the limit are NaN. */
static void black_limit_greeks(
    double forward, double strike, double expiry, double vol, int is_call, double discount, black_values *out)
{
    const double sign = is_call ? 1.0 : -1.0;
    const int at_money = forward == strike && forward > 0.0;
    const double rate = discount == 1.0 ? 0.0 : expiry > 0.0 ? -log(discount) / expiry : NAN;
    const double root = sqrt(expiry);
    out->price = black_price(forward, strike, expiry, vol, is_call, discount);
    out->delta = discount * (at_money ? 0.5 * sign : sign * (forward - strike) > 0.0 ? sign : 0.0);
    out->gamma = at_money && discount > 0.0 ? INFINITY : 0.0;
    out->vega = at_money ? discount * forward * root * BLACK_INV_SQRT_2PI : 0.0;
    out->theta = rate * out->price;
    if (at_money && vol > 0.0)
        out->theta = -INFINITY;
    out->rho = -expiry * out->price;
    out->vanna = at_money ? 0.5 * discount * root * BLACK_INV_SQRT_2PI : 0.0;
    out->volga = 0.0;
    out->charm = at_money && vol > 0.0 ? -INFINITY : rate * out->delta;
    out->speed = at_money ? NAN : 0.0;
    if (!(vol * root < 1e290))  /* endless volatility: only the value has a limit worth the name */
        out->delta = out->gamma = out->vega = out->theta = out->vanna = out->volga = out->charm = out->speed = NAN;
}

/* All values; those after rho only if ``second``. */
static inline void black_greeks(double forward, double strike, double expiry, double vol, int is_call,
                                double discount, int second, black_values *out)
{
    const int kind = black_classify(forward, strike, expiry, vol, discount);
    black_terms terms;
    if (kind < 0) {
        out->price = out->delta = out->gamma = out->vega = out->theta = out->rho = NAN;
        out->vanna = out->volga = out->charm = out->speed = NAN;
        return;
    }
    if (kind > 0) {
        black_limit_greeks(forward, strike, expiry, vol, is_call, discount, out);
        return;
    }
    black_prepare(forward, strike, expiry, vol, &terms);
    const double value =
        black_intrinsic(forward, strike, is_call) + black_time_value(forward, strike, &terms);
    const double d1 = terms.x < 0.0 ? terms.t - terms.a : terms.a + terms.t;
    const double density = terms.weight / forward; /* n(d1) */
    const double tail = density * black_mills(fabs(d1));
    const double above = (d1 > 0.0) == (is_call != 0) ? 1.0 - tail : tail; /* N(d1) of a call, N(-d1) of a put */
    const double slope = discount * density;
    const double rate = -log(discount) / expiry;
    const double vega = discount * terms.weight * terms.root_expiry;
    out->price = discount * value;
    out->delta = is_call ? discount * above : -discount * above;
    out->gamma = slope / (forward * terms.s);
    out->vega = vega;
    out->theta = rate * out->price - discount * terms.weight * vol / (2.0 * terms.root_expiry);
    out->rho = -expiry * out->price;
    if (second) {
        const double d2 = terms.x < 0.0 ? -(terms.a + terms.t) : terms.a - terms.t;
        out->vanna = -slope * d2 / vol;
        out->volga = vega * (d1 * d2) / vol;
        out->charm = rate * out->delta + slope * d2 / (2.0 * expiry);
        out->speed = -(out->gamma / forward) * (1.0 + d1 / terms.s);
    }
}

#endif
