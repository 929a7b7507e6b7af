/* Packing of bf16 rows for the products of attention_gemm.h. Included once for each set.
 * src is (rows, D) with a row stride; rows up to `padded` become zeros.
 * SPDX-License-Identifier: MIT */
#ifndef ATTENTION_PACK
#define ATTENTION_PACK
#define load_row_words ATTENTION_NAME(load_row_words)
#define store_row_words ATTENTION_NAME(store_row_words)
#define pack_two ATTENTION_NAME(pack_two)
#define pack_pairs ATTENTION_NAME(pack_pairs)
#define pack_transposed ATTENTION_NAME(pack_transposed)
#endif

#if PER_WORD == 2
/* n elements of a row, up to VL words; the rest zero. A masked store is slow on some processors: not where n is enough. */
INLINE wv load_row_words(const bb_bf16 *p, int64_t n) {
    return n >= 2 * VL ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(n > 0 ? (1u << n) - 1 : 0, p);
}
INLINE void store_row_words(word *p, wv x, int64_t n) {
    if (n >= 2 * VL)
        _mm512_storeu_si512(p, x);
    else
        _mm512_mask_storeu_epi16(p, (1u << n) - 1, x);
}

/* The first `rows` of two rows, zeros for the others: to dst_rows (2, D) when not NULL, and paired to dst, where word d pairs
 * the rows at column d, up to D rounded up to VL. */
INLINE void pack_two(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t D) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36,
                                         4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t d = 0; d < D; d += 2 * VL) {
        __m512i x0 = load_row_words(src + d, rows > 0 ? D - d : 0), x1 = load_row_words(src + stride + d, rows > 1 ? D - d : 0);
        word *to = dst + d / PANEL * steps * PANEL + d % PANEL;
        if (dst_rows) {
            store_row_words(dst_rows + d / 2, x0, D - d);
            store_row_words(dst_rows + (D + d) / 2, x1, D - d);
        }
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(x0, low, x1));
        if (D - d > VL) _mm512_storeu_si512(to + VL, _mm512_permutex2var_epi16(x0, high, x1));
    }
}

/* dst_rows: (padded, D) row by row, or NULL. dst: panels (padded, D), rows paired; steps: words of a panel. padded is even. */
KERNEL void pack_pairs(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows,
                       int64_t padded, int64_t D) {
    size_t row_bytes = (size_t)D * sizeof *src;
    for (int64_t r = 0; r < padded; r += 2) {
        if (r + PREFETCH_ROWS + 1 < rows) {
            prefetch_row(src + (r + PREFETCH_ROWS) * stride, row_bytes);
            prefetch_row(src + (r + PREFETCH_ROWS + 1) * stride, row_bytes);
        }
        pack_two(dst_rows ? dst_rows + r * D / 2 : NULL, dst + r / 2 * PANEL, steps, src + r * stride, stride, rows - r, D);
    }
}

/* dst: panels (D, padded): word (d, r) is the pair 2d, 2d+1 of row r. padded % 16 == 0. */
KERNEL void pack_transposed(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r += 16) {
        for (int64_t i = r + 16; i < r + 32 && i < rows; i++) prefetch_row(src + i * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < D / 2; d += 16) {
            int64_t words = clamp_to(D / 2 - d, 0, 16);
            __mmask16 mask = (__mmask16)((1u << words) - 1);
            const bb_bf16 *from = src + r * stride + 2 * d;
            word *to = dst + (r / PANEL * (D / 2) + d) * PANEL + r % PANEL;
            __m512i x[16];
            if (r + 16 <= rows)
                for (int i = 0; i < 16; i++, from += stride) x[i] = _mm512_maskz_loadu_epi32(mask, from);
            else
                for (int i = 0; i < 16; i++, from += stride) x[i] = _mm512_maskz_loadu_epi32(r + i < rows ? mask : 0, from);
            bb_transpose16(x);
            if (words == 16)
                for (int64_t i = 0; i < 16; i++) _mm512_storeu_si512(to + i * PANEL, x[i]);
            else
                for (int64_t i = 0; i < words; i++) _mm512_storeu_si512(to + i * PANEL, x[i]);
        }
    }
}
#else
/* dst_rows: (padded, D) row by row, or NULL. dst: panels (padded, D); steps: words of a panel. */
KERNEL void pack_pairs(word *dst_rows, word *dst, int64_t steps, const bb_bf16 *src, int64_t stride, int64_t rows,
                       int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t n = 0; n < D; n += PANEL) {
            int64_t some = r < rows ? clamp_to(D - n, 0, PANEL) : 0;
            float x[PANEL] = {0};
            for (int64_t i = 0; i < some; i++) x[i] = bb_f32_from_bf16(src[r * stride + n + i]);
            memcpy(dst + n * steps + r * PANEL, x, sizeof x);
            if (dst_rows) memcpy(dst_rows + r * D + n, x, (size_t)clamp_to(D - n, 0, PANEL) * sizeof *x);
        }
}

/* dst: panels (D, padded): element (d, r) is element d of row r. */
KERNEL void pack_transposed(word *dst, const bb_bf16 *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t d = 0; d < D; d++)
            dst[(r / PANEL * D + d) * PANEL + r % PANEL] = r < rows ? bb_f32_from_bf16(src[r * stride + d]) : 0.0f;
}
#endif
