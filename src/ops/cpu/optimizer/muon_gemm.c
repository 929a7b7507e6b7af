// SPDX-License-Identifier: MIT
/* oneDNN multiplies dense matrices alone. The first columns of a symmetric matrix are its first rows, which are dense. */
#include <string.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/cpu/optimizer/muon.h"
#include "ops/cpu/vector/simd.h"

enum { ROW_TILE = 96, SIDE = 64 /* of a block that is transposed */ };

typedef struct layout {
    float *y;                        /* room for another x */
    float *squares[BB_MUON_SQUARES]; /* (m, m) */
} layout;

static size_t lay(layout *l, int64_t m, int64_t n, void *memory) {
    bb_arena arena = {.base = memory};
    l->y = bb_arena_alloc(&arena, (size_t)(m * n) * sizeof(float));
    for (int i = 0; i < BB_MUON_SQUARES; i++) l->squares[i] = bb_arena_alloc(&arena, (size_t)(m * m) * sizeof(float));
    return arena.used;
}

static size_t room(int64_t m, int64_t n) {
    layout l;
    return lay(&l, m, n, NULL);
}

static float *square(const bb_muon_work *w, bb_muon_square which) {
    layout l;
    lay(&l, w->m, w->n, w->room);
    return l.squares[w->of[which]];
}

static float *second(const bb_muon_work *w) {
    layout l;
    lay(&l, w->m, w->n, w->room);
    return l.y;
}

/* p = b a + c p, for the columns up to the diagonal of row i; plus a on the diagonal */
BB_SIMD_INLINE void polynomial_row_body(float *p, const float *a, int64_t i) {
#pragma omp simd
    for (int64_t j = 0; j <= i; j++) p[j] = (float)BB_MUON_B * a[j] + (float)BB_MUON_C * p[j];
    p[i] += (float)BB_MUON_A;
}
BB_SIMD_VARIANTS(polynomial_row, (float *p, const float *a, int64_t i), (p, a, i))

/* A block of a matrix, rows `stride` elements apart. */
typedef struct block {
    const float *x;
    int64_t stride, rows, columns;
} block;

BB_SIMD_INLINE void transpose_block_body(float *y, int64_t y_stride, const block *b) {
    for (int64_t i = 0; i < b->columns; i++)
        for (int64_t j = 0; j < b->rows; j++) y[i * y_stride + j] = b->x[j * b->stride + i];
}
BB_SIMD_VARIANTS(transpose_block, (float *y, int64_t y_stride, const block *b), (y, y_stride, b))

/* y (m, n) = the transpose of x (n, m) */
static void transpose(const bb_muon_work *w, float *y, const float *x) {
    transpose_block_kernel *kernel = transpose_block_for(bb_cpu_of(w->dev)->kernels.simd);
    int64_t rows = w->n, columns = w->m;
    for (int64_t i = w->thread * SIDE; i < columns; i += w->threads * SIDE)
        for (int64_t j = 0; j < rows; j += SIDE) {
            block b = {x + j * columns + i, columns, bb_min(rows - j, SIDE), bb_min(columns - i, SIDE)};
            kernel(y + i * rows + j, rows, &b);
        }
    bb_muon_wait(w);
}

/* Completes a symmetric matrix from its lower triangle. */
static void mirror(const bb_muon_work *w, float *x) {
    transpose_block_kernel *kernel = transpose_block_for(bb_cpu_of(w->dev)->kernels.simd);
    int64_t m = w->m, blocks = bb_ceil_div(m, SIDE);
    for (int64_t b = blocks - 1 - w->thread; b >= 0; b -= w->threads) {
        int64_t i = b * SIDE, rows = bb_min(m - i, SIDE);
        for (int64_t j = 0; j < i; j += SIDE) kernel(x + j * m + i, m, &(block){x + i * m + j, m, rows, SIDE});
        for (int64_t r = i; r < i + rows; r++)
            for (int64_t c = i; c < r; c++) x[c * m + r] = x[r * m + c];
    }
    bb_muon_wait(w);
}

static bb_gemm_shape lower_shape(const bb_muon_work *w, int64_t tile, int64_t k) {
    int64_t end = bb_min((tile + 1) * ROW_TILE, w->m);
    return (bb_gemm_shape){.b_transposed = true, .m = end - tile * ROW_TILE, .n = end, .k = k};
}

