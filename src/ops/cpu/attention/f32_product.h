// SPDX-License-Identifier: MIT
/* Products of f32 in registers, for both passes of attention. A right operand is in panels of 16 columns: element (k, n) at
 * n / 16 * b_panel + k * b_step + n % 16. */
#ifndef BB_OPS_CPU_F32_PRODUCT_H
#define BB_OPS_CPU_F32_PRODUCT_H

#include "core/math.h"
#include "ops/cpu/vector/lanes.h"

/* A register block: MR rows, NV vectors of columns. */
#if defined(__AVX512F__)
enum { MR = 6, NV = 4 };
#elif defined(__AVX2__)
enum { MR = 6, NV = 2 };
#elif defined(__aarch64__)
enum { MR = 4, NV = 4 };
#else
enum { MR = 2, NV = 4 };
#endif
enum { PANEL = 16, NC = NV * VL, WIDE = 8 /* vectors of a single row */ };

/* Vectors of one, two and three panels; sums of a register block. */
enum { ACC = MR * NV > WIDE ? MR *NV : WIDE };
enum { NV1 = VECTORS, NV2 = 2 * VECTORS < NV ? 2 * VECTORS : NV, NV3 = 3 * VECTORS < NV ? 3 * VECTORS : NV };

/* Element (m, k) of a is at m * a_stride + k * a_step. */
typedef struct operands {
    const float *a;
    int64_t a_stride, a_step;
    const float *b;
    int64_t b_step, b_panel, k_steps;
} operands;

/* Panels of a register block that begins `columns` before the end; 0 for all of them. */
LANES_INLINE int panels_left(int64_t columns) { return columns > NC - PANEL ? 0 : (int)bb_ceil_div(columns, PANEL); }

/* acc (rows, nv) = the product; rows and nv are constants. */
LANES_INLINE void product(vf *acc, operands x, int rows, int nv) {
    LANES_EACH(i, rows * nv) acc[i] = vset1(0.0f);
    for (int64_t k = 0; k < x.k_steps; k++, x.b += x.b_step) {
        vf right[WIDE];
        LANES_EACH(n, nv) right[n] = vload(x.b + n / VECTORS * x.b_panel + n % VECTORS * VL);
        LANES_EACH(m, rows) {
            vf left = vset1(x.a[m * x.a_stride + k * x.a_step]);
            LANES_EACH(n, nv) acc[m * nv + n] = vfma(left, right[n], acc[m * nv + n]);
        }
    }
}

#endif
