// SPDX-License-Identifier: MIT
/* The operation table: everything that the model computes, as about 30 coarse operations that each backend implements. `ref` is
 * the executable definition (scalar loops, double accumulation); every other backend is tested against it.
 *
 * Rules for all entries
 * - Pointers are to backend memory (alloc). Arrays are dense and row-major unless strides are given. Inputs and outputs do not
 *   overlap unless the entry says so.
 * - "act" is the type of activations kept for the backward pass and of gradients between operations: ops->act_dtype, f32 in
 *   ref, bf16 in cpu, bf16 or fp16 in cuda. In fp16 what is over 65,504 is infinite. Apart from the order of its sums, a backend may differ from ref only by rounding to this type. The
 *   forward pass does not round: values between two operations are f32 or exact integers. An error d before a quantizer of
 *   scale s flips a code with probability d/s and so costs sqrt(d s), not d.
 * - A forward entry's `kept` receives a copy for the backward pass; NULL when no backward pass follows.
 * - Entries return void. A backend records its first failure, and sync returns it.
 * - Results are deterministic and do not depend on the number of threads.
 * - "+=" accumulates; everything else is overwritten. Any M, T >= 1 and any C, N, K, D that bb_config_check allows must work;
 *   none need be a multiple of anything. */
#ifndef BB_OPS_OPS_H
#define BB_OPS_OPS_H

#include <math.h>
#include <pthread.h>
#include <stdbool.h>

#include "core/status.h"
#include "core/tensor.h"

/* The input of a linear layer, M rows of K: int8 with one scale per row, or unquantized. I8: data is int8 (M,K) in [-127,127],
 * scale is f32 (M). Otherwise data is act or f32 (M,K), as dtype says, and scale is NULL. The model's own inputs are act: in
 * cpu, bf16 in the forward pass too. */
typedef struct bb_rows {
    void *data;
    float *scale;
    bb_dtype dtype;
} bb_rows;

/* Where no backward pass follows (no `kept`, no lse), and the inputs of linear layers are I8, cpu gives the same bits for any number
 * of rows and of sequences, with or without a cache of the same numbers, and on every processor: sums in f32 run in a fixed order
 * whatever the vectors' width, with fused multiply-adds where that order says so, and functions are our own (src/ops/cpu/vector/lanes.h,
 * attention/forward_set.h, core/exact_math.h). ref is as independent of rows and processors, in another order. Every backend's
 * linear_forward, head_forward and attention_cached compute up to BB_SMALL_BATCH_ROWS rows (of each sequence) as they would compute
 * each alone. */
enum { BB_MAX_SEGMENTS = 3, BB_SMALL_BATCH_ROWS = 16 };

/* Backends may store rows of a prepared matrix in groups. The group size divides this. */
enum { BB_TERNARY_ROWS = 64 };

/* A weight matrix (N,K) prepared for multiplication. Its rows are up to three tensors stacked (q, k, v), each with its own
 * scale: row n belongs to the first segment i with n < segment_end[i]. `data` has a layout private to the backend and
 * ternary_bytes() bytes; `scale` is f32 (segments). Both are backend memory. */
typedef struct bb_ternary bb_ternary;
struct bb_ternary {
    int64_t n, k;
    int segments;
    int64_t segment_end[BB_MAX_SEGMENTS];
    float *scale;
    void *data;
    const bb_ternary *next; /* the matrix that is read next, for prefetching; NULL if unknown */
    bool dense;             /* dense layout, for linear_forward and ternary_unpack only; requires ternary_dense() */
};

/* What a ternary layer's backward pass starts from, dy: (M,N), f32 or act as dtype says; and the gradient of its weights, dw: (N,K) f32,
 * accumulated into if `add`, else overwritten. */
typedef struct bb_layer_gradient {
    const void *dy;
    bb_dtype dtype;
    float *dw;
    bool add;
} bb_layer_gradient;

/* RMSNorm of M rows of C. w: (C) f32 */
typedef struct bb_norm {
    const float *w;
    float eps;
    int64_t M, C;
} bb_norm;

/* Rotary embedding of heads 0..heads-1 of each row of (B,T,width), head h at h*D. Pair (i, i + D/2), i < D/2, is rotated by the angle of
 * the row's position: (a, b) -> (a cos - b sin, b cos + a sin). cos, sin: f32 (positions, D/2). arXiv:2104.09864 */
typedef struct bb_rope {
    const float *cos, *sin;
    int64_t B, T, heads, D, width;
} bb_rope;

