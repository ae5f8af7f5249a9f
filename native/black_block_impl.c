/* The block kernel, compiled once for each instruction set (setup.py), with BLACK_TARGET its name.
 *
 * Columns are cut in blocks of 256; a whole block of a contiguous column is read where it lies, any other is copied.
 * A last, shorter block is filled up to whole vectors with copies of its last element, and goes the same way.
 */
#include "black_kernel.h"
#include "black_greeks.h"
#include "black_stage.h"
#include "black_stage_iv.h"

#define NAME_(base, target) base##target
#define NAME(base, target) NAME_(base, target)
#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)
#define VECTOR 8 /* lanes; no instruction set has more */

enum { FORWARD, STRIKE, EXPIRY, FOURTH, CALL, DISCOUNT, INPUTS };

typedef struct {
    double copies[INPUTS][BLOCK] ALIGNED;
} block_room;

static inline double number(const black_column *column, ptrdiff_t i)
{
    return *(const double *)(column->data + i * column->step);
}

static inline int truth(const black_column *column, ptrdiff_t i)
{
    return *(const unsigned char *)(column->data + i * column->step) != 0;
}

/* Values that are the same in all blocks. */
static void fill_constants(const black_column *inputs, int n, block_room *room)
{
    for (int c = 0; c < INPUTS; c++)
        if (inputs[c].step == 0) {
            const double value = c == CALL ? truth(&inputs[c], 0) : number(&inputs[c], 0);
            for (int i = 0; i < n; i++)
                room->copies[c][i] = value;
        }
}

/* ``m`` elements from ``start`` on, filled up to ``n``. */
static const double *take(const black_column *column, ptrdiff_t start, int m, int n, double *restrict copy)
{
    if (column->step == 0)
        return copy;
    const char *data = column->data + start * column->step;
    if (column->step == sizeof(double)) {
        if (m == n)
            return (const double *)data;
        memcpy(copy, data, (size_t)m * sizeof(double));
    } else {
        for (int i = 0; i < m; i++)
            copy[i] = *(const double *)(data + i * column->step);
    }
    for (int i = m; i < n; i++)
        copy[i] = copy[m - 1];
    return copy;
}

static const double *take_flags(const black_column *column, ptrdiff_t start, int m, int n, double *restrict copy)
{
    if (column->step == 0)
        return copy;
    const unsigned char *data = (const unsigned char *)column->data + start * column->step;
    if (column->step == 1)
        for (int i = 0; i < m; i++)
            copy[i] = data[i] != 0 ? 1.0 : 0.0;
    else
        for (int i = 0; i < m; i++)
            copy[i] = data[i * column->step] != 0 ? 1.0 : 0.0;
    for (int i = m; i < n; i++)
        copy[i] = copy[m - 1];
    return copy;
}

static void take_all(const black_column *inputs, ptrdiff_t start, int m, int n, block_room *room, stage_inputs *in)
{
    in->forward = take(&inputs[FORWARD], start, m, n, room->copies[FORWARD]);
    in->strike = take(&inputs[STRIKE], start, m, n, room->copies[STRIKE]);
    in->expiry = take(&inputs[EXPIRY], start, m, n, room->copies[EXPIRY]);
    in->fourth = take(&inputs[FOURTH], start, m, n, room->copies[FOURTH]);
    in->discount = take(&inputs[DISCOUNT], start, m, n, room->copies[DISCOUNT]);
    in->call = take_flags(&inputs[CALL], start, m, n, room->copies[CALL]);
}

/* All stages; ``n`` and ``fields`` are constants where it matters. */
LANE void run_stages(int n, const stage_inputs *in, stage_lanes *lanes, double *rate, int fields, double *const *out)
{
    stage_prepare(n, in, lanes);
    stage_density(n, in, lanes);
    stage_mills(n, lanes, fields > 1);
    stage_price(n, in, lanes, out[0]);
    if (fields > 1)
        stage_greeks(n, in, lanes, rate, out);
    if (fields > 6)
        stage_greeks2(n, in, lanes, rate, out);
}

static inline void odd_values(double f, double k, double years, double vol, int call, double d, int fields, double *out)
{
    black_values values;
    if (fields == 1) {
        out[0] = black_price(f, k, years, vol, call, d);
        return;
    }
    black_greeks(f, k, years, vol, call, d, fields > 6, &values);
    memcpy(out, &values, (size_t)fields * sizeof(double));
}

static void values_one(double f, double k, double years, double vol, int call, double d, int fields, double *out)
{
    stage_lanes lanes;
    const double flag = call ? 1.0 : 0.0;
    const stage_inputs in = {&f, &k, &years, &vol, &d, &flag};
    double *const columns[10] = {out, out + 1, out + 2, out + 3, out + 4, out + 5, out + 6, out + 7, out + 8, out + 9};
    double rate;
    if (stage_odd(f, k, years, vol, d)) {
        odd_values(f, k, years, vol, call, d, fields, out);
        return;
    }
    if (fields == 1) {
        run_stages(1, &in, &lanes, &rate, 1, columns);
        return;
    }
    stage_rate(1, &in, &rate);
    run_stages(1, &in, &lanes, &rate, 6, columns);
    if (fields > 6)
        stage_greeks2(1, &in, &lanes, &rate, columns);
}

