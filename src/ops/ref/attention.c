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

void bb_ref_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a) {
    double *p = bb_ref_scratch(dev, (size_t)a->Tk);
    if (!p) return;
    int64_t group = a->H / a->Hk;
    double scale = 1.0 / sqrt((double)a->D);
    for (int64_t b = 0; b < a->B; b++)
        for (int64_t h = 0; h < a->H; h++)
            for (int64_t t = 0; t < a->Tq; t++) {
                const float *query = (const float *)x.q + query_offset(a, b, h, t);
                float *out = o + output_offset(a, b, h, t);
                int64_t seen = keys_seen(a, t);
                double max = -INFINITY, sum = 0;
                for (int64_t j = 0; j < seen; j++) {
                    p[j] = scale * dot(query, (const float *)x.k + key_offset(a, b, h / group, j), a->D);
                    max = fmax(max, p[j]);
                }
                for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
                for (int64_t d = 0; d < a->D; d++) {
                    double weighted = 0;
                    for (int64_t j = 0; j < seen; j++)
                        weighted += p[j] * (double)((const float *)x.v)[key_offset(a, b, h / group, j) + d];
                    out[d] = (float)(weighted / sum);
                }
                if (kept) memcpy((float *)kept + output_offset(a, b, h, t), out, (size_t)a->D * sizeof *out);
                if (lse) lse[(b * a->H + h) * a->Tq + t] = (float)(max + log(sum));
            }
}

/* One query of a head, which sees `seen` keys. */
typedef struct backward_row {
    const float *q, *k, *v, *o, *d_o;
    double lse;
    int64_t seen;
} backward_row;

/* Computes dq (D) and accumulates into dk, dv: (Tk,D). With p the row's probabilities and S its scores,
 * dS[j] = p[j] * (do . v[j] - do . o). */
static void add_row(double *dq, double *dk, double *dv, const backward_row *r, const bb_attention *a) {
    double scale = 1.0 / sqrt((double)a->D), delta = dot(r->d_o, r->o, a->D);
    for (int64_t d = 0; d < a->D; d++) dq[d] = 0;
    for (int64_t j = 0; j < r->seen; j++) {
        const float *key = r->k + j * a->kv_stride, *value = r->v + j * a->kv_stride;
        double p = exp(scale * dot(r->q, key, a->D) - r->lse);
        double ds = scale * p * (dot(r->d_o, value, a->D) - delta);
        for (int64_t d = 0; d < a->D; d++) {
            dq[d] += ds * (double)key[d];
            dk[j * a->D + d] += ds * (double)r->q[d];
            dv[j * a->D + d] += p * (double)r->d_o[d];
        }
    }
}

static void store(float *x, const double *sum, int64_t D) {
    for (int64_t d = 0; d < D; d++) x[d] = (float)sum[d];
}

void bb_ref_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                               const bb_attention *a) {
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
                    backward_row row = {.q = (const float *)x.q + qt,
                                        .k = (const float *)x.k + kv,
                                        .v = (const float *)x.v + kv,
                                        .o = (const float *)o + ot,
                                        .d_o = (const float *)d_o + ot,
                                        .lse = (double)lse[(b * a->H + h) * a->Tq + t],
                                        .seen = keys_seen(a, t)};
                    add_row(dq_sum, dk_sum, dv_sum, &row, a);
                    store((float *)dx.q + qt, dq_sum, D);
                }
            for (int64_t j = 0; j < a->Tk; j++) {
                store((float *)dx.k + key_offset(a, b, hk, j), dk_sum + j * D, D);
                store((float *)dx.v + key_offset(a, b, hk, j), dv_sum + j * D, D);
            }
        }
}
