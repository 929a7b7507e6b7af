// SPDX-License-Identifier: MIT
/* The gradient norm, AdamW with moments in f32 or in 8 bits, block by block (arXiv:2110.02861), and row-wise Adagrad. */
#include "ops/cpu/optimizer/optimizer_set.h"

#include <math.h>
#include <string.h>

#include "core/adam8_map.h"
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/vector/simd.h"

enum { TILE = 4096, TILE_ROWS = 16, PREFETCH_BLOCKS = 4 };

static const bb_optimizer_set *set_of(bb_device *dev) { return bb_cpu_of(dev)->kernels.optimizer; }

void bb_cpu_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n) {
    const bb_optimizer_set *set = set_of(dev);
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += BB_NORM_TILE) sums[i / BB_NORM_TILE] = set->sum_squares(x + i, bb_min(n - i, BB_NORM_TILE));
}

void bb_cpu_add(bb_device *dev, float *y, const float *x, int64_t n) {
    const bb_elementwise_set *set = bb_cpu_of(dev)->kernels.elementwise;
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += TILE) set->add(y + i, y + i, x + i, bb_min(n - i, TILE));
}

static adamw_constants adamw_prepare(const bb_adamw *h) {
    return (adamw_constants){
        .beta1 = (float)h->beta1,
        .beta2 = (float)h->beta2,
        .one_minus_beta1 = (float)(1 - h->beta1),
        .one_minus_beta2 = (float)(1 - h->beta2),
        .eps = (float)h->eps,
        .grad_scale = (float)h->grad_scale,
        .decay = (float)(h->lr * h->weight_decay),
        .step_size = (float)(h->lr / h->bias_correction1),
        .inv_sqrt2 = (float)(1 / sqrt(h->bias_correction2)),
        .min_root_v = (float)sqrt(bb_adam8_min_v(h)),
    };
}

void bb_cpu_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h) {
    const bb_optimizer_set *set = set_of(dev);
    adamw_constants k = adamw_prepare(h);
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += TILE) set->adamw(p + i, g + i, m + i, v + i, bb_min(n - i, TILE), &k);
}

/* Prefetches a whole block, so that its computation need not wait for memory: hardware prefetching does not reach far
 * enough. */
static inline void prefetch(const float *p, const float *g, const uint8_t *m, const uint8_t *v) {
    enum { LINE = 64, FLOATS = LINE / sizeof(float) };
    for (int i = 0; i < BB_ADAM8_BLOCK; i += FLOATS) {
        __builtin_prefetch(p + i, 1);
        __builtin_prefetch(g + i, 0);
    }
    for (int i = 0; i < BB_ADAM8_BLOCK; i += LINE) {
        __builtin_prefetch(m + i, 1);
        __builtin_prefetch(v + i, 1);
    }
}

void bb_cpu_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    (void)dev;
    size_t absmax_bytes = (size_t)((n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK) * sizeof(float);
    memset(s.m, bb_adam8_code(0, true), (size_t)n);
    memset(s.v, bb_adam8_code(0, false), (size_t)n);
    memset(s.m_absmax, 0, absmax_bytes);
    memset(s.v_absmax, 0, absmax_bytes);
}

void bb_cpu_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    const bb_optimizer_set *set = set_of(dev);
    adamw_constants k = adamw_prepare(h);
    int64_t blocks = bb_ceil_div(n, BB_ADAM8_BLOCK), ahead = PREFETCH_BLOCKS * BB_ADAM8_BLOCK;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (n >= BB_SIMD_SERIAL)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t at = b * BB_ADAM8_BLOCK;
        if (at + ahead + BB_ADAM8_BLOCK <= n) prefetch(p + at + ahead, g + at + ahead, s.m + at + ahead, s.v + at + ahead);
        set->adamw8bit(
            &(adam8_block){p + at, g + at, s.m + at, s.v + at, &s.m_absmax[b], &s.v_absmax[b], bb_min(n - at, BB_ADAM8_BLOCK)},
            &k);
    }
}

void bb_cpu_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h) {
    const bb_optimizer_set *set = set_of(dev);
    adagrad_constants k = {(float)h->lr, (float)h->grad_scale, (float)h->eps};
#pragma omp parallel for num_threads(dev->threads) if (rows * C >= BB_SIMD_SERIAL)
    for (int64_t r = 0; r < rows; r += TILE_ROWS) set->adagrad(p + r * C, g + r * C, v + r, bb_min(rows - r, TILE_ROWS), C, &k);
}
