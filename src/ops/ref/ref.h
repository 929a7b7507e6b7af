// SPDX-License-Identifier: MIT
/* The ref backend's state, and the entries that its files contribute to the operation table. Scalar loops, sums in double,
 * activations in f32: written to be compared with the formulas of ops.h, not to be fast. */
#ifndef BB_OPS_REF_REF_H
#define BB_OPS_REF_REF_H

#include "ops/ops.h"

typedef struct bb_ref {
    bb_device base;
    bb_error failure; /* the first since the last sync; code BB_OK if none */
    double *scratch;  /* grown on first use and kept */
    size_t scratch_count;
} bb_ref;

/* `count` doubles, undefined contents, valid until the next call; NULL (and a recorded failure) when out of memory. */
double *bb_ref_scratch(bb_device *dev, size_t count);

/* act_quant.c: the row quantizer that other files share: q = clip(round_half_even(x/s), -limit, limit), s = max(max|x|/limit,
 * 1e-8); limit is 127 unless said otherwise. */
float bb_ref_scale(const float *x, int64_t K, float limit);
int8_t bb_ref_code(float x, float s, float limit);
/* Stores x as row m of y, K elements: quantized if y is I8, unchanged otherwise. */
void bb_ref_store_row(bb_rows y, int64_t m, const float *x, int64_t K);
/* Element i = m*K + k of rows, with its row's scale applied. */
double bb_ref_load(bb_rows x, int64_t m, int64_t k, int64_t K);
void bb_ref_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K);

/* ternary_quant.c */
size_t bb_ref_ternary_bytes(bb_device *dev, const bb_ternary *t);
bool bb_ref_ternary_dense(bb_device *dev);
void bb_ref_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w);
void bb_ref_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows);
void bb_ref_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n);
void bb_ref_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t);
void bb_ref_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t);
void bb_ref_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes);
/* q of row n, column k. */
int8_t bb_ref_ternary_at(const bb_ternary *t, int64_t n, int64_t k);
/* The scale of row n. */
float bb_ref_ternary_scale(const bb_ternary *t, int64_t n);

/* linear.c */
void bb_ref_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_ref_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M);

/* head.c */
void bb_ref_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head);
void bb_ref_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head);

/* rmsnorm.c, rope.c, swiglu.c, embedding.c, loss.c */
void bb_ref_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm);
void bb_ref_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                             const bb_norm *norm);
void bb_ref_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope);
void bb_ref_rope_backward(bb_device *dev, void *dx, const bb_rope *rope);
void bb_ref_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F);
void bb_ref_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F);
void bb_ref_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C);
void bb_ref_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C);
void bb_ref_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K);
void bb_ref_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C);
void bb_ref_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows);
void bb_ref_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V);
void bb_ref_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V);

/* attention.c */
void bb_ref_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a);
size_t bb_ref_kv_bytes(bb_device *dev, const bb_kv *kv);
void bb_ref_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v);
void bb_ref_kv_copy(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n);
void bb_ref_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n);
void bb_ref_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch);
void bb_ref_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                               const bb_attention *a);

/* adamw.c, adamw8bit.c */
void bb_ref_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n);
void bb_ref_add(bb_device *dev, float *y, const float *x, int64_t n);
void bb_ref_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h);
void bb_ref_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h);
/* One element of adamw_step: returns the new p and replaces *m and *v. v is raised to at least min_v * m^2. */
double bb_ref_adamw_element(double p, double g, double *m, double *v, double min_v, const bb_adamw *h);
void bb_ref_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n);
void bb_ref_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h);

/* muon.c */
void bb_ref_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h);
size_t bb_ref_muon_scratch(bb_device *dev, int64_t N, int64_t K);

#endif
