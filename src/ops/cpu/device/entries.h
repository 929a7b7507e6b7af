// SPDX-License-Identifier: MIT
/* The entries that the files of this backend contribute to its operation table (backend.c); ops.h specifies them. */
#ifndef BB_OPS_CPU_ENTRIES_H
#define BB_OPS_CPU_ENTRIES_H

#include "ops/ops.h"

/* peaks.c */
void bb_cpu_measure_peaks(bb_device *dev, bb_peaks *out);

/* linear.c, ternary_quant.c, head.c */
size_t bb_cpu_ternary_bytes(bb_device *dev, const bb_ternary *t);
bool bb_cpu_ternary_dense(bb_device *dev);
void bb_cpu_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w);
void bb_cpu_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows);
void bb_cpu_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n);
void bb_cpu_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes);
void bb_cpu_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t);
void bb_cpu_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t);
void bb_cpu_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_cpu_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M);
void bb_cpu_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head);
void bb_cpu_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head);

size_t bb_cpu_head_scratch(int64_t M, int64_t V, int64_t C);

/* attention.c, attention_cached.c, attention_backward.c, kv_cache.c, rope.c */
size_t bb_cpu_kv_bytes(bb_device *dev, const bb_kv *kv);
void bb_cpu_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v);
void bb_cpu_kv_copy(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n);
void bb_cpu_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n);
void bb_cpu_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch);
size_t bb_cpu_attention_forward_scratch(bb_device *dev, const bb_attention *a);
size_t bb_cpu_attention_backward_scratch(bb_device *dev, const bb_attention *a);
void bb_cpu_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a);
void bb_cpu_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                               const bb_attention *a);
void bb_cpu_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope);
void bb_cpu_rope_backward(bb_device *dev, void *dx, const bb_rope *rope);

/* rmsnorm.c, act_quant.c, swiglu.c, embedding.c, loss.c */
void bb_cpu_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm);
void bb_cpu_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                             const bb_norm *norm);
void bb_cpu_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K);
void bb_cpu_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F);
void bb_cpu_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F);
void bb_cpu_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C);
void bb_cpu_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C);
void bb_cpu_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K);
void bb_cpu_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C);
void bb_cpu_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows);
void bb_cpu_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V);
void bb_cpu_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V);

/* optimizer.c */
void bb_cpu_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n);
void bb_cpu_add(bb_device *dev, float *y, const float *x, int64_t n);
void bb_cpu_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h);
void bb_cpu_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h);
void bb_cpu_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n);
void bb_cpu_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h);

/* muon.c */
void bb_cpu_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h);
size_t bb_cpu_muon_scratch(bb_device *dev, int64_t N, int64_t K);

#endif
