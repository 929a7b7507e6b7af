// SPDX-License-Identifier: MIT
/* Small matrix products on packed tiles, in the vocabulary of attention_simd.h. Included once for each set. Tiles consist of
 * whole register blocks: rows padded to MR, columns to VL, both with zeros. */
#ifndef ATTENTION_MR
#define ATTENTION_MR 4  /* rows of a register block; it is NR vectors wide */
#define PANEL (NR * VL) /* columns */

#define block ATTENTION_NAME(block)
#define block_of ATTENTION_NAME(block_of)
#define accumulate ATTENTION_NAME(accumulate)

/* What a product does to c: c = ab, c += ab, or c[m,:] = scale[m] c[m,:] + ab. */
enum { PRODUCT_SET, PRODUCT_ADD, PRODUCT_SCALE };

enum { PREFETCH_ROWS = 16 };

/* Prefetches `bytes` at p. Rows are a whole activation row apart, too far for hardware prefetching. */
static inline void prefetch_row(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += BB_ALIGN) __builtin_prefetch((const char *)p + i);
}
#endif

/* One register block. Element (m, k) of a is at a[m * a_row + k * a_k_stride], of b at b[k * PANEL + n]. nr and mode are
 * constants. */
INLINE void block(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_k_stride, const float *b, int64_t k_steps,
                  int nr, int mode, const float *scale) {
    vf acc[ATTENTION_MR][NR];
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) {
            if (mode == PRODUCT_SET) acc[m][n] = vset1(0.0f);
            if (mode == PRODUCT_ADD) acc[m][n] = vload(c + m * ldc + n * VL);
            if (mode == PRODUCT_SCALE) acc[m][n] = vload(c + m * ldc + n * VL) * vset1(scale[m]);
        }
    for (int64_t k = 0; k < k_steps; k++) {
        vf right[NR];
        for (int n = 0; n < nr; n++) right[n] = vload(b + n * VL);
        for (int m = 0; m < ATTENTION_MR; m++) {
            vf left = vset1(a[m * a_row]);
            for (int n = 0; n < nr; n++) acc[m][n] = vfma(left, right[n], acc[m][n]);
        }
        a += a_k_stride;
        b += PANEL;
    }
    for (int m = 0; m < ATTENTION_MR; m++)
        for (int n = 0; n < nr; n++) vstore(c + m * ldc + n * VL, acc[m][n]);
}

/* The same for any width 1 <= nr <= NR. */
INLINE void block_of(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_k_stride, const float *b, int64_t k_steps,
                     int64_t nr, int mode, const float *scale) {
    switch (nr) {
    case 1: block(c, ldc, a, a_row, a_k_stride, b, k_steps, 1, mode, scale); break;
    case 2: block(c, ldc, a, a_row, a_k_stride, b, k_steps, 2, mode, scale); break;
#if NR > 2
    case 3: block(c, ldc, a, a_row, a_k_stride, b, k_steps, 3, mode, scale); break;
    case 4: block(c, ldc, a, a_row, a_k_stride, b, k_steps, 4, mode, scale); break;
#endif
    default: break;
    }
}

/* c (rows, columns) from a (rows, K) and b (K, columns), where only k in [m - upper, m + lower] contribute to row m; others may
 * be skipped. Element (m, k) of a is at a[m / VL * a_panel + m % VL * a_row + k * a_k_stride]; b is in panels of b_rows rows.
 * rows % MR == 0, columns % VL == 0; `k_steps` is K. */
INLINE void accumulate(float *c, int64_t ldc, const float *a, int64_t a_panel, int64_t a_row, int64_t a_k_stride,
                       const float *b, int64_t b_rows, int64_t rows, int64_t columns, int64_t k_steps, int64_t upper,
                       int64_t lower, int mode, const float *scale) {
    for (int64_t n = 0; n < columns; n += PANEL) {
        int64_t nr = bb_clamp((columns - n) / VL, 1, NR);
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t first = bb_clamp(m - upper, 0, k_steps);
            int64_t last = bb_clamp(m + lower + ATTENTION_MR, 0, k_steps);
            if (first >= last) continue;
            block_of(c + m * ldc + n, ldc, a + m / VL * a_panel + m % VL * a_row + first * a_k_stride, a_row, a_k_stride,
                     b + n * b_rows + first * PANEL, last - first, nr, mode, mode == PRODUCT_SCALE ? scale + m : NULL);
        }
    }
}

/* A right operand (K, N) is packed in panels of PANEL columns: element (k, n) at (n / PANEL * k_steps + k) * PANEL + n %
 * PANEL. */
