/* The block kernel of black.pyx: one table of functions for each instruction set, chosen at run time.
 *
 * A column is an array with a step in bytes (0: one value for all). Doubles, but for is_call and status: bytes.
 * Inputs are forward, strike, expiry_years, vol (the price, for implied_vol), is_call, discount, in this order.
 * Outputs must not overlap inputs. An element's result depends on its own inputs alone, to the bit.
 */
#ifndef NATIVE_BLACK_KERNEL_H
#define NATIVE_BLACK_KERNEL_H

#include <stddef.h>

typedef struct {
    char *data;
    ptrdiff_t step;
} black_column;

typedef struct {
    const char *name;
    /* fields: 1 (price), 6 (and five greeks), 8 (and vanna, volga) or 10 (charm, speed); one output column for each */
    void (*values)(ptrdiff_t count, const black_column *inputs, const black_column *outputs, int fields);
    void (*implied_vol)(
        ptrdiff_t count, const black_column *inputs, const black_column *out, const black_column *status);
    /* one option: the same bits as in an array */
    void (*values_one)(
        double forward, double strike, double expiry, double vol, int is_call, double discount, int fields, double *out);
    double (*implied_vol_one)(double price, double forward, double strike, double expiry, int is_call,
                              double discount, unsigned char *status);
} black_kernel;

/* The one in use; set by black_select. */
extern const black_kernel *black_active;

/* NULL: the best that this machine runs. 0, or -1 if there is no such target or this machine cannot run it. */
int black_select(const char *name);

/* Name of target i, best first, or NULL past the last; whether this machine runs it. */
const char *black_target_name(int i, int *runs);

#endif