/* The head of M rows, with the embedding E: (V,C) f32. A linear layer of a dense model is the same product with its weights (N,K)
 * as E. */
typedef struct bb_head {
    const float *e;
    int64_t M, V, C;
} bb_head;

/* Attention over B sequences. Element d of head h of row t of sequence b is at
 * q + ((b*Tq + t)*q_stride + h*D + d), in o and do likewise with o_stride (row strides, in elements), and at
 * k + (b*kv_batch_stride + t*kv_stride + (h/(H/Hk))*D + d), in v likewise. A gradient is addressed like its variable.
 * Query t sees keys 0 .. t + (Tk - Tq). 1 <= Tq <= Tk. */
typedef struct bb_attention {
    int64_t B, Tq, Tk, H, Hk, D;
    int64_t q_stride, kv_stride, kv_batch_stride, o_stride;
} bb_attention;

/* Its inputs, f32 in the forward pass and act in the backward pass, and their gradients. */
typedef struct bb_qkv {
    const void *q, *k, *v;
} bb_qkv;
typedef struct bb_qkv_gradient {
    void *q, *k, *v;
} bb_qkv_gradient;

/* A cache of the keys and values of one sequence in all layers, for up to `capacity` positions. `data` has a layout private to
 * the backend: kv_bytes() of backend memory, zeroed before first use. F32 holds values; the other types hold codes with an f32
 * scale per position and head: INT8 quantizes like act_quant, INT6 the same with 31 in place of 127. */
typedef struct bb_kv {
    bb_kv_type type;
    int layers;
    int64_t capacity, Hk, D;
    void *data;
} bb_kv;

/* One sequence in a cached pass: positions length .. length+rows-1, rows >= 1. */
typedef struct bb_kv_sequence {
    const bb_kv *kv;
    int64_t length, rows;
} bb_kv_sequence;

/* A cached pass of B >= 1 sequences through one layer. Sequences may differ in length, rows, capacity and cache type; Hk and D
 * are the same, and no two share a cache. The rows of all sequences are stacked: element d of head h of row m of q is at
 * q + (m*q_stride + h*D + d); in o, k and v likewise, with o_stride, kv_stride and kv_stride. */
typedef struct bb_kv_batch {
    const bb_kv_sequence *sequences; /* (B) */
    int64_t B, H;
    int layer;
    int64_t q_stride, kv_stride, o_stride;
} bb_kv_batch;

/* The table of n-gram embeddings (R,C). A row that is read is s q: codes q = clip(round_half_even(x/s), -127, 127) of its values x, and
 * a scale s, max|x|/127 rounded to bf16, so that s q is exact in f32. 0 for a row of zeros. */
typedef struct bb_ngram_table {
    const float *values; /* (R,C); NULL: the table has codes and scales instead */
    int8_t *codes;       /* (R,C) */
    bb_bf16 *scales;     /* (R) */
    int64_t R, C;
} bb_ngram_table;

enum { BB_NORM_TILE = 4096 };

/* The scale g of n weights, from the sum of their absolute values. Not finite if a weight is not: the codes cannot show it. */
BB_HOST_DEVICE static inline float bb_absmean_scale(double sum, int64_t n) {
    double mean = sum / (double)n;
    return (float)(mean < 1e-8 ? 1e-8 : mean);
}

typedef struct bb_adamw {
    double lr, beta1, beta2, eps, weight_decay; /* 0 for a tensor without weight decay */
    double grad_scale;                          /* gradient clipping: every gradient is multiplied by it first */
    double bias_correction1, bias_correction2;  /* 1 - beta^step, step counted from 1 */
} bb_adamw;

/* Adagrad by rows (arXiv:1011.0808, section 5), which leaves rows without a gradient as they are. */
typedef struct bb_row_adagrad {
    double lr, eps;
    double grad_scale; /* as above */
} bb_row_adagrad;

/* Upper bound of |m| / sqrt(v) over all gradient sequences (Cauchy-Schwarz): (1 - beta1) / sqrt(1 - beta2) times the root of
 * the sum of (beta1^2 / beta2)^i over the steps so far; 1.165 in the long run for betas 0.9 and 0.95. INFINITY if the betas
 * give no bound. */
