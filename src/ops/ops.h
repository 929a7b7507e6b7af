// SPDX-License-Identifier: MIT
/* The operation table: everything that the model computes, as about 25 coarse operations that each backend fills in.
 * `ref` is the executable definition (scalar loops, double accumulation); every other backend is tested against it.
 *
 * Rules for all entries
 * - Pointers are to memory of the backend (alloc). Arrays are dense and row-major unless strides are given. Inputs and outputs
 *   do not overlap unless the entry says so.
 * - "act" is the type of what is kept for the backward pass and of the gradients between operations, ops->act_dtype: f32 in
 * ref, bf16 in cpu. Rounding to it is the only freedom that a backend has beyond the order of its sums. The forward pass does
 * not round: what stands between two operations is f32 or exact integers, since an error d before a quantizer of step s flips a
 *   code with probability d/s and so costs sqrt(d s), not d.
 * - A forward entry's `kept` is a copy for the backward pass; NULL when none follows.
 * - Entries return void. A backend records its first failure, and sync returns it.
 * - Results do not depend on the number of threads, and are the same each time.
 * - "+=" adds to what is there; everything else is overwritten. Any M, T >= 1 and any C, N, K, D allowed by bb_config_check
 *   must work, multiples of nothing. */
#ifndef BB_OPS_OPS_H
#define BB_OPS_OPS_H

#include <math.h>
#include <pthread.h>
#include <stdbool.h>

#include "core/status.h"
#include "core/tensor.h"

/* The input of a linear layer, M rows of K: int8 with one scale a row, or unquantized.
 * I8: data is int8 (M,K) in [-127,127], scale f32 (M). Otherwise data is act or f32 (M,K) as dtype says, and scale is NULL. The
 * model's are act: in cpu, bf16 in the forward pass too. */
typedef struct bb_rows {
    void *data;
    float *scale;
    bb_dtype dtype;
} bb_rows;

/* Up to BB_FEW_ROWS rows (of a sequence: attention_cached), linear_forward, head_forward and attention_cached compute a row as
 * they would alone, bit for bit. */
enum { BB_MAX_SEGMENTS = 3, BB_FEW_ROWS = 16 };

/* Rows of a prepared matrix that a backend stores as one, at the most (it divides this). */
enum { BB_TERNARY_ROWS = 64 };

/* A weight matrix (N,K) prepared for its products. Its rows are up to three tensors one below the other (q, k, v), each with
 * a scale of its own: row n belongs to the first segment i with n < segment_end[i]. `data` is laid out as the backend likes,
 * ternary_bytes() long; `scale` is f32 (segments). Both in backend memory. */
typedef struct bb_ternary bb_ternary;
struct bb_ternary {
    int64_t n, k;
    int segments;
    int64_t segment_end[BB_MAX_SEGMENTS];
    float *scale;
    void *data;
    const bb_ternary *next; /* what is read after it, NULL where that is not known: it may be fetched ahead */
    bool dense;             /* laid out for linear_forward and ternary_unpack alone; where ternary_dense() */
};

/* Attention over B sequences. Row t of a sequence b, head h, element d of q is at q + ((b*Tq + t)*q_stride + h*D + d), o and
 * do likewise with o_stride (row strides, in elements); of k and v at k + (b*kv_batch_stride + t*kv_stride + (h/(H/Hk))*D + d);
 * the gradients are addressed like what they are the gradients of.
 * Query t sees keys 0 .. t + (Tk - Tq). 1 <= Tq <= Tk. */
typedef struct bb_attention {
    int64_t B, Tq, Tk, H, Hk, D;
    int64_t q_stride, kv_stride, kv_batch_stride, o_stride;
} bb_attention;

/* A cache of the keys and values of one sequence in all layers, for up to `capacity` positions. `data` is laid out as the
 * backend likes, in kv_bytes() of backend memory, zeroed before its first use. F32 holds values; the others hold codes with an f32
 * scale for each position and head: INT8 as act_quant quantizes a row, INT6 in the same way with 31 in place of 127. */
typedef struct bb_kv {
    bb_kv_type type;
    int layers;
    int64_t capacity, Hk, D;
    void *data;
} bb_kv;

/* A sequence's part of a cached pass: positions length .. length+rows-1, rows >= 1. */
typedef struct bb_kv_sequence {
    const bb_kv *kv;
    int64_t length, rows;
} bb_kv_sequence;

