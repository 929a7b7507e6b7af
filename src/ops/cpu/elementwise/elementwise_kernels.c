// SPDX-License-Identifier: MIT
/* Plain loops, which the compiler vectorizes for each instruction set. */
#include "ops/cpu/elementwise/elementwise_set.h"

#include <math.h>

#include "core/exact_math.h"
#include "ops/cpu/vector/lanes.h"
#include "ops/cpu/vector/simd.h"

static void round_to_bf16(bb_bf16 *y, const float *x, int64_t n) {
#if defined(__AVX512BF16__)
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(y + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i)));
    for (; i < n; i += 16) {
        __mmask16 lanes = n - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(y + i, lanes, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i)));
    }
#else
    bb_simd_round_to_bf16(y, x, n);
#endif
}

static void add(float *y, const float *a, const float *b, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void quantize_rows(bb_rows y, const float *x, int64_t m0, int64_t m1, int64_t K) {
    for (int64_t m = m0; m < m1; m++) bb_simd_store_row(y, m, x + m * K, K);
}

static float quantize_to_limit(int8_t *codes, const float *x, int64_t n, float limit) {
    return bb_simd_quantize_to_limit(codes, x, n, limit);
}

/* ---- RMSNorm --------------------------------------------------------------------------------------------------------- */

/* In double, like ref, so that the codes agree. */
static void rmsnorm_forward(const bb_rmsnorm *p, bb_rows y, float *row, int64_t m0, int64_t m1) {
    int64_t C = p->C;
    const float *w = p->w;
    for (int64_t m = m0; m < m1; m++) {
        const float *x = p->x + m * C;
        double sums[BB_SIMD_SUMS] = {0};
        int64_t i = 0;
        BB_SIMD_PREFETCH(x + C, C * (int64_t)sizeof *x, 0);
        for (; i + BB_SIMD_SUMS <= C; i += BB_SIMD_SUMS)
            for (int l = 0; l < BB_SIMD_SUMS; l++) sums[l] += (double)x[i + l] * (double)x[i + l];
        for (int l = 0; i < C; i++, l++) sums[l] += (double)x[i] * (double)x[i];
        BB_SIMD_ADD_SUMS(sums)
        double inverse = 1 / sqrt(sums[0] / (double)C + (double)p->eps);
        p->r[m] = (float)inverse;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) row[c] = (float)((double)x[c] * (double)w[c] * inverse);
        bb_simd_store_row(y, m, row, C);
    }
}

static void rmsnorm_backward(const bb_rmsnorm *p, float *dx, float *dw, const bb_bf16 *dy, int64_t m0, int64_t m1) {
    int64_t C = p->C;
    const float *w = p->w;
    memset(dw, 0, (size_t)C * sizeof *dw);
    for (int64_t m = m0; m < m1; m++) {
        const bb_bf16 *dym = dy + m * C;
        const float *xm = p->x + m * C;
        float *dxm = dx + m * C;
        float rm = p->r[m], dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < C; c++) dot += w[c] * bb_f32_from_bf16(dym[c]) * xm[c];
        float k = rm * rm * rm / (float)C * dot;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) {
            float g = rm * bb_f32_from_bf16(dym[c]);
            dxm[c] += w[c] * g - k * xm[c];
            dw[c] += g * xm[c];
        }
    }
}

/* ---- rope ------------------------------------------------------------------------------------------------------------ */

/* Rotates elements i and i + half of each head. */
static void rope_forward(float *x, const bb_rotation *r) {
    const float *restrict cos = r->cos, *restrict sin = r->sin;
    for (int64_t h = 0; h < r->heads; h++) {
        float *restrict lo = x + h * 2 * r->half, *restrict hi = lo + r->half;
#pragma omp simd
        for (int64_t i = 0; i < r->half; i++) {
            float a = lo[i], b = hi[i];
            lo[i] = a * cos[i] - b * sin[i];
            hi[i] = b * cos[i] + a * sin[i];
        }
    }
}

static void rope_backward(bb_bf16 *dx, const bb_rotation *r) {
    const float *restrict cos = r->cos, *restrict sin = r->sin;
    for (int64_t h = 0; h < r->heads; h++) {
        bb_bf16 *restrict lo = dx + h * 2 * r->half, *restrict hi = lo + r->half;
#pragma omp simd
        for (int64_t i = 0; i < r->half; i++) {
            float a = bb_f32_from_bf16(lo[i]), b = bb_f32_from_bf16(hi[i]);
            lo[i] = bb_bf16_from_f32(a * cos[i] + b * sin[i]);
            hi[i] = bb_bf16_from_f32(b * cos[i] - a * sin[i]);
        }
    }
}

/* ---- SwiGLU ---------------------------------------------------------------------------------------------------------- */

static void swiglu_forward(bb_rows y, const float *gate_up, float *row, int64_t m, int64_t F) {
    const float *gate = gate_up, *up = gate + F;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) row[f] = gate[f] / (1.0f + bb_simd_exp(-gate[f])) * up[f];
    bb_simd_store_row(y, m, row, F);
}

