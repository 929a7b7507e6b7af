// SPDX-License-Identifier: MIT
/* Register tiles of 6 rows by a panel's 64 columns, for vpdpbusd and vdpbf16ps. */
#ifndef BB_OPS_CPU_DOT_512_TILE_H
#define BB_OPS_CPU_DOT_512_TILE_H

#include "ops/cpu/linear/dot_512.h"
#include "ops/cpu/vector/dot_words.h"

/* 6 x 64 sums take 24 registers; 4 hold a k-step of the panel, one holds a row's 4 bytes. */
enum { ROWS = 6, VECTORS = 4, UNROLL = 4 };

typedef enum dot_kind { DOT_INT8, DOT_BF16 } dot_kind;

typedef __m512i sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 6") for (int r = 0; r < ROWS; r++) if (r < rows)
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)

INLINE void k_step(dot_kind kind, int rows, sums acc, const uint8_t *a, int64_t a_stride, const uint8_t *panel) {
    __m512i b[VECTORS];
    EACH_VECTOR(v) b[v] = _mm512_loadu_si512(panel + 64 * v);
    EACH_ROW(r) {
        int32_t four;
        memcpy(&four, a + r * a_stride, sizeof four);
        __m512i row = _mm512_set1_epi32(four);
        EACH_VECTOR(v) {
            if (kind == DOT_INT8)
                BB_DOT_BYTES_512(acc[r][v], b[v], row);
            else
                BB_DOT_BF16_512(acc[r][v], b[v], row);
        }
    }
}

typedef struct left_operand {
    const void *a;
    int64_t row_bytes, k_step_bytes; /* between rows, and between k-steps */
} left_operand;

/* acc += a * panel */
INLINE void multiply(dot_kind kind, int rows, sums acc, left_operand left, int64_t k_steps, const uint8_t *panel) {
    const uint8_t *a = left.a;
    int64_t i = 0;
    for (; i + UNROLL <= k_steps; i += UNROLL) {
        _Pragma("GCC unroll 4") for (int u = 0; u < UNROLL; u++)
            k_step(kind, rows, acc, a + u * left.k_step_bytes, left.row_bytes, panel + u * BB_DOT_K_STEP_BYTES);
        a += UNROLL * left.k_step_bytes;
        panel += UNROLL * BB_DOT_K_STEP_BYTES;
    }
    for (; i < k_steps; i++) {
        k_step(kind, rows, acc, a, left.row_bytes, panel);
        a += left.k_step_bytes;
        panel += BB_DOT_K_STEP_BYTES;
    }
}

/* Prefetches what store_row will add, while the product runs. */
INLINE void prefetch_row(const bb_dot_output *out, int64_t row) {
    const float *residual = out->residual + row * out->stride;
    EACH_VECTOR(v) _mm_prefetch((const char *)(residual + LANES * v), _MM_HINT_T0);
}

/* Stores one row of values; `whole`: all 64 columns are valid. */
INLINE void store_row(bool whole, const bb_dot_output *out, int64_t row, const __m512 values[VECTORS]) {
    int64_t at = row * out->stride;
    if (out->dtype == BB_F32) {
        float *y = (float *)out->y + at;
        EACH_VECTOR(v) {
            __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(out->columns, LANES * v);
            __m512 sum = values[v];
            if (out->residual) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, out->residual + at + LANES * v));
            if (whole)
                _mm512_storeu_ps(y + LANES * v, sum);
            else
                _mm512_mask_storeu_ps(y + LANES * v, lanes, sum);
        }
        return;
    }
    bb_bf16 *y = (bb_bf16 *)out->y + at;
    _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v += 2) {
        __m512i rounded = round_two(values[v], values[v + 1]);
        if (whole)
            _mm512_storeu_si512(y + LANES * v, rounded);
        else
            _mm512_mask_storeu_epi16(y + LANES * v, lanes32(out->columns, LANES * v), rounded);
    }
}

/* Calls tile(rows, whole, row) for 6 rows at a time. `rows` and `whole` are constants in each call, so that no registers are
 * used for missing rows. */
#define TILES(tile, rows, columns, ...)                                                                                        \
    do {                                                                                                                       \
        int64_t row = 0;                                                                                                       \
        if ((columns) == BB_DOT_COLUMNS)                                                                                       \
            for (; row + ROWS <= (rows); row += ROWS) tile(ROWS, true, row, __VA_ARGS__);                                      \
        for (; row < (rows); row += ROWS) switch ((rows)-row) {                                                                \
            case 1: tile(1, false, row, __VA_ARGS__); break;                                                                   \
            case 2: tile(2, false, row, __VA_ARGS__); break;                                                                   \
            case 3: tile(3, false, row, __VA_ARGS__); break;                                                                   \
            case 4: tile(4, false, row, __VA_ARGS__); break;                                                                   \
            case 5: tile(5, false, row, __VA_ARGS__); break;                                                                   \
            default: tile(ROWS, false, row, __VA_ARGS__); break;                                                               \
            }                                                                                                                  \
    } while (0)

#endif
