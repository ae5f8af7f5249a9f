/* Columns of any step as blocks of doubles: a whole block of a contiguous column is read where it lies, any other is
 * copied, and a last, shorter block is filled up to whole vectors with copies of its last element.
 */
#ifndef NATIVE_BLACK_COLUMNS_H
#define NATIVE_BLACK_COLUMNS_H

#include "black_kernel.h"
#include "black_near.h"

#define VECTOR 8 /* lanes; no instruction set has more */

enum { FORWARD, STRIKE, EXPIRY, FOURTH, CALL, DISCOUNT, INPUTS };

typedef struct {
    double copies[INPUTS][NEAR_ROW] ALIGNED;
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
static inline void fill_constants(const black_column *inputs, int n, block_room *room)
{
    for (int c = 0; c < INPUTS; c++)
        if (inputs[c].step == 0) {
            const double value = c == CALL ? truth(&inputs[c], 0) : number(&inputs[c], 0);
            for (int i = 0; i < n; i++)
                room->copies[c][i] = value;
        }
}

/* ``m`` elements from ``start`` on, filled up to ``n``. */
LANE const double *take(const black_column *column, ptrdiff_t start, int m, int n, double *restrict copy)
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

LANE const double *take_flags(const black_column *column, ptrdiff_t start, int m, int n, double *restrict copy)
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

static inline void take_all(const black_column *inputs, ptrdiff_t start, int m, int n, block_room *room, stage_inputs *in)
{
    in->forward = take(&inputs[FORWARD], start, m, n, room->copies[FORWARD]);
    in->strike = take(&inputs[STRIKE], start, m, n, room->copies[STRIKE]);
    in->expiry = take(&inputs[EXPIRY], start, m, n, room->copies[EXPIRY]);
    in->fourth = take(&inputs[FOURTH], start, m, n, room->copies[FOURTH]);
    in->discount = take(&inputs[DISCOUNT], start, m, n, room->copies[DISCOUNT]);
    in->call = take_flags(&inputs[CALL], start, m, n, room->copies[CALL]);
}

/* Writes what does not lie in its place yet. */
LANE void put(const double *restrict results, ptrdiff_t start, int m, const black_column *column)
{
    char *data = column->data + start * column->step;
    if (results == (const double *)data)
        return;
    if (column->step == sizeof(double))
        memcpy(data, results, (size_t)m * sizeof(double));
    else
        for (int i = 0; i < m; i++)
            *(double *)(data + i * column->step) = results[i];
}

/* Where in the first ``m`` lanes ``far`` is 1; returns how many they are. */
static inline int find_far(int m, const uint64_t *far, int *place)
{
    int found = 0;
    for (int i = 0; i < m; i++) {
        place[found] = i;
        found += (int)far[i];
    }
    return found;
}

/* The ``found`` elements at ``place`` as a block of their own, filled up to whole vectors; returns its length. */
static inline int gather(const stage_inputs *in, const int *place, int found, int vector, block_room *room,
                         stage_inputs *few)
{
    const int n = (found + vector - 1) / vector * vector;
    const double *const from[INPUTS] = {in->forward, in->strike, in->expiry, in->fourth, in->call, in->discount};
    for (int c = 0; c < INPUTS; c++)
        for (int i = 0; i < n; i++)
            room->copies[c][i] = from[c][place[i < found ? i : found - 1]];
    few->forward = room->copies[FORWARD];
    few->strike = room->copies[STRIKE];
    few->expiry = room->copies[EXPIRY];
    few->fourth = room->copies[FOURTH];
    few->call = room->copies[CALL];
    few->discount = room->copies[DISCOUNT];
    return n;
}

#endif
