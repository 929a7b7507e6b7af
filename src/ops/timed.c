// SPDX-License-Identifier: MIT
/* A device that times another device's operations. */
#include "ops/timed.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

typedef struct timed {
    bb_device base;
    bb_ops ops; /* the table `entries` with the inner device's name and properties */
    bb_device *inner;
    bool on;
    bb_error failure; /* the first since the last sync; code BB_OK if none */
    bb_timings timings;
} timed;

static timed *timed_of(bb_device *dev) { return (timed *)dev; }
static bb_device *inner_of(const bb_device *dev) { return ((const timed *)dev)->inner; }

/* The work of one call. */
typedef struct work {
    bb_limit limit;
    double amount;
    int64_t n, k;
} work;

static const work no_work = {.limit = BB_LIMIT_NONE};

static bb_timed_entry *entry_of(timed *t, const char *name, const work *w) {
    bb_timings *s = &t->timings;
    for (int i = 0; i < s->count; i++) {
        bb_timed_entry *e = &s->entry[i];
        if (e->name == name && e->n == w->n && e->k == w->k && e->limit == w->limit) return e;
    }
    if (s->count < BB_TIMED_ENTRIES) {
        s->entry[s->count] = (bb_timed_entry){.name = name, .n = w->n, .k = w->k, .limit = w->limit};
        s->count++;
    } /* a full table (more shapes than any model has): the last entry collects the rest */
    return &s->entry[s->count - 1];
}

static void wait_for_inner(timed *t) {
    bb_error failure;
    if (t->inner->ops->sync(t->inner, &failure) != BB_OK && t->failure.code == BB_OK) t->failure = failure;
}

static double begin(const timed *t) { return t->on ? bb_clock_seconds() : 0; }

static void end(timed *t, const char *name, double start, work w) {
    if (!t->on) return;
    wait_for_inner(t);
    double seconds = bb_clock_seconds() - start;
    bb_timed_entry *e = entry_of(t, name, &w);
    e->calls++;
    e->seconds += seconds;
    e->work += w.amount;
}

/* ---- work, computed from the arguments ------------------------------------------------------------------------------- */

static bb_limit limit_of(bb_dtype dtype) {
    return dtype == BB_I8 ? BB_LIMIT_INT8 : dtype == BB_BF16 || dtype == BB_F16 ? BB_LIMIT_BF16 : BB_LIMIT_F32;
}

/* `products` matrix products of M rows by an (N,K) matrix. */
static work matrix_work(bb_limit limit, double products, int64_t M, int64_t N, int64_t K) {
    return (work){.limit = limit, .amount = 2 * products * (double)M * (double)N * (double)K};
}

static work linear_work(bb_limit limit, double products, int64_t M, const bb_ternary *t) {
    work w = matrix_work(limit, products, M, t->n, t->k);
    w.n = t->n;
    w.k = t->k;
    return w;
}

/* `products` dot products of each query with every key it sees. */
static work attention_work(double products, const bb_attention *a) {
    double seen = (double)a->Tq * (double)(a->Tk - a->Tq) + (double)a->Tq * (double)(a->Tq + 1) / 2;
    return (work){.limit = BB_LIMIT_BF16, .amount = 2 * products * (double)(a->B * a->H * a->D) * seen};
}

/* The same for each sequence's rows and cache. */
static work cached_work(const bb_kv_batch *batch) {
    work sum = {.limit = BB_LIMIT_BF16};
    for (int64_t i = 0; i < batch->B; i++) {
        const bb_kv_sequence *s = &batch->sequences[i];
        bb_attention a = {.B = 1, .Tq = s->rows, .Tk = s->length + s->rows, .H = batch->H, .D = s->kv->D};
        sum.amount += attention_work(2, &a).amount;
    }
    return sum;
}

/* ---- the entries ------------------------------------------------------------------------------------------------------ */

/* Defines `entry`, which calls the inner device's with `args`; pass params and args in parentheses. Names are compared by
 * address. */