static inline double bb_adamw_moment_ratio(const bb_adamw *h) {
    double r = h->beta1 * h->beta1 / h->beta2, beta1_to_step = 1 - h->bias_correction1;
    double r_to_step = beta1_to_step > 0 ? beta1_to_step * beta1_to_step / (1 - h->bias_correction2) : 0;
    double ratio = (1 - h->beta1) / sqrt(1 - h->beta2) * sqrt((1 - r_to_step) / (1 - r));
    return isfinite(ratio) && ratio > 0 ? ratio : (double)INFINITY;
}

/* Lower bound of v, as a multiple of m^2, for moments rounded to 8 bits. Rounding may make v 0 beside an m that is not, and the
 * update would be hundreds of times the learning rate. 1% of slack leaves valid moments unchanged. */
static inline double bb_adam8_min_v(const bb_adamw *h) {
    double ratio = 1.01 * bb_adamw_moment_ratio(h);
    return 1 / (ratio * ratio);
}

/* Moments in 8 bits: blocks of BB_ADAM8_BLOCK elements; the last may be short. m, v: uint8 codes (n); *_absmax: f32
 * (ceil(n/256)). Codes use the dynamic map of Dettmers et al. (arXiv:2110.02861): signed for m, unsigned for v. All-zero
 * moments are the bytes that adamw8bit_init writes. */
enum { BB_ADAM8_BLOCK = 256 };
typedef struct bb_adam8_state {
    uint8_t *m, *v;
    float *m_absmax, *v_absmax;
} bb_adam8_state;

/* Muon (arXiv:2502.16982; Keller Jordan 2024). A matrix of N rows and K columns, dense: */
typedef struct bb_muon_matrix {
    float *p;
    const float *g;
    bb_bf16 *m;
    int64_t N, K;
} bb_muon_matrix;

typedef struct bb_muon {
    double lr, weight_decay, momentum;
    double grad_scale; /* as in bb_adamw */
    int iterations;    /* 1 .. BB_MUON_MAX_ITERATIONS */
} bb_muon;

/* Newton-Schulz: towards the nearest matrix whose rows (or columns, if N > K) are orthonormal. After five iterations singular values
 * are near 1, not at it: the coefficients are chosen for speed. After fewer, the small ones are smaller. */
enum { BB_MUON_MAX_ITERATIONS = 5 };
#define BB_MUON_A 3.4445
#define BB_MUON_B (-4.7750)
#define BB_MUON_C 2.0315
#define BB_MUON_EPS 1e-7

/* The factor of an update: a layer then changes its output by about lr times its input, whatever its shape. */
static inline double bb_muon_scale(int64_t N, int64_t K) { return N > K ? sqrt((double)N / (double)K) : 1; }

/* Measured peak rates of the device: dense dot products in 10^9 operations per second (a multiply and an add count as two), and
 * memory reads in 10^9 bytes per second. 0 if the device has no such unit. */
typedef struct bb_peaks {
    double f32, bf16, int8, read_gb;
} bb_peaks;

