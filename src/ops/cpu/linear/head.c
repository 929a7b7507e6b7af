// SPDX-License-Identifier: MIT
/* The tied output head: f32 products, never quantized. */
#include "core/arena.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/cpu/vector/round.h"
#include "ops/cpu/vector/simd.h"

/* dE is summed in at most PARTS parts, each over consecutive runs of at most RUN tokens. */
enum { PARTS = 8, RUN = 512 };

BB_SIMD_INLINE void add_body(float *y, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
BB_SIMD_VARIANTS(add, (float *y, const float *x, int64_t n), (y, x, n))

/* Rows of a (M,k) to rows of y (M,n). */
typedef struct rows_product {
    bb_round_kernel *round;
    const float *a;
    float *y; /* NULL: y_act */
    bb_bf16 *y_act;
    int64_t n, k;
} rows_product;

static const void *input_rows(const void *context, int64_t m0, int64_t rows, void *buffer) {
    const rows_product *p = context;
    (void)rows;
    (void)buffer;
    return p->a + m0 * p->k;
}

static void output_rows(const void *context, int64_t m0, int64_t rows, const void *c) {
    const rows_product *p = context;
    if (p->y)
        memcpy(p->y + m0 * p->n, c, (size_t)(rows * p->n) * sizeof(float));
    else
        p->round(p->y_act + m0 * p->n, c, rows * p->n);
}

enum { DOT_LANES = 32 };

/* Logits of all M rows for one symbol; e is (C). The order of a sum does not depend on M. */
BB_SIMD_INLINE void symbol_body(float *logits, const float *h, const float *e, int64_t M, int64_t V, int64_t C) {
    for (int64_t m = 0; m < M; m++, h += C) {
        float lanes[DOT_LANES] = {0};
        int64_t c = 0;
        for (; c + DOT_LANES <= C; c += DOT_LANES)
            for (int l = 0; l < DOT_LANES; l++) lanes[l] += h[c + l] * e[c + l];
        for (; c < C; c++) lanes[c % DOT_LANES] += h[c] * e[c];
#pragma GCC unroll 5
        for (int half = DOT_LANES / 2; half > 0; half /= 2) /* independent additions */
            for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
        logits[m * V] = lanes[0];
    }
}
BB_SIMD_VARIANTS(symbol, (float *logits, const float *h, const float *e, int64_t M, int64_t V, int64_t C),
                 (logits, h, e, M, V, C))

typedef struct small_batch_logits {
    symbol_kernel *symbol;
    float *logits;
    const float *h, *e;
    int64_t M, V, C;
} small_batch_logits;

static void small_batch_symbols(void *user, bb_team *team, int thread) {
    const small_batch_logits *w = user;
    for (int64_t v = bb_team_next_unit(team, thread); v >= 0; v = bb_team_next_unit(team, thread))
        w->symbol(w->logits + v, w->h, w->e + v * w->C, w->M, w->V, w->C);
}

void bb_cpu_head_forward(bb_device *dev, float *logits, const float *h, const float *e, int64_t M, int64_t V, int64_t C) {
    if (M <= BB_SMALL_BATCH_ROWS) {
        small_batch_logits w = {symbol_for(bb_cpu_of(dev)->kernels.simd), logits, h, e, M, V, C};
        bb_team *team = bb_cpu_team(dev);
        if (team) bb_team_run(team, M * V * C <= BB_SIMD_SERIAL, V, small_batch_symbols, &w, (bb_team_prefetch){0});
        return;
    }
    rows_product p = {.round = bb_cpu_of(dev)->kernels.round, .a = h, .y = logits, .n = V, .k = C};
    bb_gemm_shape shape = {.b_transposed = true, .n = V, .k = C};
    bb_gemm_rows(dev, &shape, M, e, input_rows, output_rows, &p);
}

static size_t sum_stride(int64_t V, int64_t C) { return bb_align_up((size_t)(V * C) * sizeof(float)) / sizeof(float); }

size_t bb_cpu_head_scratch(int64_t M, int64_t V, int64_t C) {
    return (size_t)(M < PARTS ? M : PARTS) * sum_stride(V, C) * sizeof(float);
}

/* de (V,C) += dlogitsT (V,M) h (M,C) */
static void embedding_gradient(bb_device *dev, float *de, const float *dlogits, const float *h, int64_t M, int64_t V,
                               int64_t C) {
    int64_t part = (M + PARTS - 1) / PARTS, whole_run = part < RUN ? part : RUN;
    int64_t parts = (M + part - 1) / part;
    bb_gemm_shape shape = {.accumulate = true, .a_transposed = true, .m = V, .n = C, .k = whole_run};
    /* a part is runs of whole_run tokens and one shorter run; the last part may be shorter than the others */
    int64_t lengths[3] = {whole_run, part % whole_run, (M - (parts - 1) * part) % whole_run};
    const bb_gemm_op *ops[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        shape.k = lengths[i];
        if (shape.k && !(ops[i] = bb_gemm_get(dev, &shape))) return;
    }
    size_t stride = sum_stride(V, C);
    float *sums = bb_cpu_shared(dev, (size_t)parts * stride * sizeof *sums);
    if (!sums) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        float *sum = sums + (size_t)i * stride;
        memset(sum, 0, (size_t)(V * C) * sizeof *sum);
        int64_t end = (i + 1) * part < M ? (i + 1) * part : M;
        for (int64_t m = i * part, run; m < end; m += run) {
            run = end - m < whole_run ? end - m : whole_run;
            const bb_gemm_op *op = run == lengths[0] ? ops[0] : run == lengths[1] ? ops[1] : ops[2];
            bb_gemm_run(dev, op, sum, dlogits + m * V, h + m * C);
        }
    }
    add_kernel *add = add_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (V * C > BB_SIMD_SERIAL)
    for (int64_t v = 0; v < V; v++)
        for (int64_t i = 0; i < parts; i++) add(de + v * C, sums + (size_t)i * stride + v * C, C);
}

void bb_cpu_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const float *e, int64_t M,
                          int64_t V, int64_t C) {
    rows_product p = {.round = bb_cpu_of(dev)->kernels.round, .a = dlogits, .y_act = dh, .n = C, .k = V};
    bb_gemm_shape shape = {.n = C, .k = V};
    bb_gemm_rows(dev, &shape, M, e, input_rows, output_rows, &p);
    embedding_gradient(dev, de, dlogits, h, M, V, C);
}