static int64_t applied_rows(const bb_muon_work *w) { return w->tall ? w->n : w->m; }

static bb_gemm_shape apply_shape(const bb_muon_work *w, int64_t tile) {
    return (bb_gemm_shape){.m = bb_min(applied_rows(w) - tile * ROW_TILE, ROW_TILE), .n = w->tall ? w->m : w->n, .k = w->m};
}

/* Primitives are created outside of parallel regions. */
static void prepare(const bb_muon_work *w) {
    for (int64_t i = 0; i < bb_ceil_div(w->m, ROW_TILE); i++) {
        bb_gemm_shape of_x = lower_shape(w, i, w->n), of_squares = lower_shape(w, i, w->m);
        if (!bb_gemm_get(w->dev, &of_x) || !bb_gemm_get(w->dev, &of_squares)) return;
    }
    bb_gemm_shape first = apply_shape(w, 0), last = apply_shape(w, (applied_rows(w) - 1) / ROW_TILE);
    if (bb_gemm_get(w->dev, &first)) (void)bb_gemm_get(w->dev, &last);
}

/* The lower triangle of c (m,m) = a (m,k) bT, b (m,k), in tiles of rows. */
static void lower_product(const bb_muon_work *w, float *c, const float *a, const float *b, int64_t k) {
    int64_t m = w->m;
    for (int64_t i = bb_ceil_div(m, ROW_TILE) - 1 - w->thread; i >= 0; i -= w->threads) {
        bb_gemm_shape shape = lower_shape(w, i, k);
        const bb_gemm_op *op = bb_gemm_get(w->dev, &shape);
        float *buffer = op ? bb_cpu_scratch(w->dev, (size_t)(shape.m * shape.n) * sizeof *buffer) : NULL;
        if (!buffer) continue;
        bb_gemm_run(w->dev, op, buffer, a + i * ROW_TILE * k, b);
        for (int64_t r = 0; r < shape.m; r++)
            memcpy(c + (i * ROW_TILE + r) * m, buffer + r * shape.n, (size_t)shape.n * sizeof *c);
    }
    bb_muon_wait(w);
}

static void gram(const bb_muon_work *w) {
    const float *x = w->x;
    if (w->tall) {
        transpose(w, second(w), x);
        x = second(w);
    }
    float *a = square(w, BB_MUON_GRAM);
    lower_product(w, a, x, x, w->n);
    mirror(w, a);
}

static void multiply(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses) {
    (void)uses;
    lower_product(w, square(w, out), square(w, left), square(w, right), w->m);
    mirror(w, square(w, out));
}

static void polynomial(const bb_muon_work *w, int uses) {
    (void)uses;
    polynomial_row_kernel *row = polynomial_row_for(bb_cpu_of(w->dev)->kernels.simd);
    float *p = square(w, BB_MUON_P), *a = square(w, BB_MUON_GRAM);
    lower_product(w, p, a, a, w->m);
    for (int64_t i = w->thread; i < w->m; i += w->threads) row(p + i * w->m, a + i * w->m, i);
    bb_muon_wait(w);
    mirror(w, p);
}

static void apply(bb_muon_work *w) {
    const float *left = w->tall ? w->x : square(w, BB_MUON_Q), *right = w->tall ? square(w, BB_MUON_Q) : w->x;
    float *y = second(w);
    int64_t rows = applied_rows(w), columns = w->m * w->n / rows;
    for (int64_t i = w->thread; i < bb_ceil_div(rows, ROW_TILE); i += w->threads) {
        bb_gemm_shape shape = apply_shape(w, i);
        const bb_gemm_op *op = bb_gemm_get(w->dev, &shape);
        if (op) bb_gemm_run(w->dev, op, y + i * ROW_TILE * columns, left + i * ROW_TILE * w->m, right);
    }
    bb_muon_wait(w);
    w->x = y; /* a run is the last one */
}

const bb_muon_set bb_muon_gemm = {.runs = {BB_MUON_ITERATIONS},
                                  .room = room,
                                  .prepare = prepare,
                                  .gram = gram,
                                  .polynomial = polynomial,
                                  .multiply = multiply,
                                  .apply = apply};
