// SPDX-License-Identifier: MIT
/* Entries of the operation table (backend.cu) that the other files of this backend implement. ops.h specifies them. */
#ifndef BB_OPS_CUDA_ENTRIES_H
#define BB_OPS_CUDA_ENTRIES_H

#include "ops/cuda/kernel.h"

extern "C" {
#include "ops/optional.h"
}

/* peaks.cu */
void bb_cuda_measure_peaks(bb_device *dev, bb_peaks *out);

/* elementwise.cu: norm, quantizer, SwiGLU and RoPE */
void bb_cuda_rmsnorm_forward(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm);
void bb_cuda_rmsnorm_backward(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                              const bb_norm *norm);
void bb_cuda_act_to_f32(bb_device *dev, float *y, const void *x, int64_t n);
void bb_cuda_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K);
void bb_cuda_swiglu_forward(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F);
void bb_cuda_swiglu_backward(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F);
void bb_cuda_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope);
void bb_cuda_rope_backward(bb_device *dev, void *dx, const bb_rope *rope);

/* head.cu: embedding, head, loss */
void bb_cuda_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C);
void bb_cuda_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                                int64_t C);
void bb_cuda_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head);
void bb_cuda_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head);
void bb_cuda_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V);
void bb_cuda_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                           int64_t V);

/* ngram.cu */
void bb_cuda_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K);
void bb_cuda_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                            int64_t C);
void bb_cuda_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows);
void bb_cuda_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                              const bb_row_adagrad *h);

/* ternary.cu */
size_t bb_cuda_ternary_bytes(bb_device *dev, const bb_ternary *t);
bool bb_cuda_ternary_dense(bb_device *dev);
void bb_cuda_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w);
void bb_cuda_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows);
void bb_cuda_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n);
void bb_cuda_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes);
void bb_cuda_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t);
void bb_cuda_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t);

/* linear.cu */
void bb_cuda_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_cuda_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M);
/* Bytes of scratch that linear_backward needs for M rows of N outputs. */
size_t bb_cuda_linear_scratch(int64_t M, int64_t N);

/* attention_forward.cu, in f32; attention_forward_act.cu, used if a backward pass follows; attention_backward.cu */
void bb_cuda_attention_forward_act(bb_device *dev, float *o, void *kept, float *lse, bb_qkv in, const bb_attention *a);
void bb_cuda_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a);
void bb_cuda_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                                const bb_attention *a);
/* Bytes of scratch that attention_backward needs. */
size_t bb_cuda_attention_scratch(const bb_attention *a);

/* kv_cache.cu */
size_t bb_cuda_kv_bytes(bb_device *dev, const bb_kv *kv);
void bb_cuda_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v);
void bb_cuda_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n);
void bb_cuda_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch);

/* optimizer.cu */
void bb_cuda_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n);
void bb_cuda_add(bb_device *dev, float *y, const float *x, int64_t n);
void bb_cuda_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h);
void bb_cuda_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n);
void bb_cuda_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h);
/* sums[t] = the sum of x^2, or of |x| unless `squares`, over tile t of BB_NORM_TILE elements. sums: (tiles), in the card's
 * memory. */
void bb_cuda_tile_sums(bb_device *dev, double *sums, const float *x, int64_t n, bool squares);

/* copies.cu */
void bb_cuda_copy_ahead(bb_device *dev, void *dst, const void *host, size_t bytes);
/* Bytes of device memory, and of pinned memory, that copy_ahead needs for copies of up to `bytes`. */
size_t bb_cuda_ahead_bytes(size_t bytes);
void bb_cuda_ahead_close(struct bb_cuda *cuda);

/* passes.cu */
bool bb_cuda_pass_begin(bb_device *dev, uint64_t key, const int64_t *positions, int count);
void bb_cuda_pass_end(bb_device *dev);
void bb_cuda_forget_passes(struct bb_cuda *cuda);

/* nccl.cu */
void bb_cuda_peers_entries(bb_optional_ops *o);
void bb_cuda_peers_close(struct bb_cuda *cuda);

/* muon.cu */
void bb_cuda_muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h);
size_t bb_cuda_muon_scratch(bb_device *dev, int64_t N, int64_t K);

#endif