#define TIMED(entry, params, args, counted_as)                                                                                 \
    static void entry params {                                                                                                 \
        static const char name[] = #entry;                                                                                     \
        timed *t_ = timed_of(dev);                                                                                             \
        double start_ = begin(t_);                                                                                             \
        t_->inner->ops->entry args;                                                                                            \
        end(t_, name, start_, counted_as);                                                                                     \
    }

static void close_device(bb_device *dev) { free(dev); }

static bb_status sync_device(bb_device *dev, bb_error *err) {
    timed *t = timed_of(dev);
    wait_for_inner(t);
    bb_error failure = t->failure;
    t->failure.code = BB_OK;
    return failure.code == BB_OK ? BB_OK : bb_fail(err, failure.code, "%s", failure.message);
}

static void *alloc(bb_device *dev, size_t bytes) { return inner_of(dev)->ops->alloc(inner_of(dev), bytes); }
static void release(bb_device *dev, void *p, size_t bytes) { inner_of(dev)->ops->free(inner_of(dev), p, bytes); }
TIMED(copy_in, (bb_device * dev, void *dst, const void *host, size_t bytes), (inner_of(dev), dst, host, bytes), no_work)
TIMED(copy_out, (bb_device * dev, void *host, const void *src, size_t bytes), (inner_of(dev), host, src, bytes), no_work)
TIMED(copy, (bb_device * dev, void *dst, const void *src, size_t bytes), (inner_of(dev), dst, src, bytes), no_work)
TIMED(zero, (bb_device * dev, void *p, size_t bytes), (inner_of(dev), p, bytes), no_work)
static size_t scratch_bytes(bb_device *dev, const bb_attention *a, int64_t C, int64_t V) {
    return inner_of(dev)->ops->scratch_bytes(inner_of(dev), a, C, V);
}
static void measure_peaks(bb_device *dev, bb_peaks *out) {
    inner_of(dev)->ops->measure_peaks(inner_of(dev), out);
    timed_of(dev)->timings.peaks = *out;
}
static void memory(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes) {
    inner_of(dev)->ops->memory(inner_of(dev), total_bytes, free_bytes);
}
static const char *description(const bb_device *dev) { return inner_of(dev)->ops->description(inner_of(dev)); }
TIMED(act_in, (bb_device * dev, void *x, const float *host, int64_t n), (inner_of(dev), x, host, n), no_work)
TIMED(act_out, (bb_device * dev, float *host, const void *x, int64_t n), (inner_of(dev), host, x, n), no_work)
TIMED(embedding_forward, (bb_device * dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C),
      (inner_of(dev), x, idx, e, M, V, C), no_work)
TIMED(embedding_backward, (bb_device * dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C),
      (inner_of(dev), de, idx, dx, M, V, C), no_work)
TIMED(ngram_forward, (bb_device * dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K),
      (inner_of(dev), x, t, index, M, K), no_work)
TIMED(ngram_backward, (bb_device * dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K, int64_t C),
      (inner_of(dev), d_table, index, dx, M, K, C), no_work)
TIMED(ngram_quant, (bb_device * dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows),
      (inner_of(dev), t, values, first, rows), no_work)
TIMED(head_forward, (bb_device * dev, float *logits, const float *h, const bb_head *head), (inner_of(dev), logits, h, head),
      matrix_work(BB_LIMIT_F32, 1, head->M, head->V, head->C))
TIMED(head_backward, (bb_device * dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head),
      (inner_of(dev), dh, de, dlogits, h, head), matrix_work(BB_LIMIT_F32, 2, head->M, head->V, head->C))
TIMED(loss_forward, (bb_device * dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V),
      (inner_of(dev), nll, logits, y, M, V), no_work)
TIMED(loss_backward,
      (bb_device * dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M, int64_t V),
      (inner_of(dev), dlogits, logits, y, scale, M, V), no_work)
TIMED(rmsnorm_forward, (bb_device * dev, bb_rows y, float *r, const float *x, const bb_norm *norm),
      (inner_of(dev), y, r, x, norm), no_work)
TIMED(rmsnorm_backward,
      (bb_device * dev, float *dx, float *dw, const void *dy, const float *x, const float *r, const bb_norm *norm),
      (inner_of(dev), dx, dw, dy, x, r, norm), no_work)