typedef struct bb_ops {
    const char *name;
    bb_dtype act_dtype;
    bool host_memory; /* alloc returns host memory, which other code may access between syncs. Otherwise only entries of this
                       * table may follow pointers to it, including `scale`, `data` etc. in the table's structs. */

    /* -- the device ------------------------------------------------------------------------------------------------- */
    void (*close)(bb_device *dev);
    /* Waits for all work; returns the first failure since the last sync, if any. */
    bb_status (*sync)(bb_device *dev, bb_error *err);
    /* BB_ALIGN-aligned and zeroed; NULL when out of memory. */
    void *(*alloc)(bb_device *dev, size_t bytes);
    void (*free)(bb_device *dev, void *p, size_t bytes);
    /* copy_in, copy_out, act_in and act_out are done with host memory when they return: copy_in has read all of its source
     * (which may be overwritten or freed at once); copy_out has written all of its result, after all work started before it.
     * Host memory needs no alignment. */
    void (*copy_in)(bb_device *dev, void *dst, const void *host, size_t bytes);
    void (*copy_out)(bb_device *dev, void *host, const void *src, size_t bytes);
    void (*copy)(bb_device *dev, void *dst, const void *src, size_t bytes); /* within the device */
    void (*zero)(bb_device *dev, void *p, size_t bytes);
    /* Estimated maximum of the backend's own scratch when a model of width C with V symbols is trained on batches of this
     * shape. */
    size_t (*scratch_bytes)(bb_device *dev, const bb_attention *a, int64_t C, int64_t V);
    /* Takes about a second; uses all threads. */
    void (*measure_peaks)(bb_device *dev, bb_peaks *out);
    /* Total bytes that alloc can draw on, and bytes that are free now. */
    void (*memory)(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes);
    /* One line on the hardware and libraries in use; valid until close. */
    const char *(*description)(const bb_device *dev);
    /* x: act (n) <-> host f32 (n) */
    void (*act_in)(bb_device *dev, void *x, const float *host, int64_t n);
    void (*act_out)(bb_device *dev, float *host, const void *x, int64_t n);

    /* -- embedding and head ----------------------------------------------------------------------------------------- */
    /* x[m,:] = E[idx[m],:].  idx: (M) bytes; E: (V,C) f32; x: (M,C) f32. */
    void (*embedding_forward)(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C);
    /* dE[idx[m],:] += dx[m,:], m ascending for each row of E. */
    void (*embedding_backward)(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C);
    /* x[m,:] += s q of row index[m,k], k ascending; index -1 adds nothing.  index: (M,K); x: (M,C) f32 */
    void (*ngram_forward)(bb_device *dev, float *x, const bb_ngram_table *table, const int32_t *index, int64_t M, int64_t K);
    /* d_table[index[m,k],:] += dx[m,:], m and then k ascending for each row of the table, as if nothing was rounded. */
    void (*ngram_backward)(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C);
    /* Codes and scales of rows first .. first+rows-1 of the table, from values (rows,C). */
    void (*ngram_quant)(bb_device *dev, const bb_ngram_table *table, const float *values, int64_t first, int64_t rows);
    /* logits[m,v] = sum_c h[m,c] E[v,c].  h: (M,C) f32; logits: (M,V) f32. Never quantized; products in f32. */
    void (*head_forward)(bb_device *dev, float *logits, const float *h, const bb_head *head);
    /* dh[m,c] = sum_v dlogits[m,v] E[v,c];  dE[v,c] += sum_m dlogits[m,v] h[m,c].  dh: (M,C) act. */
    void (*head_backward)(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head);
    /* nll[m] = logsumexp(logits[m,:]) - logits[m,y[m]], nats. y: (M) bytes; nll: (M) f32. */
    void (*loss_forward)(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V);
    /* dlogits[m,v] = scale * (softmax(logits[m,:])[v] - [v == y[m]]); dlogits may be logits. */
    void (*loss_backward)(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V);

    /* -- norm, rope, activation functions: each writes the input of the linear layer that follows ---------------------- */
    /* y = x * w * r,  r[m] = 1/sqrt(mean_C(x^2) + eps).  x: (M,C) f32; r: (M) f32, kept for backward.
     * y.dtype I8: each row is quantized in the same pass: s = max(max|y|/127, 1e-8), q = clip(round_half_even(y/s), -127, 127).
     * A NaN in a row makes its s NaN; its q may be anything. arXiv:1910.07467 */
    void (*rmsnorm_forward)(bb_device *dev, bb_rows y, float *r, const float *x, const bb_norm *norm);
    /* dx[m,:] += r*(w*dy) - x*r^3/C * sum_c(w*dy*x);  dw += sum_m dy*x*r.  dy: (M,C) act; dx: (M,C) f32. */
    void (*rmsnorm_backward)(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *r,
                             const bb_norm *norm);
    /* y = x, quantized as above.  x: (M,K) f32. y.dtype not I8: values rounded to that type. */
    void (*act_quant)(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K);
    /* y = x, n elements.  x: act; y: f32. */
    void (*act_to_f32)(bb_device *dev, float *y, const void *x, int64_t n);
    /* Rotates row t of each sequence of x: f32, in place, by position (position0 + t).  kept: act (B,T,width), whole rows. */
    void (*rope_forward)(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope);
    /* Rotates the same heads of dx back, by positions 0..T-1.  dx: act, in place. */
    void (*rope_backward)(bb_device *dev, void *dx, const bb_rope *rope);
    /* h = silu(gate) * up.  gate_up: (M,2F) f32, gate first; y: (M,F). y.dtype I8: quantized in the same pass.
     * kept: act (M,2F), a copy of gate_up. arXiv:2002.05202 */
    void (*swiglu_forward)(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F);
    /* d_gate = dh * up * sig(gate) * (1 + gate*(1 - sig(gate)));  d_up = dh * silu(gate).
     * dh: (M,F) act; gate_up, d_gate_up: (M,2F) act. */
    void (*swiglu_backward)(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F);

    /* -- ternary linear layers (arXiv:2402.17764) --------------------------------------------------------------------- */
    /* Bytes of t->data, from its shape and segments. */
    size_t (*ternary_bytes)(bb_device *dev, const bb_ternary *t);
    /* Whether the backend has a dense layout: fewer bytes, faster for small batches. */
    bool (*ternary_dense)(bb_device *dev);
    /* w: (N,K) f32, the segments stacked. Per segment: g = max(mean|w|, 1e-8) (mean in double, tile by tile),
     * q = round_half_even(clip(w/g, -1, 1)). Fills t->scale and t->data; the caller has set the rest of *t. */
    void (*ternary_quant)(bb_device *dev, const bb_ternary *t, const float *w);
    /* Quantizes rows first .. first+rows-1 of a one-segment t with the scale in t->scale; first is a multiple of
     * BB_TERNARY_ROWS. Their bytes in t->data are as many as ternary_bytes gives for that number of rows. w: the whole
     * (N,K). */
    void (*ternary_quant_rows)(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows);
    /* sums[t] = sum of |w[i]| in double over tile t of BB_NORM_TILE elements, tiled like sum_squares. A scale is
     * bb_absmean_scale of the sum of a segment's tiles, in order. sums: as there. */
    void (*sum_abs)(bb_device *dev, double *sums, const float *w, int64_t n);
    /* Fills t->data from codes: uint8 (N, ceil(K/4)), where bits 2(k%4) and 2(k%4)+1 of byte k/4 of a row are q + 1 <= 2. Bits
     * past K may be anything. The caller sets t->scale. */
    void (*ternary_load)(bb_device *dev, const bb_ternary *t, const uint8_t *codes);
    /* q: int8 (N,K) row-major, values -1, 0, 1. */
    void (*ternary_unpack)(bb_device *dev, int8_t *q, const bb_ternary *t);
    /* y[m,n] = residual[m,n] + s[m] * g[n] * sum_k x.q[m,k] * t.q[n,k], the sum exact in int32 (x I8), or with
     * g[n] * sum_k x[m,k] * t.q[n,k].  y, residual: (M,N) f32; y may be residual; residual NULL means zeros.
     * With x I8 cpu rounds in this order: s g; the sum to f32; their product; its sum with residual. Row results are independent of
     * batch size and row position when x is I8, and for up to BB_SMALL_BATCH_ROWS rows of any type. */
    void (*linear_forward)(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
    /* dx[m,k] = sum_n dy[m,n] * g[n] * t.q[n,k];  dw[n,k] (+)= sum_m dy[m,n] * (s[m] * x.q[m,k]).  dx: (M,K) act, may be NULL.
     * If x is I8, a backend may quantize like act_quant: for dx the rows dy[m,:] * g, for dw the columns s * dy[:,n] within a
     * run of tokens. Sums are then exact within a run; runs are added in f32. */
    void (*linear_backward)(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M);
    /* The clipped straight-through estimator: dw[n,k] = 0 where |w[n,k] / g[n]| > 1. dw, w: (N,K) f32; t gives the scales. */
    void (*ste_clip)(bb_device *dev, float *dw, const float *w, const bb_ternary *t);

    /* -- attention ---------------------------------------------------------------------------------------------------- */
    /* o = softmax(q kT / sqrt(D) + causal) v.  q, k, v, o: f32, addressed as bb_attention says; kept: act, a copy of o.
     * lse: (B,H,Tq) f32, the logsumexp of each row's scaled scores; NULL when no backward pass follows. If one does, a backend
     * may round to int8, or finer: rows of q and k (as kept) with scale max/127; v with scale max/127 of each column over a run of 128
     * keys; the probabilities over such a run with scale max/255. Memory is linear in T. arXiv:2205.14135 */
    void (*attention_forward)(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a);
    /* Bytes of kv->data. */
    size_t (*kv_bytes)(bb_device *dev, const bb_kv *kv);
    /* Stores the f32 rows of k and v at their sequences' positions. */
    void (*kv_append)(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v);
    /* attention_forward of each sequence over its cache, which already holds the batch's rows: row t of a sequence sees keys 0
     * .. length + t. A sequence's results are bit for bit those of a batch of that sequence alone. If the cache holds codes, a
     * backend may round q and the probabilities, times the values' scales, to 14 bits. */
    void (*attention_cached)(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch);
    /* Copies positions 0 .. n-1 of all layers, bit for bit. The two differ in capacity only. */
    void (*kv_copy)(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n);
    /* k, v: f32 (n, Hk*D), positions first .. first+n-1, dequantized. */
    void (*kv_unpack)(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n);
    /* All arrays are act; those of the forward pass are the kept ones. A backend that rounds in the forward pass may round here
     * as well: rows of q, k, do and v as above, for the scores and for do vT; for sums over 256 queries p with scale max/255
     * and dS with max/127 of each key, q and do with max/127 of each column; for sums over 128 keys dS with max/127 of each
     * query, k with max/127 of each column. */
    void (*attention_backward)(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                               const bb_attention *a);

    /* -- optimizer: one sweep over a tensor --------------------------------------------------------------------------- */
    /* sums[t] = sum of x[i]^2 in double over tile t: BB_NORM_TILE elements from t*BB_NORM_TILE on, fewer in the last. x: n f32;
     * sums: (ceil(n / BB_NORM_TILE)). */
    void (*sum_squares)(bb_device *dev, double *sums, const float *x, int64_t n);
    /* y += x, n f32 */
    void (*add)(bb_device *dev, float *y, const float *x, int64_t n);
    /* m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p = p (1 - lr wd) - lr (m/bc1) / (sqrt(v/bc2) + eps), with g scaled first.
     * arXiv:1711.05101 */
    void (*adamw_step)(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h);
    /* For each row r of C elements, g scaled first: v[r] += mean(g^2); p = p - lr g / (sqrt(v[r]) + eps).  v: (rows) */
    void (*row_adagrad_step)(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h);
    void (*adamw8bit_init)(bb_device *dev, bb_adam8_state s, int64_t n);
    /* The same with 8-bit moments, decoded and re-encoded block by block with the block's new absmax. v is raised to at least
     * bb_adam8_min_v() * m^2 before the update, so that no update exceeds by more than 1% what f32 moments can give. */
    void (*adamw8bit_step)(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h);
    /* For each matrix (N,K) with momentum m in bf16, mu = h->momentum, g scaled first:
     *   b = mu m + (1-mu) g;  m = b rounded;  u = (1-mu) g + mu b
     *   X = u / (|u|_F + eps); h->iterations times X = a X + (b A + c A^2) X with A = X XT (A = XT X from the right if N > K)
     *   p = p (1 - lr wd) - lr bb_muon_scale(N, K) X
     * A backend may compute X in bf16 products with f32 sums, and may multiply polynomials of A before it applies them to X. It
     * receives all matrices at once, since small ones are faster side by side than divided. */
    void (*muon_step)(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h);
    /* Bytes of the backend's own scratch for that, if (N,K) is the largest matrix. */
    size_t (*muon_scratch)(bb_device *dev, int64_t N, int64_t K);

    /* What a backend need not have: ops/optional.h. NULL: nothing of it. */
    const struct bb_optional_ops *optional;
} bb_ops;

/* An open backend. Every backend's own state begins with this. */
struct bb_device {
    const bb_ops *ops;
    int threads;
    int64_t forward_rows; /* rows the forward pass should process at a time; affects speed, not results */
    pthread_mutex_t lock; /* recursive */
    char exclusive[40];   /* names hardware that one process should have for itself; "": there is none */
};

/* For functions that open a device. bb_device_close destroys the lock. */
bb_status bb_device_init_lock(bb_device *dev, bb_error *err);

static inline bb_device *bb_device_lock(bb_device *dev) {
    (void)pthread_mutex_lock(&dev->lock);
    return dev;
}

static inline void bb_device_unlock(bb_device **dev) { (void)pthread_mutex_unlock(&(*dev)->lock); }

/* Goes first in every function of the public API that calls operations. A backend's scratch and first failure belong to the
 * device, not to the caller, so the thread holds the device until the function returns. Uncontended, this costs some tens of
 * nanoseconds. Exempt are copies of host memory by the thread that saves, for which training waits. */
#define BB_DEVICE_SCOPE(dev) bb_device *device_scope_ __attribute__((cleanup(bb_device_unlock), unused)) = bb_device_lock(dev)

/* Segment i of t as a separate matrix in the same memory. */
static inline bb_ternary bb_ternary_segment(bb_device *dev, const bb_ternary *t, int i) {
    bb_ternary preceding = *t, segment = *t;
    preceding.segments = i;
    preceding.n = i ? t->segment_end[i - 1] : 0;
    segment.segments = 1;
    segment.n = segment.segment_end[0] = t->segment_end[i] - preceding.n;
    segment.scale = t->scale + i;
    segment.data = (unsigned char *)t->data + (i ? dev->ops->ternary_bytes(dev, &preceding) : 0);
    return segment;
}

#endif
