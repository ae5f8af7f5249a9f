/* The block kernel, compiled once for each instruction set (setup.py), with BLACK_TARGET its name.
 *
 * Each block goes through the stages of black_near.h (black_near_iv.h), which serve most lanes of any chain. The lanes
 * that are far from the money are gathered and go through the general stages of black_stage.h (black_stage_iv.h);
 * limits, senseless input and extreme magnitudes are done one by one. Which way a lane goes, and so its bits, depends
 * on its own inputs alone.
 */
#include "black_columns.h"
#include "black_greeks.h"
#include "black_near_iv.h"
#include "black_stage_iv.h"

#define NAME_(base, target) base##target
#define NAME(base, target) NAME_(base, target)
#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)

static inline void odd_values(const stage_inputs *in, int i, int fields, double *out)
{
    const double f = in->forward[i], k = in->strike[i], years = in->expiry[i], vol = in->fourth[i];
    const double d = in->discount[i];
    const int call = in->call[i] != 0.0;
    black_values values;
    if (fields == 1) {
        out[0] = black_price(f, k, years, vol, call, d);
        return;
    }
    black_greeks(f, k, years, vol, call, d, fields > 6, &values);
    memcpy(out, &values, (size_t)fields * sizeof(double));
}

/* The general stages for the lanes of a block that are not near the money. */
LANE void far_stages(int n, const stage_inputs *in, stage_lanes *lanes, int fields, double *const *out)
{
    double rate[NEAR_ROW] ALIGNED;
    stage_prepare(n, in, lanes);
    stage_density(n, in, lanes);
    stage_mills(n, lanes, fields > 1);
    stage_price(n, in, lanes, out[0]);
    if (fields > 1) {
        stage_rates(n, in->discount, rate);
        stage_greeks(n, in, lanes, rate, out);
    }
    if (fields > 6)
        stage_greeks2(n, in, lanes, rate, out);
}

static __attribute__((noinline)) void far_values(
    int m, int vector, const stage_inputs *in, const uint64_t *far, int fields, double *const *out)
{
    block_room room;
    stage_inputs few;
    stage_lanes lanes;
    double results[10][NEAR_ROW] ALIGNED, *own[10], one[10];
    int place[BLOCK];
    const int found = find_far(m, far, place);
    if (found == 0) /* only in what a short block is filled up with */
        return;
    for (int c = 0; c < 10; c++)
        own[c] = results[c];
    far_stages(gather(in, place, found, vector, &room, &few), &few, &lanes, fields, own);
    for (int i = 0; i < found; i++) {
        if (lanes.odd_one[i])
            odd_values(&few, i, fields, one);
        for (int c = 0; c < fields; c++)
            out[c][place[i]] = lanes.odd_one[i] ? one[c] : results[c][i];
    }
}

/* ``n`` and ``fields`` are constants where it matters. */
LANE void near_stages(int n, int rooted, const stage_inputs *in, near_lanes *lanes, const double *rate, int fields,
                      double *const *out)
{
    near_prepare(n, rooted, in, lanes);
    near_price(n, in, lanes, fields > 1, out[0]);
    if (fields > 1)
        near_greeks(n, in, lanes, rate, out);
    if (fields > 6)
        near_greeks2(n, in, lanes, rate, fields, out);
}

static void values_one(double f, double k, double years, double vol, int call, double d, int fields, double *out)
{
    near_lanes lanes;
    const double flag = call ? 1.0 : 0.0;
    const stage_inputs in = {&f, &k, &years, &vol, &d, &flag};
    double *const columns[10] = {out, out + 1, out + 2, out + 3, out + 4, out + 5, out + 6, out + 7, out + 8, out + 9};
    double rate;
    if (fields == 1)
        near_stages(1, 0, &in, &lanes, &rate, 1, columns);
    else {
        stage_rates(1, &d, &rate);
        near_stages(1, 0, &in, &lanes, &rate, 6, columns);
    }
    if (lanes.any_far)
        far_values(1, 1, &in, lanes.far, fields, columns);
    else if (fields == 10)
        near_greeks2(1, &in, &lanes, &rate, 10, columns);
}

/* Whether columns lie upon one another, such as one array for all that is not wanted: then each must be complete before
 * it is written, since later ones are computed from earlier ones. */
static inline int overlap(ptrdiff_t count, const black_column *outputs, int fields)
{
    for (int c = 1; c < fields; c++)
        for (int other = 0; other < c; other++)
            if (outputs[c].data < outputs[other].data + count * (ptrdiff_t)sizeof(double)
                && outputs[other].data < outputs[c].data + count * (ptrdiff_t)sizeof(double))
                return 1;
    return 0;
}