TIMED(act_quant, (bb_device * dev, bb_rows y, const float *x, int64_t M, int64_t K), (inner_of(dev), y, x, M, K), no_work)
TIMED(act_to_f32, (bb_device * dev, float *y, const void *x, int64_t n), (inner_of(dev), y, x, n), no_work)
TIMED(rope_forward, (bb_device * dev, float *x, void *kept, int64_t position0, const bb_rope *rope),
      (inner_of(dev), x, kept, position0, rope), no_work)
TIMED(rope_backward, (bb_device * dev, void *dx, const bb_rope *rope), (inner_of(dev), dx, rope), no_work)
TIMED(swiglu_forward, (bb_device * dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F),
      (inner_of(dev), y, kept, gate_up, M, F), no_work)
TIMED(swiglu_backward, (bb_device * dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F),
      (inner_of(dev), d_gate_up, gate_up, dh, M, F), no_work)
static size_t ternary_bytes(bb_device *dev, const bb_ternary *t) { return inner_of(dev)->ops->ternary_bytes(inner_of(dev), t); }
static bool ternary_dense(bb_device *dev) { return inner_of(dev)->ops->ternary_dense(inner_of(dev)); }
TIMED(ternary_quant, (bb_device * dev, const bb_ternary *t, const float *w), (inner_of(dev), t, w), no_work)
TIMED(ternary_quant_rows, (bb_device * dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows),
      (inner_of(dev), t, w, first, rows), no_work)
TIMED(sum_abs, (bb_device * dev, double *sums, const float *w, int64_t n), (inner_of(dev), sums, w, n), no_work)
TIMED(ternary_load, (bb_device * dev, const bb_ternary *t, const uint8_t *codes), (inner_of(dev), t, codes), no_work)
TIMED(ternary_unpack, (bb_device * dev, int8_t *q, const bb_ternary *t), (inner_of(dev), q, t), no_work)
TIMED(linear_forward, (bb_device * dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M),
      (inner_of(dev), y, residual, x, t, M), linear_work(limit_of(x.dtype), 1, M, t))
TIMED(linear_backward, (bb_device * dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M),
      (inner_of(dev), dx, g, x, t, M), linear_work(BB_LIMIT_BF16, dx ? 2 : 1, M, t))
TIMED(ste_clip, (bb_device * dev, float *dw, const float *w, const bb_ternary *t), (inner_of(dev), dw, w, t), no_work)
TIMED(attention_forward, (bb_device * dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a),
      (inner_of(dev), o, kept, lse, x, a), attention_work(2, a))
TIMED(kv_append, (bb_device * dev, const bb_kv_batch *batch, const float *k, const float *v), (inner_of(dev), batch, k, v),
      no_work)
TIMED(attention_cached, (bb_device * dev, float *o, const float *q, const bb_kv_batch *batch), (inner_of(dev), o, q, batch),
      cached_work(batch))
TIMED(kv_copy, (bb_device * dev, const bb_kv *to, const bb_kv *from, int64_t n), (inner_of(dev), to, from, n), no_work)
TIMED(kv_unpack, (bb_device * dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n),
      (inner_of(dev), k, v, kv, layer, first, n), no_work)
static size_t kv_bytes(bb_device *dev, const bb_kv *kv) { return inner_of(dev)->ops->kv_bytes(inner_of(dev), kv); }
TIMED(attention_backward,
      (bb_device * dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse, const bb_attention *a),
      (inner_of(dev), dx, d_o, x, o, lse, a), attention_work(4, a))
TIMED(sum_squares, (bb_device * dev, double *sums, const float *x, int64_t n), (inner_of(dev), sums, x, n), no_work)
TIMED(add, (bb_device * dev, float *y, const float *x, int64_t n), (inner_of(dev), y, x, n), no_work)
TIMED(adamw_step, (bb_device * dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h),
      (inner_of(dev), p, g, m, v, n, h), no_work)
