// SPDX-License-Identifier: MIT
/* The row-wise operations: which rows go to which thread. */
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/vector/simd.h"

enum {
    TILE_ROWS = 16,
    MAX_PARTIALS = 64, /* RMSNorm's dw is summed in at most this many runs of rows, so that its scratch does not grow with M */
    EMBEDDING_COLUMNS = 64
};

static const bb_elementwise_set *set_of(bb_device *dev) { return bb_cpu_of(dev)->kernels.elementwise; }

void bb_cpu_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K) {
    const bb_elementwise_set *set = set_of(dev);
    BB_SIMD_FOR(dev, M * K, m, M, TILE_ROWS, set->quantize_rows(y, x, m, bb_min(m + TILE_ROWS, M), K))
}

/* ---- RMSNorm, arXiv:1910.07467; forward fused with the quantizer of the linear layer that follows -------------------- */

void bb_cpu_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm) {
    const bb_elementwise_set *set = set_of(dev);
    int64_t M = norm->M, C = norm->C;
    const bb_rmsnorm p = {x, norm->w, r, norm->eps, C};
    BB_SIMD_FOR(dev, M * C, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, (size_t)C * sizeof *row);
        if (row) set->rmsnorm_forward(&p, y, row, m, bb_min(m + TILE_ROWS, M));
    })
}

void bb_cpu_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                             const bb_norm *norm) {
    const bb_elementwise_set *set = set_of(dev);
    int64_t M = norm->M, C = norm->C;
    const bb_rmsnorm p = {x, norm->w, (float *)r, 0, C};
    int64_t run = bb_max(bb_ceil_div(M, MAX_PARTIALS), TILE_ROWS), partials = bb_ceil_div(M, run);
    float *partial = bb_cpu_scratch(dev, (size_t)(partials * C) * sizeof *partial); /* (partials, C), for all threads */
    if (!partial) return;
#pragma omp parallel for num_threads(dev->threads) if (M * C >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < partials; i++)
        set->rmsnorm_backward(&p, dx, partial + i * C, dy, i * run, bb_min((i + 1) * run, M));
    for (int64_t i = 0; i < partials; i++) {
        const float *from = partial + i * C;
        for (int64_t c = 0; c < C; c++) dw[c] += from[c];
    }
}

/* ---- rotary position embedding, in place, arXiv:2104.09864 ----------------------------------------------------------- */

void bb_cpu_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope) {
    const bb_elementwise_set *set = set_of(dev);
    int64_t half = rope->D / 2, rows = rope->B * rope->T, width = rope->width;
    BB_SIMD_FOR(dev, rows * width, m, rows, 1, {
        int64_t at = (position0 + m % rope->T) * half;
        set->rope_forward(x + m * width, &(bb_rotation){rope->cos + at, rope->sin + at, rope->heads, half});
        if (kept) set->round((bb_bf16 *)kept + m * width, x + m * width, width);
    })
}

void bb_cpu_rope_backward(bb_device *dev, void *dx, const bb_rope *rope) {
    const bb_elementwise_set *set = set_of(dev);
    int64_t half = rope->D / 2, rows = rope->B * rope->T;
#pragma omp parallel for num_threads(dev->threads) if (rows * rope->heads * rope->D > BB_SIMD_SERIAL)
    for (int64_t m = 0; m < rows; m++) {
        int64_t at = m % rope->T * half;
        set->rope_backward((bb_bf16 *)dx + m * rope->width, &(bb_rotation){rope->cos + at, rope->sin + at, rope->heads, half});
    }
}

/* ---- SwiGLU; forward fused with the quantizer of the linear layer that follows --------------------------------------- */

void bb_cpu_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F) {
    const bb_elementwise_set *set = set_of(dev);
    BB_SIMD_FOR(dev, M * F, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, (size_t)F * sizeof *row);
        for (int64_t r = m; row && r < m + TILE_ROWS && r < M; r++) {
            set->swiglu_forward(y, gate_up + r * 2 * F, row, r, F);
            if (kept) set->round((bb_bf16 *)kept + r * 2 * F, gate_up + r * 2 * F, 2 * F);
        }
    })
}

void bb_cpu_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F) {
    const bb_elementwise_set *set = set_of(dev);
    BB_SIMD_FOR(dev, M * F, m, M, TILE_ROWS, {
        float *row = bb_cpu_scratch(dev, 2 * (size_t)F * sizeof *row);
        for (int64_t r = m; row && r < m + TILE_ROWS && r < M; r++) {
            set->swiglu_backward(row, (const bb_bf16 *)gate_up + r * 2 * F, (const bb_bf16 *)dh + r * F, F);
            set->round((bb_bf16 *)d_gate_up + r * 2 * F, row, 2 * F);
        }
    })
}

/* ---- softmax cross-entropy ------------------------------------------------------------------------------------------- */

void bb_cpu_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V) {
    const bb_elementwise_set *set = set_of(dev);
    const bb_cross_entropy p = {logits, y, V};
#pragma omp parallel for num_threads(dev->threads) if (M * V >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m += TILE_ROWS) set->loss_forward(&p, nll, m, bb_min(m + TILE_ROWS, M));
}

void bb_cpu_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V) {
    const bb_elementwise_set *set = set_of(dev);
    const bb_cross_entropy p = {logits, y, V};
#pragma omp parallel for num_threads(dev->threads) if (M * V >= BB_SIMD_SERIAL)
    for (int64_t m = 0; m < M; m += TILE_ROWS) set->loss_backward(&p, dlogits, scale, m, bb_min(m + TILE_ROWS, M));
}

/* ---- embedding ------------------------------------------------------------------------------------------------------- */

void bb_cpu_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C) {
    (void)V;
    BB_SIMD_FOR(dev, M * C, m, M, 1, memcpy(x + m * C, e + idx[m] * C, (size_t)C * sizeof *x))
}

/* Split by columns: each row of E then sums its tokens in ascending m, whatever the number of threads. */
void bb_cpu_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                               int64_t C) {
    (void)V;
#pragma omp parallel for num_threads(dev->threads) if (M * C >= BB_SIMD_SERIAL)
    for (int64_t c0 = 0; c0 < C; c0 += EMBEDDING_COLUMNS) {
        int64_t n = bb_min(C - c0, EMBEDDING_COLUMNS);
        for (int64_t m = 0; m < M; m++) {
            float *to = de + idx[m] * C + c0;
            const float *from = dx + m * C + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++) to[c] += from[c];
        }
    }
}
