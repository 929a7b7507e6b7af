// SPDX-License-Identifier: MIT
/* oneDNN multiplies dense matrices alone. The first columns of a symmetric matrix are its first rows, which are dense. */
#include <string.h>

#include "core/math.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/cpu/optimizer/muon.h"

enum { ROW_TILE = 96 };

static size_t room(bb_device *dev, int64_t m, int64_t n) {
    (void)dev;
    (void)m;
    (void)n;
    return 0;
}

/* The lower triangle of c (m,m) = a (m,k) bT, b (m,k), in tiles of rows. */
static void lower_product(const bb_muon_work *w, float *c, const float *a, const float *b, int64_t k) {
    int64_t m = w->m, tiles = bb_ceil_div(m, ROW_TILE);
    for (int64_t i = 0; i < tiles; i++) { /* primitives are created outside of parallel regions */
        int64_t end = bb_min((i + 1) * ROW_TILE, m);
        if (!bb_gemm_get(w->dev, &(bb_gemm_shape){.b_transposed = true, .m = end - i * ROW_TILE, .n = end, .k = k})) return;
    }
#pragma omp parallel for num_threads(w->dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = tiles - 1; i >= 0; i--) {
        int64_t row = i * ROW_TILE, end = bb_min(row + ROW_TILE, m), rows = end - row;
        const bb_gemm_op *op =
            bb_gemm_get(w->dev, &(bb_gemm_shape){.b_transposed = true, .m = rows, .n = end, .k = k}); /* exists */
        float *buffer = bb_cpu_scratch(w->dev, (size_t)(rows * end) * sizeof *buffer);
        if (!op || !buffer) continue;
        bb_gemm_run(w->dev, op, buffer, a + row * k, b);
        for (int64_t r = 0; r < rows; r++) memcpy(c + (row + r) * m, buffer + r * end, (size_t)end * sizeof *c);
    }
}

static void gram(const bb_muon_work *w) {
    const float *x = w->x;
    if (w->tall) {
        bb_muon_transpose(w->dev, w->y, x, w->n, w->m);
        x = w->y;
    }
    lower_product(w, w->a, x, x, w->n);
}

static void multiply(const bb_muon_work *w, float *out, const float *left, const float *right) {
    lower_product(w, out, left, right, w->m);
}

static const void *input_rows(const void *context, int64_t m0, int64_t rows, void *buffer) {
    const bb_muon_work *w = context;
    (void)rows;
    (void)buffer;
    return (w->tall ? w->x : w->q) + m0 * w->m;
}

static void output_rows(const void *context, int64_t m0, int64_t rows, const void *c) {
    const bb_muon_work *w = context;
    int64_t columns = w->tall ? w->m : w->n;
    memcpy(w->y + m0 * columns, c, (size_t)(rows * columns) * sizeof(float));
}

static void apply(bb_muon_work *w) {
    bb_gemm_shape shape = {.n = w->tall ? w->m : w->n, .k = w->m};
    bb_gemm_rows(w->dev, &shape, w->tall ? w->n : w->m, w->tall ? w->q : w->x, input_rows, output_rows, w);
    float *x = w->y;
    w->y = w->x;
    w->x = x;
}

const bb_muon_set bb_muon_gemm = {
    .runs = {BB_MUON_ITERATIONS}, .room = room, .gram = gram, .multiply = multiply, .apply = apply};