/* A cached pass of B >= 1 sequences through one layer. Their lengths, rows, and capacities and types of cache may differ; Hk
 * and D are the same, and no two share a cache. The rows of the sequences lie one below the other: element d of head h of row m
 * of q is at q + (m*q_stride + h*D + d), of o, k and v likewise, with o_stride, kv_stride and kv_stride. */
typedef struct bb_kv_batch {
    const bb_kv_sequence *sequences; /* (B) */
    int64_t B, H;
    int layer;
    int64_t q_stride, kv_stride, o_stride;
} bb_kv_batch;

enum { BB_NORM_TILE = 4096 };

/* g of n weights, the sum of whose absolute values is given. Not finite where a weight is not: the codes can't say so. */
static inline float bb_absmean_scale(double sum, int64_t n) {
    double mean = sum / (double)n;
    return (float)(mean < 1e-8 ? 1e-8 : mean);
}

typedef struct bb_adamw {
    double lr, beta1, beta2, eps, weight_decay; /* weight_decay 0 for a tensor that does not decay */
    double grad_scale;                          /* the clip: every gradient is multiplied by it first */
    double bias_correction1, bias_correction2;  /* 1 - beta^step, step counted from 1 */
} bb_adamw;

/* |m| <= this * sqrt(v) for the moments that any gradients give (Cauchy-Schwarz): (1 - beta1) / sqrt(1 - beta2) times the root of the
 * sum of (beta1^2 / beta2)^i over the steps so far; 1.165 in the long run for betas 0.9 and 0.95. INFINITY where betas give no
 * bound. */
static inline double bb_adamw_moment_ratio(const bb_adamw *h) {
    double r = h->beta1 * h->beta1 / h->beta2, beta1_to_step = 1 - h->bias_correction1;
    double r_to_step = beta1_to_step > 0 ? beta1_to_step * beta1_to_step / (1 - h->bias_correction2) : 0;
    double ratio = (1 - h->beta1) / sqrt(1 - h->beta2) * sqrt((1 - r_to_step) / (1 - r));
    return isfinite(ratio) && ratio > 0 ? ratio : (double)INFINITY;
}

/* What v is at least, as a multiple of m^2, where moments are rounded to 8 bits: v may have become 0 beside an m that did not, and
 * the update would be hundreds of times the learning rate. 1% of slack leaves moments alone that are as they should be. */
static inline double bb_adam8_least_v(const bb_adamw *h) {
    double ratio = 1.01 * bb_adamw_moment_ratio(h);
    return 1 / (ratio * ratio);
}

/* Moments in 8 bits: blocks of BB_ADAM8_BLOCK elements, the last one short. q*: uint8 codes (n), absmax*: f32 (ceil(n/256)).
 * Codes are those of the dynamic map of Dettmers et al. (arXiv 2110.02861): signed for m, unsigned for v. All-zero moments
 * are the bytes that adamw8bit_init writes. */
enum { BB_ADAM8_BLOCK = 256 };
typedef struct bb_adam8_state {
    uint8_t *m, *v;
    float *m_absmax, *v_absmax;
} bb_adam8_state;

/* What the device can do at most, measured: dense dot products in 10^9 operations (a multiply and an add are two) a second, and
 * reading memory in 10^9 bytes a second. 0: the device has no such thing. */
typedef struct bb_peaks {
    double f32, bf16, int8, read_gb;
} bb_peaks;

