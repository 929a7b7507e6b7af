/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "core/arena.h"
#include "ops/cpu/simd.h"
#include "ops/cpu/ternary.h"

enum { MEAN_TILE = 65536 };

static const bb_gemm_op *slab_op(bb_device *dev, int64_t rows, int64_t K) {
    return bb_gemm_get(dev, &(bb_gemm_shape){.kind = BB_GEMM_INT8, .m = 1, .n = rows, .k = K, .a_row = K, .a_col = 1, .c_row = rows});
}

bb_ternary_parts bb_ternary_locate(bb_device *dev, void *data, int64_t N, int64_t K) {
    bb_ternary_parts p = {.slabs = (N + BB_SLAB - 1) / BB_SLAB};
    const bb_gemm_op *op = slab_op(dev, bb_slab_rows(N, 0), K);
    bb_arena arena = {.base = data};
    p.slab_bytes = op ? bb_gemm_packed_bytes(op) : 0;
    p.packed = bb_arena_take(&arena, p.slab_bytes * (size_t)p.slabs);
    p.rows = bb_arena_take(&arena, (size_t)(N * ((K + 3) / 4)));
    p.offsets = bb_arena_take(&arena, (size_t)N * sizeof *p.offsets);
    p.scales = bb_arena_take(&arena, (size_t)N * sizeof *p.scales);
    p.bytes = arena.used;
    return p;
}

size_t bb_cpu_ternary_bytes(bb_device *dev, int64_t N, int64_t K) { return bb_ternary_locate(dev, NULL, N, K).bytes; }

BB_SIMD_INLINE void abs_sum_body(double *sum, const float *w, int64_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += (double)fabsf(w[i]);
    *sum = s;
}
BB_SIMD_VARIANTS(abs_sum, (double *sum, const float *w, int64_t n), (sum, w, n))

/* max(mean|w|, 1e-8): tiles of fixed size, summed in order. */
static float mean_abs(bb_device *dev, const float *w, int64_t n) {
    int64_t tiles = (n + MEAN_TILE - 1) / MEAN_TILE;
    double *sums = bb_gemm_shared(dev, (size_t)tiles * sizeof *sums), total = 0;
    if (!sums) return 0;
    abs_sum_kernel *kernel = abs_sum_for(bb_cpu_of(dev)->level);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) kernel(&sums[i], w + i * MEAN_TILE, n - i * MEAN_TILE < MEAN_TILE ? n - i * MEAN_TILE : MEAN_TILE);
    for (int64_t i = 0; i < tiles; i++) total += sums[i];
    return (float)fmax(total / (double)n, 1e-8);
}

/* q = round_half_even(clip(w / g, -1, 1)), a true division as in ref; *sum: of the row. */
BB_SIMD_INLINE void quantize_row_body(int8_t *q, int32_t *sum, const float *w, float g, int64_t K) {
    int32_t s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t k = 0; k < K; k++) {
        float r = w[k] / g;
        r = r > 1.0f ? 1.0f : r;
        r = r < -1.0f ? -1.0f : r;
        int32_t v = bb_simd_round(r);
        q[k] = (int8_t)v;
        s += v;
    }
    *sum = s;
}
BB_SIMD_VARIANTS(quantize_row, (int8_t *q, int32_t *sum, const float *w, float g, int64_t K), (q, sum, w, g, K))

static void pack_two_bits(uint8_t *out, const int8_t *q, int64_t K) {
    int64_t whole = K / 4;
    for (int64_t i = 0; i < whole; i++) {
        uint32_t v;
        memcpy(&v, q + 4 * i, sizeof v);
        v = ((v & 0x03030303u) + 0x01010101u) & 0x03030303u; /* value + 1 in each byte; the mask first, so that nothing carries */
        out[i] = (uint8_t)(v | v >> 6 | v >> 12 | v >> 18);
    }
    if (K % 4) {
        unsigned last = 0;
        for (int64_t j = 0; j < K % 4; j++) last |= (unsigned)(q[4 * whole + j] + 1) << (2 * j);
        out[whole] = (uint8_t)last;
    }
}

