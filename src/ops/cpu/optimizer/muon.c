// SPDX-License-Identifier: MIT
#include "ops/cpu/optimizer/muon.h"

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum { TILE = 4096, SIDE = BB_MUON_BLOCK };

typedef struct momentum_constants {
    float mu, rest, scale; /* rest: 1 - mu; scale: of gradients */
} momentum_constants;

BB_SIMD_INLINE void momentum_tile_body(float *u, double *squares, const float *g, bb_bf16 *m, int64_t n,
                                       const momentum_constants *k) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * k->scale * k->rest, b = k->mu * bb_f32_from_bf16(m[i]) + gradient;
        m[i] = bb_bf16_from_f32(b);
        u[i] = gradient + k->mu * b;
        sum += (double)u[i] * (double)u[i];
    }
    *squares = sum;
}
BB_SIMD_VARIANTS(momentum_tile, (float *u, double *squares, const float *g, bb_bf16 *m, int64_t n, const momentum_constants *k),
                 (u, squares, g, m, n, k))

BB_SIMD_INLINE void scale_tile_body(float *x, float factor, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}
BB_SIMD_VARIANTS(scale_tile, (float *x, float factor, int64_t n), (x, factor, n))

BB_SIMD_INLINE void update_tile_body(float *p, const float *x, float kept, float lr, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) p[i] = p[i] * kept - lr * x[i];
}
BB_SIMD_VARIANTS(update_tile, (float *p, const float *x, float kept, float lr, int64_t n), (p, x, kept, lr, n))

/* p = b a + c p, for the columns up to the diagonal of row i; plus a on the diagonal */
BB_SIMD_INLINE void polynomial_row_body(float *p, const float *a, int64_t i) {
#pragma omp simd
    for (int64_t j = 0; j <= i; j++) p[j] = (float)BB_MUON_B * a[j] + (float)BB_MUON_C * p[j];
    p[i] += (float)BB_MUON_A;
}
BB_SIMD_VARIANTS(polynomial_row, (float *p, const float *a, int64_t i), (p, a, i))

BB_SIMD_INLINE void transpose_block_body(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t rows,
                                         int64_t columns) {
    for (int64_t i = 0; i < columns; i++)
        for (int64_t j = 0; j < rows; j++) y[i * y_stride + j] = x[j * x_stride + i];
}
BB_SIMD_VARIANTS(transpose_block, (float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t rows, int64_t columns),
                 (y, y_stride, x, x_stride, rows, columns))

static transpose_block_kernel *transpose_for(const bb_cpu *cpu) {
    return cpu->kernels.muon->transpose ? cpu->kernels.muon->transpose : transpose_block_for(cpu->kernels.simd);
}

void bb_muon_transpose(bb_device *dev, float *y, const float *x, int64_t rows, int64_t columns) {
    transpose_block_kernel *transpose = transpose_for(bb_cpu_of(dev));
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (rows * columns > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < columns; i += SIDE)
        for (int64_t j = 0; j < rows; j += SIDE)
            transpose(y + i * rows + j, rows, x + j * columns + i, columns, bb_min(rows - j, SIDE), bb_min(columns - i, SIDE));
}

/* Completes symmetric matrices from their lower triangles. */
static void mirror(const bb_muon_work *w, float *x) {
    transpose_block_kernel *transpose = transpose_for(bb_cpu_of(w->dev));
    int64_t m = w->m, blocks = bb_ceil_div(m, SIDE);
#pragma omp parallel for num_threads(w->dev->threads) schedule(dynamic) if (m * m > BB_SIMD_SERIAL)
    for (int64_t b = blocks - 1; b >= 0; b--) {
        int64_t i = b * SIDE, rows = bb_min(m - i, SIDE);
        for (int64_t j = 0; j < i; j += SIDE) transpose(x + j * m + i, m, x + i * m + j, m, rows, SIDE);
        for (int64_t r = i; r < i + rows; r++)
            for (int64_t c = i; c < r; c++) x[c * m + r] = x[r * m + c];
    }
}

static void multiply(const bb_muon_work *w, const bb_muon_set *set, float *out, const float *left, const float *right) {
    set->multiply(w, out, left, right);
    mirror(w, out);
}