TIMED(row_adagrad_step, (bb_device * dev, float *p, const float *g, float *v, int64_t rows, int64_t C, const bb_row_adagrad *h),
      (inner_of(dev), p, g, v, rows, C, h), no_work)
TIMED(adamw8bit_init, (bb_device * dev, bb_adam8_state s, int64_t n), (inner_of(dev), s, n), no_work)
TIMED(adamw8bit_step, (bb_device * dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h),
      (inner_of(dev), p, g, s, n, h), no_work)
TIMED(muon_step, (bb_device * dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h),
      (inner_of(dev), matrices, count, h), no_work)
static size_t muon_scratch(bb_device *dev, int64_t N, int64_t K) {
    return inner_of(dev)->ops->muon_scratch(inner_of(dev), N, K);
}

static const bb_ops entries = {.close = close_device,
                               .sync = sync_device,
                               .alloc = alloc,
                               .free = release,
                               .copy_in = copy_in,
                               .copy_out = copy_out,
                               .copy = copy,
                               .zero = zero,
                               .scratch_bytes = scratch_bytes,
                               .measure_peaks = measure_peaks,
                               .memory = memory,
                               .description = description,
                               .act_in = act_in,
                               .act_out = act_out,
                               .embedding_forward = embedding_forward,
                               .embedding_backward = embedding_backward,
                               .ngram_forward = ngram_forward,
                               .ngram_backward = ngram_backward,
                               .ngram_quant = ngram_quant,
                               .head_forward = head_forward,
                               .head_backward = head_backward,
                               .loss_forward = loss_forward,
                               .loss_backward = loss_backward,
                               .rmsnorm_forward = rmsnorm_forward,
                               .rmsnorm_backward = rmsnorm_backward,
                               .act_quant = act_quant,
                               .act_to_f32 = act_to_f32,
                               .rope_forward = rope_forward,
                               .rope_backward = rope_backward,
                               .swiglu_forward = swiglu_forward,
                               .swiglu_backward = swiglu_backward,
                               .ternary_bytes = ternary_bytes,
                               .ternary_dense = ternary_dense,
                               .ternary_quant = ternary_quant,
                               .ternary_quant_rows = ternary_quant_rows,
                               .sum_abs = sum_abs,
                               .ternary_load = ternary_load,
                               .ternary_unpack = ternary_unpack,
                               .linear_forward = linear_forward,
                               .linear_backward = linear_backward,
                               .ste_clip = ste_clip,
                               .attention_forward = attention_forward,
                               .kv_bytes = kv_bytes,
                               .kv_copy = kv_copy,
                               .kv_unpack = kv_unpack,
                               .kv_append = kv_append,
                               .attention_cached = attention_cached,
                               .attention_backward = attention_backward,
                               .sum_squares = sum_squares,
                               .add = add,
                               .adamw_step = adamw_step,
                               .row_adagrad_step = row_adagrad_step,
                               .adamw8bit_init = adamw8bit_init,
                               .adamw8bit_step = adamw8bit_step,
                               .muon_step = muon_step,
                               .muon_scratch = muon_scratch};

bb_status bb_timed_open(bb_device *inner, bb_device **out, bb_error *err) {
    *out = NULL;
    timed *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    t->inner = inner;
    t->ops = entries;
    t->ops.name = inner->ops->name;
    t->ops.act_dtype = inner->ops->act_dtype;
    t->ops.host_memory = inner->ops->host_memory;
    t->base.ops = &t->ops;
    t->base.threads = inner->threads;
    t->base.forward_rows = inner->forward_rows;
    bb_status status = bb_device_init_lock(&t->base, err);
    if (status == BB_OK)
        *out = &t->base;
    else
        free(t);
    return status;
}

void bb_timed_start(bb_device *dev) {
    timed *t = timed_of(dev);
    wait_for_inner(t);
    t->timings.count = 0;
    t->timings.started = bb_clock_seconds();
    t->on = true;
}

void bb_timed_stop(bb_device *dev) { timed_of(dev)->on = false; }

const bb_timings *bb_timed_timings(const bb_device *dev) {
    return dev->ops->close == close_device ? &((const timed *)dev)->timings : NULL;
}
