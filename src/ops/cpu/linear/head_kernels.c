// SPDX-License-Identifier: MIT
/* The head's products: both sides are read in place, along C. Compiled once for each instruction set. */
#include <stdbool.h>

#include "core/math.h"
#include "ops/cpu/linear/head_set.h"
#include "ops/cpu/vector/lanes.h"

/* A register block has ROWS rows and COLUMNS symbols; a single row has MANY. */
#if defined(__AVX512F__)
enum { ROWS = 4, COLUMNS = 6, MANY = 8 };
#elif defined(__AVX2__)
enum { ROWS = 3, COLUMNS = 2, MANY = 4 };
#else
enum { ROWS = 1, COLUMNS = 2, MANY = 2 };
#endif
enum { TILE = 12 /* rows that stay in the first-level cache while all symbols pass */ };

/* Rows of h and of e from column c on. */
typedef struct block_columns {
    const float *h, *e;
    int64_t stride, left; /* columns to the end */
} block_columns;

/* Adds the products of SUMS columns, or of those that are left. rows, columns and whole are constants. */
LANES_INLINE void add_columns(vsums *sums, block_columns x, int rows, int columns, bool whole) {
    LANES_EACH(i, VECTORS) {
        int64_t left = whole ? VL : bb_clamp(x.left - i * VL, 0, VL);
        vf h[ROWS], e[MANY];
        LANES_EACH(r, rows) h[r] = whole ? vload(x.h + r * x.stride + i * VL) : vload_first(x.h + r * x.stride + i * VL, left);
        LANES_EACH(n, columns)
        e[n] = whole ? vload(x.e + n * x.stride + i * VL) : vload_first(x.e + n * x.stride + i * VL, left);
        LANES_EACH(r, rows) LANES_EACH(n, columns) sums[r * columns + n].v[i] = vfma(h[r], e[n], sums[r * columns + n].v[i]);
    }
}

/* One register block; rows and columns are constants. */
LANES_INLINE void block(const bb_head_product *p, int64_t m, int64_t v, int rows, int columns) {
    block_columns x = {p->h + m * p->C, p->e + v * p->C, p->C, p->C};
    vsums sums[24];
    LANES_EACH(i, rows * columns) sums[i] = vsums_zero();
    for (; x.left >= SUMS; x.left -= SUMS, x.h += SUMS, x.e += SUMS) add_columns(sums, x, rows, columns, true);
    if (x.left > 0) add_columns(sums, x, rows, columns, false);
    LANES_EACH(r, rows) LANES_EACH(n, columns) p->logits[(m + r) * p->V + v + n] = vsum(sums[r * columns + n].v);
}

LANES_INLINE void row_blocks(const bb_head_product *p, int64_t m0, int64_t m1, int64_t v, int columns) {
    int64_t m = m0;
    for (; m + ROWS <= m1; m += ROWS) block(p, m, v, ROWS, columns);
    for (; m < m1; m++) block(p, m, v, 1, columns);
}

static void product(const bb_head_product *p, int64_t m0, int64_t m1, int64_t v0, int64_t v1) {
    for (; m0 < m1; m0 += TILE) {
        int64_t end = bb_min(m0 + TILE, m1), v = v0;
        if (end - m0 == 1)
            for (; v + MANY <= v1; v += MANY) block(p, m0, v, 1, MANY);
        for (; v + COLUMNS <= v1; v += COLUMNS) row_blocks(p, m0, end, v, COLUMNS);
        for (; v < v1; v++) row_blocks(p, m0, end, v, 1);
    }
}

const bb_head_set SET_NAME(bb_head) = {.product = product};