LANE void values(ptrdiff_t count, const black_column *inputs, const black_column *outputs, int fields)
{
    block_room room;
    stage_lanes lanes;
    stage_inputs in;
    double rate[BLOCK] ALIGNED, results[10][BLOCK] ALIGNED, *out[10];
    fill_constants(inputs, count < BLOCK ? (int)((count + VECTOR - 1) / VECTOR) * VECTOR : BLOCK, &room);
    for (ptrdiff_t start = 0; start < count; start += BLOCK) {
        const int m = count - start < BLOCK ? (int)(count - start) : BLOCK, groups = (m + VECTOR - 1) / VECTOR;
        const int n = groups * VECTOR;
        take_all(inputs, start, m, n, &room, &in);
        for (int c = 0; c < fields; c++) {
            const int direct = m == n && outputs[c].step == sizeof(double);
            out[c] = direct ? (double *)(outputs[c].data + start * (ptrdiff_t)sizeof(double)) : results[c];
        }
        if (fields > 1 && (start == 0 || inputs[DISCOUNT].step != 0))
            stage_rate(n, &in, rate);
        run_stages(n, &in, &lanes, rate, fields, out);
        for (int c = 0; c < fields; c++)
            if (out[c] == results[c])
                for (int i = 0; i < m; i++)
                    *(double *)(outputs[c].data + (start + i) * outputs[c].step) = results[c][i];
        if (lanes.any_odd)
            for (int i = 0; i < m; i++)
                if (lanes.odd_one[i]) {
                    double own[10];
                    odd_values(in.forward[i], in.strike[i], in.expiry[i], in.fourth[i], in.call[i] != 0.0,
                               in.discount[i], fields, own);
                    for (int c = 0; c < fields; c++)
                        *(double *)(outputs[c].data + (start + i) * outputs[c].step) = own[c];
                }
    }
}

static void all_values(ptrdiff_t count, const black_column *inputs, const black_column *outputs, int fields)
{
    if (fields == 1)
        values(count, inputs, outputs, 1);
    else if (fields == 6)
        values(count, inputs, outputs, 6);
    else
        values(count, inputs, outputs, 10);
}

LANE void run_iv_stages(int m, int n, int vector, const stage_inputs *in, iv_lanes *lanes, double *out)
{
    iv_prepare(n, in, lanes);
    iv_guess(n, lanes);
    if (vector > 1 && lanes->any_series && lanes->any_direct)
        iv_solve_apart(m, vector, lanes);
    else
        iv_solve(n, lanes);
    if (lanes->any_more)
        iv_further(m, vector, lanes);
    iv_finish(n, in, lanes, out);
}

static void implied_vol(
    ptrdiff_t count, const black_column *inputs, const black_column *out, const black_column *status)
{
    block_room room;
    iv_lanes lanes;
    stage_inputs in;
    double results[BLOCK] ALIGNED;
    fill_constants(inputs, count < BLOCK ? (int)((count + VECTOR - 1) / VECTOR) * VECTOR : BLOCK, &room);
    for (ptrdiff_t start = 0; start < count; start += BLOCK) {
        const int m = count - start < BLOCK ? (int)(count - start) : BLOCK, groups = (m + VECTOR - 1) / VECTOR;
        const int n = groups * VECTOR;
        take_all(inputs, start, m, n, &room, &in);
        run_iv_stages(m, n, VECTOR, &in, &lanes, results);
        for (int i = 0; i < m; i++) {
            *(double *)(out->data + (start + i) * out->step) = results[i];
            *(unsigned char *)(status->data + (start + i) * status->step) = BLACK_OK;
        }
        if (lanes.any_odd)
            for (int i = 0; i < m; i++)
                if (lanes.odd_one[i])
                    *(double *)(out->data + (start + i) * out->step) = black_implied_vol(
                        in.fourth[i], in.forward[i], in.strike[i], in.expiry[i], in.call[i] != 0.0, in.discount[i],
                        (unsigned char *)(status->data + (start + i) * status->step));
    }
}

static double implied_vol_one(double price, double forward, double strike, double expiry, int is_call,
                              double discount, unsigned char *status)
{
    iv_lanes lanes;
    const double flag = is_call ? 1.0 : 0.0;
    const stage_inputs in = {&forward, &strike, &expiry, &price, &discount, &flag};
    double vol;
    run_iv_stages(1, 1, 1, &in, &lanes, &vol);
    *status = BLACK_OK;
    return lanes.odd_one[0] ? black_implied_vol(price, forward, strike, expiry, is_call, discount, status) : vol;
}

const black_kernel NAME(black_kernel_, BLACK_TARGET) = {
    TEXT(BLACK_TARGET), all_values, implied_vol, values_one, implied_vol_one};