void bb_cpu_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w) {
    bb_ternary_parts p = bb_ternary_locate(dev, t->data, t->n, t->k);
    int64_t K = t->k, row_bytes = (K + 3) / 4, first = 0;
    for (int i = 0; i < t->segments; i++) {
        t->scale[i] = mean_abs(dev, w + first * K, (t->segment_end[i] - first) * K);
        for (int64_t n = first; n < t->segment_end[i]; n++) p.scales[n] = t->scale[i];
        first = t->segment_end[i];
    }
    int8_t *q = bb_gemm_shared(dev, (size_t)(BB_SLAB * K));
    if (!q) return;
    quantize_row_kernel *kernel = quantize_row_for(bb_cpu_of(dev)->level);
    for (int64_t slab = 0; slab < p.slabs; slab++) {
        int64_t n0 = slab * BB_SLAB, rows = bb_slab_rows(t->n, n0);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            int64_t n = n0 + r;
            int32_t sum;
            kernel(q + r * K, &sum, w + n * K, p.scales[n], K);
            p.offsets[n] = 128 * sum;
            pack_two_bits(p.rows + n * row_bytes, q + r * K, K);
        }
        const bb_gemm_op *op = slab_op(dev, rows, K);
        if (op) bb_gemm_pack(dev, op, p.packed + (size_t)slab * p.slab_bytes, q, 1, K);
    }
}

/* What the four values of a byte are, in each type. */
static int8_t byte_int8[256][4];
static bb_bf16 byte_bf16[256][4];
static float byte_f32[256][4];

__attribute__((constructor)) static void fill_tables(void) {
    for (int b = 0; b < 256; b++)
        for (int j = 0; j < 4; j++) {
            int v = (b >> (2 * j) & 3) - 1;
            byte_int8[b][j] = (int8_t)v;
            byte_f32[b][j] = (float)v;
            byte_bf16[b][j] = bb_bf16_from_f32((float)v);
        }
}

static void expand_row(uint8_t *out, const uint8_t *row, int64_t K, const void *table, size_t element) {
    size_t four = 4 * element;
    const uint8_t *values = table;
    for (int64_t i = 0; i < K / 4; i++) memcpy(out + (size_t)i * four, values + row[i] * four, four);
    memcpy(out + (size_t)(K / 4) * four, values + row[(K - 1) / 4] * four, (size_t)(K % 4) * element);
}

void bb_ternary_expand(const bb_ternary_parts *p, int64_t K, int64_t first, int64_t n, bb_dtype dtype, void *out) {
    const void *table = dtype == BB_I8 ? (const void *)byte_int8 : dtype == BB_BF16 ? (const void *)byte_bf16 : (const void *)byte_f32;
    size_t element = bb_dtype_bytes(dtype);
    for (int64_t r = 0; r < n; r++)
        expand_row((uint8_t *)out + (size_t)(r * K) * element, p->rows + (first + r) * ((K + 3) / 4), K, table, element);
}

void bb_cpu_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t) {
    bb_ternary_parts p = bb_ternary_locate(dev, t->data, t->n, t->k);
    bb_ternary_expand(&p, t->k, 0, t->n, BB_I8, q);
}

BB_SIMD_INLINE void clip_row_body(float *dw, const float *w, float g, int64_t K) {
#pragma omp simd
    for (int64_t k = 0; k < K; k++) dw[k] = fabsf(w[k] / g) > 1.0f ? 0.0f : dw[k];
}
BB_SIMD_VARIANTS(clip_row, (float *dw, const float *w, float g, int64_t K), (dw, w, g, K))

void bb_cpu_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t) {
    bb_ternary_parts p = bb_ternary_locate(dev, t->data, t->n, t->k);
    clip_row_kernel *kernel = clip_row_for(bb_cpu_of(dev)->level);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (t->n * t->k > BB_SIMD_SERIAL)
    for (int64_t n = 0; n < t->n; n++) kernel(dw + n * t->k, w + n * t->k, p.scales[n], t->k);
}