typedef struct bb_ops {
    const char *name;
    bb_dtype act_dtype;
    bool host_memory; /* alloc gives memory of the host: other code may read and write it between syncs. Otherwise pointers
                       * to it are for entries of this table alone, and `scale`, `data` etc. of its structs too */

    /* -- the device ------------------------------------------------------------------------------------------------- */
    void (*close)(bb_device *dev);
    /* Waits for all work; the first failure since the last sync, if any. */
    bb_status (*sync)(bb_device *dev, bb_error *err);
    /* BB_ALIGN-aligned, zeroed; NULL when there is not enough. */
    void *(*alloc)(bb_device *dev, size_t bytes);
    void (*free)(bb_device *dev, void *p, size_t bytes);
    /* The host's memory is the caller's again when copy_in, copy_out, act_in or act_out returns: copy_in has read all of its
     * source (which may be overwritten or freed at once), copy_out has written all of its result, after the work that was
     * started before it. Host memory needs no alignment. */
    void (*copy_in)(bb_device *dev, void *dst, const void *host, size_t bytes);
    void (*copy_out)(bb_device *dev, void *host, const void *src, size_t bytes);
    void (*copy)(bb_device *dev, void *dst, const void *src, size_t bytes); /* within the device */
    void (*zero)(bb_device *dev, void *p, size_t bytes);
    /* About the most that the backend's own scratch grows to when a model of width C with V symbols is trained on such batches.
     */
    size_t (*scratch_bytes)(bb_device *dev, const bb_attention *a, int64_t C, int64_t V);
    /* Takes about a second; all threads. */
    void (*measure_peaks)(bb_device *dev, bb_peaks *out);
    /* Bytes that alloc has in all, and those that are free now. */
    void (*memory)(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes);
    /* One line on what is used of the hardware, and the libraries below; valid until close. */
    const char *(*description)(const bb_device *dev);
    /* x: act (n) <-> host f32 (n) */
    void (*act_in)(bb_device *dev, void *x, const float *host, int64_t n);
    void (*act_out)(bb_device *dev, float *host, const void *x, int64_t n);

    /* -- embedding and head ----------------------------------------------------------------------------------------- */
    /* x[m,:] = E[idx[m],:].  idx: (M) bytes; E: (V,C) f32; x: (M,C) f32. */
    void (*embedding_forward)(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C);
    /* dE[idx[m],:] += dx[m,:], m ascending for each row of E. */
    void (*embedding_backward)(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C);
    /* logits[m,v] = sum_c h[m,c] E[v,c].  h: (M,C) f32; logits: (M,V) f32. Never quantized, f32 products. */
    void (*head_forward)(bb_device *dev, float *logits, const float *h, const float *e, int64_t M, int64_t V, int64_t C);
    /* dh[m,c] = sum_v dlogits[m,v] E[v,c];  dE[v,c] += sum_m dlogits[m,v] h[m,c].  dh: (M,C) act. */
    void (*head_backward)(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const float *e, int64_t M,
                          int64_t V, int64_t C);
    /* nll[m] = logsumexp(logits[m,:]) - logits[m,y[m]], nats. y: (M) bytes; nll: (M) f32. */
    void (*loss_forward)(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V);
    /* dlogits[m,v] = scale * (softmax(logits[m,:])[v] - [v == y[m]]); dlogits may be logits. */
    void (*loss_backward)(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V);

    /* -- norm, rope, activation functions: each writes the input of the linear layer that follows ---------------------- */
    /* y = x * w * r,  r[m] = 1/sqrt(mean_C(x^2) + eps).  x: (M,C) f32; w: (C) f32; r: (M) f32, kept for backward.
     * y.dtype I8: quantized row by row in the same pass: s = max(max|y|/127, 1e-8), q = clip(round_half_even(y/s), -127, 127).
     * A NaN in a row makes its s NaN, whatever its q.
     * arXiv:1910.07467 */
    void (*rmsnorm_forward)(bb_device *dev, bb_rows y, float *r, const float *x, const float *w, float eps, int64_t M,
                            int64_t C);
    /* dx[m,:] += r*(w*dy) - x*r^3/C * sum_c(w*dy*x);  dw += sum_m dy*x*r.  dy: (M,C) act; dx: (M,C) f32. */
    void (*rmsnorm_backward)(bb_device *dev, float *dx, float *dw, const void *dy, const float *x, const float *w,
                             const float *r, int64_t M, int64_t C);
    /* y = x, quantized as above.  x: (M,K) f32. y.dtype not I8: the values, rounded to that type. */
    void (*act_quant)(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K);
    /* Turns heads 0..heads-1 of each row of x: (B,T,width) f32, head h at h*D, in place. Pair (i, i + D/2), i < D/2, by the
     * angle of position (position0 + t):  (a, b) -> (a cos - b sin, b cos + a sin).  kept: act (B,T,width), whole rows.
     * cos, sin: f32 (positions, D/2). arXiv:2104.09864 */
    void (*rope_forward)(bb_device *dev, float *x, void *kept, const float *cos, const float *sin, int64_t position0, int64_t B,
                         int64_t T, int64_t heads, int64_t D, int64_t width);
    /* Turns the same heads of dx back by positions 0..T-1.  dx: act (B,T,width), in place. */
    void (*rope_backward)(bb_device *dev, void *dx, const float *cos, const float *sin, int64_t B, int64_t T, int64_t heads,
                          int64_t D, int64_t width);
    /* h = silu(gate) * up.  gate_up: (M,2F) f32, gate first; y: (M,F). y.dtype I8: quantized in the same pass.
     * kept: act (M,2F), of gate_up. arXiv:2002.05202 */
    void (*swiglu_forward)(bb_device *dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F);
    /* d_gate = dh * up * sig(gate) * (1 + gate*(1 - sig(gate)));  d_up = dh * silu(gate).
     * dh: (M,F) act; gate_up, d_gate_up: (M,2F) act. */
    void (*swiglu_backward)(bb_device *dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F);

    /* -- ternary linear layers (arXiv:2402.17764) --------------------------------------------------------------------- */
    /* Of t->data, from the shape and the segments. */
    size_t (*ternary_bytes)(bb_device *dev, const bb_ternary *t);
    /* Whether there is a layout that takes fewer bytes, which few rows are multiplied with sooner. */
    bool (*ternary_dense)(bb_device *dev);
    /* w: (N,K) f32, the segments one below the other. Per segment: g = max(mean|w|, 1e-8) (mean in double, by tiles),
     * q = round_half_even(clip(w/g, -1, 1)). Fills t->scale and t->data; the rest of *t is the caller's. */
    void (*ternary_quant)(bb_device *dev, const bb_ternary *t, const float *w);
    /* Rows first .. first+rows-1 of a t of one segment, with the scale that t->scale holds; first is a multiple of
     * BB_TERNARY_ROWS. They are the bytes of t->data that ternary_bytes gives for as many rows. w: the whole (N,K). */
    void (*ternary_quant_rows)(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows);
    /* sums[t] = the sum of |w[i]| in double over tile t, of BB_NORM_TILE elements, as sum_squares. A scale is
     * bb_absmean_scale of the sum of a segment's tiles in their order. */
    void (*sum_abs)(bb_device *dev, double *sums, const float *w, int64_t n);
    /* t->data from codes: uint8 (N, ceil(K/4)), where bits 2(k%4) and 2(k%4)+1 of byte k/4 of a row are
     * q + 1 <= 2. The bits past K may be anything. t->scale is the caller's. */
    void (*ternary_load)(bb_device *dev, const bb_ternary *t, const uint8_t *codes);
    /* q: int8 (N,K) row-major, values -1, 0, 1. */
    void (*ternary_unpack)(bb_device *dev, int8_t *q, const bb_ternary *t);
    /* Of up to BB_FEW_ROWS rows, and of any number where x is I8, a row's result depends neither on M nor on its place.
     * y[m,n] = residual[m,n] + s[m] * g[n] * sum_k x.q[m,k] * t.q[n,k], the sum exact in int32 (x I8), or with
     * g[n] * sum_k x[m,k] * t.q[n,k].  y, residual: (M,N) f32; y may be residual, which is NULL for zeros. */
    void (*linear_forward)(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
    /* dx[m,k] = sum_n dy[m,n] * g[n] * t.q[n,k];  dw[n,k] (+)= sum_m dy[m,n] * (s[m] * x.q[m,k]).
     * dy: (M,N), f32 or act as dy_dtype says; dx: (M,K) act, may be NULL; dw: (N,K) f32, added to where `add`, else
     * overwritten. Where x is I8 a backend may quantize, as activations are, the rows dy[m,:] * g for dx, and for dw the
     * columns s * dy[:,n] of a run of tokens; the sums are then exact, those of runs being added in f32. */
    void (*linear_backward)(bb_device *dev, void *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M);
    /* The clipped estimator: dw[n,k] = 0 where |w[n,k] / g[n]| > 1. dw, w: (N,K) f32; t gives the scales. */
    void (*ste_clip)(bb_device *dev, float *dw, const float *w, const bb_ternary *t);

    /* -- attention ---------------------------------------------------------------------------------------------------- */
    /* o = softmax(q kT / sqrt(D) + causal) v.  q, k, v, o: f32, addressed as bb_attention says; kept: act, of o. lse: (B,H,Tq)
     * f32, the logsumexp of each row's scaled scores, NULL when no backward follows. Where one does, a backend may round to
     * int8: rows of q and k, as they are kept, to steps of their largest over 127, v to steps of its column's largest in a run
     * of 128 keys over 127, and the weights of such a run to steps of their largest over 255. Memory linear in T.
     * arXiv:2205.14135 */
    void (*attention_forward)(bb_device *dev, float *o, void *kept, float *lse, const float *q, const float *k, const float *v,
                              const bb_attention *a);
    /* Bytes of kv->data. */
    size_t (*kv_bytes)(bb_device *dev, const bb_kv *kv);
    /* Stores the rows of k and v, f32, at their sequences' positions. */
    void (*kv_append)(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v);
    /* attention_forward of each sequence over its cache, which holds the batch's rows already: row t of a sequence sees keys 0 ..
     * length + t. A sequence's rows get the same bits as in a batch of that sequence alone. Where the cache holds codes, a
     * backend may round q and the weights of the values to 14 bits. */
    void (*attention_cached)(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch);
    /* k, v: f32 (n, Hk*D), the values of positions first .. first+n-1, codes times their scale. */
    void (*kv_unpack)(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n);
    /* All act: of the forward pass, what was kept. A backend that rounds in the forward pass may here as well: rows of q, k, do
     * and v as rows are there, for the scores and for do vT; for what is summed over 256 queries p to steps of a key's largest
     * over 255, dS over 127, q and do to a column's largest over 127; for what is summed over 128 keys dS to a query's largest
     * over 127, k to a column's. */
    void (*attention_backward)(bb_device *dev, void *dq, void *dk, void *dv, const void *d_o, const void *q, const void *k,
                               const void *v, const void *o, const float *lse, const bb_attention *a);

    /* -- optimizer: one sweep over a tensor --------------------------------------------------------------------------- */
    /* sums[t] = the sum of x[i]^2 in double over tile t: BB_NORM_TILE elements from t*BB_NORM_TILE on, fewer in the last one.
     * x: n f32; sums: host (ceil(n / BB_NORM_TILE)). Waits for the result. */
    void (*sum_squares)(bb_device *dev, double *sums, const float *x, int64_t n);
    /* y += x, n f32 */
    void (*add)(bb_device *dev, float *y, const float *x, int64_t n);
    /* m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p = p (1 - lr wd) - lr (m/bc1) / (sqrt(v/bc2) + eps), g scaled first.
     * arXiv:1711.05101 */
    void (*adamw_step)(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h);
    void (*adamw8bit_init)(bb_device *dev, bb_adam8_state s, int64_t n);
    /* The same on decoded moments, which are encoded again block by block with the block's new absmax. v is raised to at least
     * bb_adam8_least_v() * m^2 before the update, so that no update exceeds what f32 moments can give by more than 1%. */
    void (*adamw8bit_step)(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h);
} bb_ops;

/* A bb_device is an open backend; every backend's own state begins with this. */
struct bb_device {
    const bb_ops *ops;
    int threads;
    int64_t forward_rows; /* rows that the forward pass should take at a time; no result depends on it */
    pthread_mutex_t lock; /* recursive */
};

/* For what opens a device. bb_device_close destroys the lock. */
bb_status bb_device_init_lock(bb_device *dev, bb_error *err);

static inline bb_device *bb_device_lock(bb_device *dev) {
    (void)pthread_mutex_lock(&dev->lock);
    return dev;
}

static inline void bb_device_unlock(bb_device **dev) { (void)pthread_mutex_unlock(&(*dev)->lock); }

/* First in every function of the public API that calls operations: a backend's scratch and its first failure are the device's, not
 * the caller's, so the device is this thread's until the function returns. Some tens of nanoseconds where no other thread waits.
 * Exempt are copies of host memory by the thread that saves, for which training waits. */
#define BB_DEVICE_SCOPE(dev) bb_device *device_scope_ __attribute__((cleanup(bb_device_unlock), unused)) = bb_device_lock(dev)

/* Segment i of t as a matrix of its own, in the same memory. */
static inline bb_ternary bb_ternary_segment(bb_device *dev, const bb_ternary *t, int i) {
    bb_ternary before = *t, segment = *t;
    before.segments = i;
    before.n = i ? t->segment_end[i - 1] : 0;
    segment.segments = 1;
    segment.n = segment.segment_end[0] = t->segment_end[i] - before.n;
    segment.scale = t->scale + i;
    segment.data = (unsigned char *)t->data + (i ? dev->ops->ternary_bytes(dev, &before) : 0);
    return segment;
}

#endif