/* p = a I + b A + c A^2 */
static void polynomial(const bb_muon_work *w, const bb_muon_set *set) {
    polynomial_row_kernel *row = polynomial_row_for(bb_cpu_of(w->dev)->kernels.simd);
    set->multiply(w, w->p, w->a, w->a);
#pragma omp parallel for num_threads(w->dev->threads) schedule(static, 1) if (w->m * w->m > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < w->m; i++) row(w->p + i * w->m, w->a + i * w->m, i);
    mirror(w, w->p);
}

static void swap(float **a, float **b) {
    float *other = *a;
    *a = *b;
    *b = other;
}

static void iterate(bb_muon_work *w, const bb_muon_set *set, int iterations) {
    set->gram(w);
    mirror(w, w->a);
    for (int i = 0; i < iterations; i++) {
        bool last = i == iterations - 1;
        polynomial(w, set);
        if (!last) { /* A = (P A) P, from P as it is before Q takes its place */
            multiply(w, set, w->t, w->p, w->a);
            multiply(w, set, w->a, w->t, w->p);
        }
        if (i == 0) {
            swap(&w->q, &w->p);
        } else {
            multiply(w, set, w->t, w->p, w->q);
            swap(&w->q, &w->t);
        }
    }
    set->apply(w);
}

static size_t layout(bb_muon_work *w, double **squares, void *memory) {
    const bb_muon_set *set = bb_cpu_of(w->dev)->kernels.muon;
    bb_arena arena = {.base = memory};
    size_t whole = (size_t)(w->m * w->n) * sizeof(float), square = (size_t)(w->m * w->m) * sizeof(float);
    w->x = bb_arena_alloc(&arena, whole);
    w->y = bb_arena_alloc(&arena, whole);
    w->a = bb_arena_alloc(&arena, square);
    w->p = bb_arena_alloc(&arena, square);
    w->q = bb_arena_alloc(&arena, square);
    w->t = bb_arena_alloc(&arena, square);
    *squares = bb_arena_alloc(&arena, (size_t)bb_ceil_div(w->m * w->n, TILE) * sizeof **squares);
    w->room = bb_arena_alloc(&arena, set->room(w->dev, w->m, w->n));
    return arena.used;
}

static bb_muon_work work_for(bb_device *dev, int64_t N, int64_t K) {
    return (bb_muon_work){.dev = dev, .m = bb_min(N, K), .n = bb_max(N, K), .tall = N > K};
}

size_t bb_cpu_muon_scratch(bb_device *dev, int64_t N, int64_t K) {
    bb_muon_work w = work_for(dev, N, K);
    double *squares;
    return layout(&w, &squares, NULL);
}

void bb_cpu_muon_step(bb_device *dev, float *p, const float *g, bb_bf16 *m, int64_t N, int64_t K, const bb_muon *h) {
    bb_cpu *cpu = bb_cpu_of(dev);
    bb_muon_work w = work_for(dev, N, K);
    double *squares, sum = 0;
    void *memory = bb_cpu_shared(dev, layout(&w, &squares, NULL));
    if (!memory) return;
    layout(&w, &squares, memory);
    int64_t count = N * K, tiles = bb_ceil_div(count, TILE);
    momentum_constants k = {(float)h->momentum, (float)(1 - h->momentum), (float)h->grad_scale};
    momentum_tile_kernel *momentum_tile = momentum_tile_for(cpu->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (count >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t at = i * TILE;
        momentum_tile(w.x + at, &squares[i], g + at, m + at, bb_min(count - at, TILE), &k);
    }
    for (int64_t i = 0; i < tiles; i++) sum += squares[i];
    float factor = (float)(1 / (sqrt(sum) + BB_MUON_EPS));
    scale_tile_kernel *scale_tile = scale_tile_for(cpu->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (count >= BB_SIMD_SERIAL)
    for (int64_t at = 0; at < count; at += TILE) scale_tile(w.x + at, factor, bb_min(count - at, TILE));

    for (int i = 0; i < BB_MUON_RUNS && cpu->kernels.muon->runs[i]; i++)
        iterate(&w, cpu->kernels.muon, cpu->kernels.muon->runs[i]);

    float kept = (float)(1 - h->lr * h->weight_decay), lr = (float)(h->lr * bb_muon_scale(N, K));
    update_tile_kernel *update_tile = update_tile_for(cpu->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) if (count >= BB_SIMD_SERIAL)
    for (int64_t at = 0; at < count; at += TILE) update_tile(p + at, w.x + at, kept, lr, bb_min(count - at, TILE));
}