static void swiglu_backward(float *d_gate_up, const bb_bf16 *gate_up, const bb_bf16 *dh, int64_t F) {
    const bb_bf16 *gate = gate_up, *up = gate + F;
    float *d_gate = d_gate_up, *d_up = d_gate + F;
#pragma omp simd
    for (int64_t f = 0; f < F; f++) {
        float g = bb_f32_from_bf16(gate[f]), d = bb_f32_from_bf16(dh[f]);
        float sigmoid = 1.0f / (1.0f + bb_simd_exp(-g));
        d_gate[f] = d * bb_f32_from_bf16(up[f]) * (sigmoid * (1.0f + g * (1.0f - sigmoid)));
        d_up[f] = d * (g * sigmoid);
    }
}

/* ---- loss ------------------------------------------------------------------------------------------------------------ */

/* Maps a float's bits to an integer of the same order (the magnitude bits are inverted below zero), and back. */
static inline int32_t ordered_bits(int32_t bits) { return bits ^ (int32_t)((uint32_t)(bits >> 31) >> 1); }

/* On integers, because a maximum of floats vectorizes only if NaN may be ignored. */
static inline float max_logit(const float *x, int64_t V) {
    int32_t max = INT32_MIN;
#pragma omp simd reduction(max : max)
    for (int64_t v = 0; v < V; v++) {
        int32_t i = ordered_bits((int32_t)bb_bits_of_f32(x[v]));
        max = i > max ? i : max;
    }
    return bb_f32_from_bits((uint32_t)ordered_bits(max));
}

static void loss_forward(const bb_cross_entropy *p, float *nll, int64_t m0, int64_t m1) {
    for (int64_t m = m0; m < m1; m++) {
        const float *x = p->logits + m * p->V;
        float max = max_logit(x, p->V), sums[BB_SIMD_SUMS] = {0};
        int64_t v = 0;
        for (; v + BB_SIMD_SUMS <= p->V; v += BB_SIMD_SUMS)
            for (int l = 0; l < BB_SIMD_SUMS; l++) sums[l] += bb_simd_exp(x[v + l] - max);
        for (int l = 0; v < p->V; v++, l++) sums[l] += bb_simd_exp(x[v] - max);
        BB_SIMD_ADD_SUMS(sums)
        nll[m] = (float)(bb_log((double)sums[0]) + (double)max - (double)x[p->y[m]]);
    }
}

/* dlogits may be logits. */
static void loss_backward(const bb_cross_entropy *p, float *dlogits, float scale, int64_t m0, int64_t m1) {
    int64_t V = p->V;
    for (int64_t m = m0; m < m1; m++) {
        const float *x = p->logits + m * V;
        float *d = dlogits + m * V;
        float max = max_logit(x, V), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) {
            d[v] = bb_simd_exp(x[v] - max);
            sum += d[v];
        }
        float factor = scale / sum;
#pragma omp simd
        for (int64_t v = 0; v < V; v++) d[v] *= factor;
        d[p->y[m]] -= scale;
    }
}

/* ---- n-gram embeddings ------------------------------------------------------------------------------------------------ */

BB_SIMD_INLINE float row_scale(const float *values, int64_t C) {
    return bb_f32_from_bf16(bb_bf16_from_f32(bb_simd_absmax(values, C) / 127));
}

/* s q is exact, so that fused and separate sums are the same. */
static void ngram_add_values(float *x, const float *values, int64_t C) {
    float scale = row_scale(values, C);
    if (!(scale > 0)) return;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
        int32_t q = bb_simd_round(values[c] / scale);
        q = q > 127 ? 127 : q;
        x[c] += scale * (float)(q < -127 ? -127 : q);
    }
}

static void ngram_add_codes(float *x, const int8_t *codes, float scale, int64_t C) {
#pragma omp simd
    for (int64_t c = 0; c < C; c++) x[c] += scale * (float)codes[c];
}

static void ngram_quantize(const bb_ngram_table *t, const float *values, int64_t first, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        const float *row = values + r * t->C;
        float scale = row_scale(row, t->C);
        t->scales[first + r] = bb_bf16_from_f32(scale);
        if (scale > 0)
            bb_simd_quantize_with_scale(t->codes + (first + r) * t->C, row, scale, t->C);
        else
            memset(t->codes + (first + r) * t->C, 0, (size_t)t->C);
    }
}

const bb_elementwise_set SET_NAME(bb_elementwise) = {.round = round_to_bf16,
                                                     .quantize_rows = quantize_rows,
                                                     .quantize_to_limit = quantize_to_limit,
                                                     .rmsnorm_forward = rmsnorm_forward,
                                                     .rmsnorm_backward = rmsnorm_backward,
                                                     .rope_forward = rope_forward,
                                                     .rope_backward = rope_backward,
                                                     .swiglu_forward = swiglu_forward,
                                                     .swiglu_backward = swiglu_backward,
                                                     .loss_forward = loss_forward,
                                                     .loss_backward = loss_backward,
                                                     .add = add,
                                                     .ngram_add_values = ngram_add_values,
                                                     .ngram_add_codes = ngram_add_codes,
                                                     .ngram_quantize = ngram_quantize};
