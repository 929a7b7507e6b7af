// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

/* Offset of row t of sequence b, head h. */
static int64_t query_offset(const bb_attention *a, int64_t b, int64_t h, int64_t t) {
    return (b * a->Tq + t) * a->q_stride + h * a->D;
}
static int64_t output_offset(const bb_attention *a, int64_t b, int64_t h, int64_t t) {
    return (b * a->Tq + t) * a->o_stride + h * a->D;
}
static int64_t key_offset(const bb_attention *a, int64_t b, int64_t hk, int64_t t) {
    return b * a->kv_batch_stride + t * a->kv_stride + hk * a->D;
}
static int64_t keys_seen(const bb_attention *a, int64_t t) { return t + 1 + (a->Tk - a->Tq); }

static double dot(const float *x, const float *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

void bb_ref_attention_forward(bb_device *dev, float *o, void *kept, float *lse, const float *q, const float *k, const float *v,
                              const bb_attention *a) {
    double *p = bb_ref_scratch(dev, (size_t)a->Tk);
    if (!p) return;
    int64_t group = a->H / a->Hk;
    double scale = 1.0 / sqrt((double)a->D);
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t h = 0; h < a->H; h++)
            for (int64_t t = 0; t < a->Tq; t++) {
                const float *query = q + query_offset(a, b, h, t);
                float *out = o + output_offset(a, b, h, t);
                int64_t seen = keys_seen(a, t);
                double max = -INFINITY, sum = 0;
                for (int64_t j = 0; j < seen; j++) {
                    p[j] = scale * dot(query, k + key_offset(a, b, h / group, j), a->D);
                    max = fmax(max, p[j]);
                }
                for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
                for (int64_t d = 0; d < a->D; d++) {
                    double weighted = 0;
                    for (int64_t j = 0; j < seen; j++) weighted += p[j] * (double)v[key_offset(a, b, h / group, j) + d];
                    out[d] = (float)(weighted / sum);
                }
                if (kept) memcpy((float *)kept + output_offset(a, b, h, t), out, (size_t)a->D * sizeof *out);
                if (lse) lse[(b * a->H + h) * a->Tq + t] = (float)(max + log(sum));
            }
}

/* For query t of head h: computes dq (D) and accumulates into dk, dv: (Tk,D). With p the row's probabilities and S its scores,
 * dS[j] = p[j] * (do . v[j] - do . o). */
static void backward_row(double *dq, double *dk, double *dv, const float *d_o, const float *q, const float *k, const float *v,
                         const float *o, double lse, int64_t seen, const bb_attention *a) {
    double scale = 1.0 / sqrt((double)a->D), delta = dot(d_o, o, a->D);
    for (int64_t d = 0; d < a->D; d++) dq[d] = 0;
    for (int64_t j = 0; j < seen; j++) {
        const float *key = k + j * a->kv_stride, *value = v + j * a->kv_stride;
        double p = exp(scale * dot(q, key, a->D) - lse);
        double ds = scale * p * (dot(d_o, value, a->D) - delta);
        for (int64_t d = 0; d < a->D; d++) {
            dq[d] += ds * (double)key[d];
            dk[j * a->D + d] += ds * (double)q[d];
            dv[j * a->D + d] += p * (double)d_o[d];
        }
    }
}

static void store(float *x, const double *sum, int64_t D) {
    for (int64_t d = 0; d < D; d++) x[d] = (float)sum[d];
}

void bb_ref_attention_backward(bb_device *dev, void *dq, void *dk, void *dv, const void *d_o, const void *q, const void *k,
                               const void *v, const void *o, const float *lse, const bb_attention *a) {
    int64_t group = a->H / a->Hk, D = a->D, kv_elements = a->Tk * D;
    double *dk_sum = bb_ref_scratch(dev, (size_t)(2 * kv_elements + D));
    if (!dk_sum) return;
    double *dv_sum = dk_sum + kv_elements, *dq_sum = dv_sum + kv_elements;
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t hk = 0; hk < a->Hk; hk++) {
            int64_t kv = key_offset(a, b, hk, 0);
            for (int64_t i = 0; i < 2 * kv_elements; i++) dk_sum[i] = 0;
            for (int64_t h = hk * group; h < (hk + 1) * group; h++)
                for (int64_t t = 0; t < a->Tq; t++) {
                    int64_t qt = query_offset(a, b, h, t), ot = output_offset(a, b, h, t);
                    backward_row(dq_sum, dk_sum, dv_sum, (const float *)d_o + ot, (const float *)q + qt, (const float *)k + kv,
                                 (const float *)v + kv, (const float *)o + ot, (double)lse[(b * a->H + h) * a->Tq + t],
                                 keys_seen(a, t), a);
                    store((float *)dq + qt, dq_sum, D);
                }
            for (int64_t j = 0; j < a->Tk; j++) {
                store((float *)dk + key_offset(a, b, hk, j), dk_sum + j * D, D);
                store((float *)dv + key_offset(a, b, hk, j), dv_sum + j * D, D);
            }
        }
}
