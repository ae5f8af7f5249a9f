/* Mills' ratio and its differences, for one lane; fits, notation and sources as in black_math.h.
 *
 * In black_math.h the recurrence starts from the quotient m(16)/m(15); here it starts from numerator and denominator,
 * which it is linear in, so that one division at the end does for both.
 */
#ifndef NATIVE_BLACK_MILLS_H
#define NATIVE_BLACK_MILLS_H

#include "black_lane.h"

#define MILLS_SERIES_BELOW 0.25

#define MILLS_STEP(value, y, c) value = LANE_FMA(value, y, c)

LANE void lane_mills_parts(double y, double *top, double *bottom)
{
    double p = 8.634943994072101e-07, q = 8.634943994072101e-07;
    MILLS_STEP(p, y, 2.520291757586895e-05);
    MILLS_STEP(p, y, 0.00036480677892731237);
    MILLS_STEP(p, y, 0.003393812407902026);
    MILLS_STEP(p, y, 0.022272312377164878);
    MILLS_STEP(p, y, 0.10719830603144209);
    MILLS_STEP(p, y, 0.3824005361129063);
    MILLS_STEP(p, y, 0.9988352702071057);
    MILLS_STEP(p, y, 1.8349106192623743);
    MILLS_STEP(p, y, 2.1579260283216843);
    MILLS_STEP(p, y, 1.2533141373155003);
    MILLS_STEP(q, y, 2.5202917575868965e-05);
    MILLS_STEP(q, y, 0.000365670273326713);
    MILLS_STEP(q, y, 0.0034190153254793935);
    MILLS_STEP(q, y, 0.022635392167119316);
    MILLS_STEP(q, y, 0.11054171261622948);
    MILLS_STEP(q, y, 0.4039518693304244);
    MILLS_STEP(q, y, 1.0994979979374775);
    MILLS_STEP(q, y, 2.176350294818652);
    MILLS_STEP(q, y, 2.9744450028664335);
    MILLS_STEP(q, y, 2.5196604221553853);
    MILLS_STEP(q, y, 1.0);
    *top = p;
    *bottom = q;
}

/* R(y) and R(z) for arguments from 0 to 128. */
LANE void lane_mills(double y, double z, double *of_y, double *of_z)
{
    double top_y, bottom_y, top_z, bottom_z;
    lane_mills_parts(y, &top_y, &bottom_y);
    lane_mills_parts(z, &top_z, &bottom_z);
    const double inverse = 1.0 / (bottom_y * bottom_z);
    *of_y = top_y * (bottom_z * inverse);
    *of_z = top_z * (bottom_y * inverse);
}

/* R(a - t) = *even + *odd and R(a + t) = *even - *odd for t < MILLS_SERIES_BELOW, 0 <= a <= 64. */
LANE void lane_mills_series(double a, double t, double *even, double *odd)
{
    double e = 6.080530238467935e-13, o = 6.080530238467935e-13; /* m(16) and m(15), both times the denominator */
    MILLS_STEP(e, a, 3.752968551061547e-11);
    MILLS_STEP(e, a, 1.216329211363357e-09);
    MILLS_STEP(e, a, 2.675956971258978e-08);
    MILLS_STEP(e, a, 4.399937570400234e-07);
    MILLS_STEP(e, a, 5.659827126564578e-06);
    MILLS_STEP(e, a, 5.8220111426492045e-05);
    MILLS_STEP(e, a, 0.0004822503289198842);
    MILLS_STEP(e, a, 0.003198112097925998);
    MILLS_STEP(e, a, 0.01663373402636096);
    MILLS_STEP(e, a, 0.06493372716528079);
    MILLS_STEP(e, a, 0.17327038841126113);
    MILLS_STEP(e, a, 0.2461266013679579);
    MILLS_STEP(o, a, 3.752968551061547e-11);
    MILLS_STEP(o, a, 1.226666112768746e-09);
    MILLS_STEP(o, a, 2.7397574366274333e-08);
    MILLS_STEP(o, a, 4.6048528940656557e-07);
    MILLS_STEP(o, a, 6.103255728172281e-06);
    MILLS_STEP(o, a, 6.533469290088048e-05);
    MILLS_STEP(o, a, 0.0005707038757443505);
    MILLS_STEP(o, a, 0.004066661568867629);
    MILLS_STEP(o, a, 0.023382977745562625);
    MILLS_STEP(o, a, 0.10583413265048858);
    MILLS_STEP(o, a, 0.3593278498400668);
    MILLS_STEP(o, a, 0.8289129450546049);
    MILLS_STEP(o, a, 1.0);
    const double w = t * t;
    double sum_even = e, sum_odd = o;
#define MILLS_DOWN(n)                       \
    e = LANE_FMA(a, o, (n + 2.0) * e);      \
    o = LANE_FMA(a, e, (n + 1.0) * o);      \
    MILLS_STEP(sum_even, w, e);             \
    MILLS_STEP(sum_odd, w, o);
    MILLS_DOWN(14.0)
    MILLS_DOWN(12.0)
    MILLS_DOWN(10.0)
    MILLS_DOWN(8.0)
    MILLS_DOWN(6.0)
    MILLS_DOWN(4.0)
    MILLS_DOWN(2.0)
#undef MILLS_DOWN
    e = LANE_FMA(a, o, 2.0 * e);
    MILLS_STEP(sum_even, w, e);
    const double inverse = 1.0 / LANE_FMA(a, e, o);
    *even = sum_even * inverse;
    *odd = t * sum_odd * inverse;
}

#endif
