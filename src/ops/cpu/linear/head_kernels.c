// SPDX-License-Identifier: MIT
/* The head's products: both sides are read in place, along C. Compiled once for each instruction set. */
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

/* One register block; rows and columns are constants. */
LANES_INLINE void block(const bb_head_product *p, int64_t m, int64_t v, int rows, int columns) {
    const float *h = p->h + m * p->C, *e = p->e + v * p->C;
    vsums sums[24];
    int64_t c = 0;
    LANES_EACH(i, rows * columns) sums[i] = vsums_zero();
    for (; c < p->C; c += SUMS) LANES_EACH(i, VECTORS) {
            int64_t at = c + i * VL, left = bb_clamp(p->C - at, 0, VL);
            vf x[ROWS], y[MANY];
            LANES_EACH(r, rows) x[r] = left == VL ? vload(h + r * p->C + at) : vload_first(h + r * p->C + at, left);
            LANES_EACH(n, columns)
            y[n] = left == VL ? vload(e + n * p->C + at) : vload_first(e + n * p->C + at, left);
            LANES_EACH(r, rows)
            LANES_EACH(n, columns) sums[r * columns + n].v[i] = vfma(x[r], y[n], sums[r * columns + n].v[i]);
        }
    LANES_EACH(r, rows)
    LANES_EACH(n, columns) p->logits[(m + r) * p->V + v + n] = vsum(sums[r * columns + n].v);
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