LANE void values(ptrdiff_t count, const black_column *inputs, const black_column *outputs, int fields)
{
    block_room room;
    near_lanes lanes;
    stage_inputs in;
    double rate[NEAR_ROW] ALIGNED, results[10][NEAR_ROW] ALIGNED, *out[10];
    const double root = inputs[EXPIRY].step == 0 ? sqrt(number(&inputs[EXPIRY], 0)) : 0.0;
    const int apart = fields == 1 || !overlap(count, outputs, fields);
    fill_constants(inputs, count < BLOCK ? (int)((count + VECTOR - 1) / VECTOR) * VECTOR : BLOCK, &room);
    for (ptrdiff_t start = 0; start < count; start += BLOCK) {
        const int m = count - start < BLOCK ? (int)(count - start) : BLOCK, groups = (m + VECTOR - 1) / VECTOR;
        const int n = groups * VECTOR;
        take_all(inputs, start, m, n, &room, &in);
        for (int c = 0; c < fields; c++) {
            const int direct = apart && m == n && outputs[c].step == sizeof(double);
            out[c] = direct ? (double *)(outputs[c].data + start * (ptrdiff_t)sizeof(double)) : results[c];
        }
        if (fields > 1 && (start == 0 || inputs[DISCOUNT].step != 0))
            stage_rates(n, in.discount, rate);
        if (inputs[EXPIRY].step == 0) {
            if (start == 0)
                for (int i = 0; i < n; i++)
                    lanes.root[i] = root;
            near_stages(n, 1, &in, &lanes, rate, fields, out);
        } else
            near_stages(n, 0, &in, &lanes, rate, fields, out);
        if (lanes.any_far)
            far_values(m, VECTOR, &in, lanes.far, fields, out);
        for (int c = 0; c < fields; c++)
            put(out[c], start, m, &outputs[c]);
    }
}

static void all_values(ptrdiff_t count, const black_column *inputs, const black_column *outputs, int fields)
{
    if (count <= 0) /* then not even what is the same for all need be there */
        return;
    if (fields == 1)
        values(count, inputs, outputs, 1);
    else if (fields == 6)
        values(count, inputs, outputs, 6);
    else if (fields == 8)
        values(count, inputs, outputs, 8);
    else
        values(count, inputs, outputs, 10);
}

/* The general stages for the lanes of a block that are not near the money, or have not come to rest there. */
static __attribute__((noinline)) void far_implied_vol(
    int m, int vector, const stage_inputs *in, const uint64_t *far, double *vol, unsigned char *status)
{
    block_room room;
    stage_inputs few;
    iv_lanes lanes;
    double results[NEAR_ROW] ALIGNED;
    int place[BLOCK];
    const int found = find_far(m, far, place);
    if (found == 0)
        return;
    const int n = gather(in, place, found, vector, &room, &few);
    iv_prepare(n, &few, &lanes);
    iv_guess(n, &lanes);
    if (vector > 1 && lanes.any_series && lanes.any_direct)
        iv_solve_apart(found, vector, &lanes);
    else
        iv_solve(n, &lanes);
    if (lanes.any_more)
        iv_further(found, vector, &lanes);
    iv_finish(n, &few, &lanes, results);
    for (int i = 0; i < found; i++)
        vol[place[i]] = lanes.odd_one[i]
                            ? black_implied_vol(few.fourth[i], few.forward[i], few.strike[i], few.expiry[i],
                                                few.call[i] != 0.0, few.discount[i], &status[place[i]])
                            : results[i];
}

static void implied_vol(
    ptrdiff_t count, const black_column *inputs, const black_column *out, const black_column *status)
{
    block_room room;
    near_iv_lanes lanes;
    stage_inputs in;
    double results[NEAR_ROW] ALIGNED;
    unsigned char codes[BLOCK];
    if (count <= 0)
        return;
    fill_constants(inputs, count < BLOCK ? (int)((count + VECTOR - 1) / VECTOR) * VECTOR : BLOCK, &room);
    for (ptrdiff_t start = 0; start < count; start += BLOCK) {
        const int m = count - start < BLOCK ? (int)(count - start) : BLOCK, groups = (m + VECTOR - 1) / VECTOR;
        const int n = groups * VECTOR;
        take_all(inputs, start, m, n, &room, &in);
        near_iv_guess(n, &in, &lanes);
        near_iv_solve(n, &lanes);
        near_iv_finish(n, &in, &lanes, results);
        memset(codes, BLACK_OK, (size_t)m);
        if (lanes.any_far)
            far_implied_vol(m, VECTOR, &in, lanes.far, results, codes);
        put(results, start, m, out);
        for (int i = 0; i < m; i++)
            *(unsigned char *)(status->data + (start + i) * status->step) = codes[i];
    }
}

static double implied_vol_one(double price, double forward, double strike, double expiry, int is_call,
                              double discount, unsigned char *status)
{
    near_iv_lanes lanes;
    const double flag = is_call ? 1.0 : 0.0;
    const stage_inputs in = {&forward, &strike, &expiry, &price, &discount, &flag};
    double vol;
    near_iv_guess(1, &in, &lanes);
    near_iv_solve(1, &lanes);
    near_iv_finish(1, &in, &lanes, &vol);
    *status = BLACK_OK;
    if (lanes.any_far)
        far_implied_vol(1, 1, &in, lanes.far, &vol, status);
    return vol;
}

const black_kernel NAME(black_kernel_, BLACK_TARGET) = {
    TEXT(BLACK_TARGET), all_values, implied_vol, values_one, implied_vol_one};
