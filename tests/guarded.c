// SPDX-License-Identifier: MIT
#include "guarded.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/registry.h"

/* Two ranges of as many bytes: `real`, where ref works, and `shown`, the addresses that callers get. Between two allocations lie
 * bytes that belong to none, so that what runs over the end of one is found. */
#define RANGE_BYTES ((size_t)4 << 30)
enum { GAP = 4096, MAX_LIVE = 512 };

typedef struct live {
    size_t begin, bytes; /* from the beginning of the range */
} live;

typedef struct guarded {
    bb_device base;
    bb_ops ops;
    bb_device *inner;
    char *real, *shown;
    live live[MAX_LIVE]; /* by `begin` */
    int count, copies;
} guarded;

static guarded *of(const bb_device *dev) { return (guarded *)(uintptr_t)dev; }

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

/* The first gap that is wide enough. */
static void *alloc(bb_device *dev, size_t bytes) {
    guarded *g = of(dev);
    if (bytes > RANGE_BYTES || g->count == MAX_LIVE) return NULL;
    size_t begin = 0;
    int at = 0;
    while (at < g->count && g->live[at].begin < begin + bytes + GAP) {
        begin = bb_align_up(g->live[at].begin + g->live[at].bytes + GAP);
        at++;
    }
    if (begin + bytes > RANGE_BYTES) return NULL;
    memmove(&g->live[at + 1], &g->live[at], (size_t)(g->count - at) * sizeof *g->live);
    g->live[at] = (live){begin, bytes};
    g->count++;
    memset(g->real + begin, 0, bytes);
    return g->shown + begin;
}

static void release(bb_device *dev, void *p, size_t bytes) {
    guarded *g = of(dev);
    if (!p) return;
    for (int i = 0; i < g->count; i++) {
        if (g->shown + g->live[i].begin != p) continue;
        if (g->live[i].bytes != bytes) break;
        memset(g->real + g->live[i].begin, 0xa5, bytes); /* who still reads it does not get what was there */
        memmove(&g->live[i], &g->live[i + 1], (size_t)(g->count - i - 1) * sizeof *g->live);
        g->count--;
        return;
    }
    fprintf(stderr, "guarded device: free of %zu bytes at %p, which alloc did not give like this\n", bytes, p);
    abort();
}

/* Where the `bytes` bytes at p really are. NULL stays NULL. */
static void *real_at(bb_device *dev, const char *entry, const char *argument, const void *p, int64_t bytes) {
    guarded *g = of(dev);
    if (!p) return NULL;
    size_t at = (size_t)((uintptr_t)p - (uintptr_t)g->shown);
    for (int i = 0; i < g->count; i++)
        if (at >= g->live[i].begin && at - g->live[i].begin <= g->live[i].bytes &&
            (size_t)bytes <= g->live[i].bytes - (at - g->live[i].begin))
            return g->real + at;
    fprintf(stderr, "guarded device: %s: %s is no %lld bytes of the device's memory\n", entry, argument, (long long)bytes);
    abort();
}

/* What an entry must not be given for host memory. */
static void *host_at(bb_device *dev, const char *entry, const char *argument, const void *p) {
    if (guarded_owns(dev, p)) {
        fprintf(stderr, "guarded device: %s: %s is the device's memory, not the host's\n", entry, argument);
        abort();
    }
    return (void *)(uintptr_t)p;
}

#define AT(p, bytes) real_at(dev, __func__, #p, p, (int64_t)(bytes))
#define F32_AT(p, n) AT(p, (n)*4)
#define ACT_AT(p, n) AT(p, (n) * (int64_t)bb_dtype_bytes(dev->ops->act_dtype))
#define SUMS_AT(p, n) AT(p, ((n) + BB_NORM_TILE - 1) / BB_NORM_TILE * 8)
#define HOST_AT(p) host_at(dev, __func__, #p, p)
#define INNER of(dev)->inner

static bb_rows rows_at(bb_device *dev, const char *entry, bb_rows x, int64_t M, int64_t K) {
    x.data = real_at(dev, entry, "rows' data", x.data, M * K * (int64_t)bb_dtype_bytes(x.dtype));
    x.scale = real_at(dev, entry, "rows' scale", x.scale, M * 4);
    return x;
}
#define ROWS_AT(x, M, K) rows_at(dev, __func__, x, M, K)

/* Of a matrix, its scales and codes; the one that is read next is only a hint. */
static bb_ternary ternary_at(bb_device *dev, const char *entry, const bb_ternary *t, bool data) {
    bb_ternary real = *t;
    real.next = NULL;
    real.scale = real_at(dev, entry, "t->scale", t->scale, t->segments * 4);
    real.data = data ? real_at(dev, entry, "t->data", t->data, (int64_t)INNER->ops->ternary_bytes(INNER, t)) : NULL;
    return real;
}
#define TERNARY_AT(t) &(bb_ternary[]){ternary_at(dev, __func__, t, true)}[0]
#define SCALES_AT(t) &(bb_ternary[]){ternary_at(dev, __func__, t, false)}[0]

static bb_adam8_state adam8_at(bb_device *dev, const char *entry, bb_adam8_state s, int64_t n) {
    int64_t blocks = bb_ceil_div(n, BB_ADAM8_BLOCK);
    return (bb_adam8_state){.m = real_at(dev, entry, "m", s.m, n),
                            .v = real_at(dev, entry, "v", s.v, n),
                            .m_absmax = real_at(dev, entry, "m_absmax", s.m_absmax, blocks * 4),
                            .v_absmax = real_at(dev, entry, "v_absmax", s.v_absmax, blocks * 4)};
}

static bb_norm norm_at(bb_device *dev, const char *entry, const bb_norm *norm) {
    bb_norm real = *norm;
    real.w = real_at(dev, entry, "norm->w", norm->w, norm->C * 4);
    return real;
}
#define NORM_AT(norm) &(bb_norm[]){norm_at(dev, __func__, norm)}[0]

static bb_head head_at(bb_device *dev, const char *entry, const bb_head *head) {
    bb_head real = *head;
    real.e = real_at(dev, entry, "head->e", head->e, head->V * head->C * 4);
    return real;
}
#define HEAD_AT(head) &(bb_head[]){head_at(dev, __func__, head)}[0]

static bb_rope rope_at(bb_device *dev, const char *entry, int64_t position0, const bb_rope *rope) {
    int64_t bytes = (position0 + rope->T) * (rope->D / 2) * 4;
    bb_rope real = *rope;
    real.cos = real_at(dev, entry, "rope->cos", rope->cos, bytes);
    real.sin = real_at(dev, entry, "rope->sin", rope->sin, bytes);
    return real;
}
#define ROPE_AT(position0, rope) &(bb_rope[]){rope_at(dev, __func__, position0, rope)}[0]
static int64_t rope_size(const bb_rope *rope) { return rope->B * rope->T * rope->width; }

/* Elements of a matrix of `rows` rows `stride` apart, of which `width` are used. */
static int64_t strided(int64_t rows, int64_t stride, int64_t width) { return (rows - 1) * stride + width; }
static int64_t q_size(const bb_attention *a) { return strided(a->B * a->Tq, a->q_stride, a->H * a->D); }
static int64_t o_size(const bb_attention *a) { return strided(a->B * a->Tq, a->o_stride, a->H * a->D); }
static int64_t kv_size(const bb_attention *a) {
    return (a->B - 1) * a->kv_batch_stride + strided(a->Tk, a->kv_stride, a->Hk * a->D);
}

static bb_kv kv_at(bb_device *dev, const char *entry, const bb_kv *kv) {
    bb_kv real = *kv;
    real.data = real_at(dev, entry, "kv->data", kv->data, (int64_t)INNER->ops->kv_bytes(INNER, kv));
    return real;
}

enum { MAX_SEQUENCES = 64 };

typedef struct real_batch {
    bb_kv_batch batch;
    bb_kv_sequence sequences[MAX_SEQUENCES];
    bb_kv kv[MAX_SEQUENCES];
    int64_t rows;
} real_batch;

static const bb_kv_batch *batch_at(bb_device *dev, const char *entry, real_batch *real, const bb_kv_batch *batch) {
    if (batch->B > MAX_SEQUENCES) abort();
    *real = (real_batch){.batch = *batch};
    real->batch.sequences = real->sequences;
    for (int64_t i = 0; i < batch->B; i++) {
        real->kv[i] = kv_at(dev, entry, batch->sequences[i].kv);
        real->sequences[i] = batch->sequences[i];
        real->sequences[i].kv = &real->kv[i];
        real->rows += batch->sequences[i].rows;
    }
    return &real->batch;
}

/* ---- the device ------------------------------------------------------------------------------------------------------- */

static void close_device(bb_device *dev) {
    guarded *g = of(dev);
    if (g->count > 0) {
        fprintf(stderr, "guarded device: closed with %d allocations that were not freed\n", g->count);
        abort();
    }
    bb_device_close(g->inner);
    (void)munmap(g->real, RANGE_BYTES);
    (void)munmap(g->shown, RANGE_BYTES);
    free(g);
}

static bb_status sync_device(bb_device *dev, bb_error *err) { return INNER->ops->sync(INNER, err); }

static void copy_in(bb_device *dev, void *dst, const void *host, size_t bytes) {
    of(dev)->copies++;
    INNER->ops->copy_in(INNER, AT(dst, bytes), HOST_AT(host), bytes);
}

static void copy_out(bb_device *dev, void *host, const void *src, size_t bytes) {
    of(dev)->copies++;
    INNER->ops->copy_out(INNER, HOST_AT(host), AT(src, bytes), bytes);
}

static void act_in(bb_device *dev, void *x, const float *host, int64_t n) {
    of(dev)->copies++;
    INNER->ops->act_in(INNER, ACT_AT(x, n), HOST_AT(host), n);
}

static void act_out(bb_device *dev, float *host, const void *x, int64_t n) {
    of(dev)->copies++;
    INNER->ops->act_out(INNER, HOST_AT(host), ACT_AT(x, n), n);
}

static void memory(const bb_device *dev, uint64_t *total_bytes, uint64_t *free_bytes) {
    *total_bytes = *free_bytes = RANGE_BYTES;
    for (int i = 0; i < of(dev)->count; i++) *free_bytes -= of(dev)->live[i].bytes + GAP;
}

static const char *description(const bb_device *dev) {
    (void)dev;
    return "scalar reference in memory of its own, for tests";
}

static size_t scratch_bytes(bb_device *dev, const bb_attention *a, int64_t C, int64_t V) {
    return INNER->ops->scratch_bytes(INNER, a, C, V);
}
static void measure_peaks(bb_device *dev, bb_peaks *out) { INNER->ops->measure_peaks(INNER, out); }
static size_t ternary_bytes(bb_device *dev, const bb_ternary *t) { return INNER->ops->ternary_bytes(INNER, t); }
static bool ternary_dense(bb_device *dev) { return INNER->ops->ternary_dense(INNER); }

/* ---- the operations --------------------------------------------------------------------------------------------------- */

#define GUARDED(entry, params, args)                                                                                           \
    static void entry params { INNER->ops->entry args; }

GUARDED(copy, (bb_device * dev, void *dst, const void *src, size_t bytes), (INNER, AT(dst, bytes), AT(src, bytes), bytes))
GUARDED(zero, (bb_device * dev, void *p, size_t bytes), (INNER, AT(p, bytes), bytes))
GUARDED(embedding_forward, (bb_device * dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C),
        (INNER, F32_AT(x, M *C), AT(idx, M), F32_AT(e, V *C), M, V, C))
GUARDED(embedding_backward, (bb_device * dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V, int64_t C),
        (INNER, F32_AT(de, V *C), AT(idx, M), F32_AT(dx, M *C), M, V, C))
static bb_ngram_table ngrams_at(bb_device *dev, const char *entry, const bb_ngram_table *t) {
    bb_ngram_table real = *t;
    if (t->values) real.values = real_at(dev, entry, "values", t->values, t->R * t->C * 4);
    if (t->codes) real.codes = real_at(dev, entry, "codes", t->codes, t->R * t->C);
    if (t->scales) real.scales = real_at(dev, entry, "scales", t->scales, t->R * 2);
    return real;
}
static void ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K) {
    bb_ngram_table real = ngrams_at(dev, __func__, t);
    INNER->ops->ngram_forward(INNER, F32_AT(x, M * t->C), &real, AT(index, M * K * 4), M, K);
}
GUARDED(ngram_backward,
        (bb_device * dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K, int64_t C),
        (INNER, AT(d_table, C * 4), AT(index, M *K * 4), F32_AT(dx, M *C), M, K, C)) /* the table's length is not known here */
static void ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows) {
    bb_ngram_table real = ngrams_at(dev, __func__, t);
    INNER->ops->ngram_quant(INNER, &real, F32_AT(values, rows * t->C), first, rows);
}
GUARDED(head_forward, (bb_device * dev, float *logits, const float *h, const bb_head *head),
        (INNER, F32_AT(logits, head->M * head->V), F32_AT(h, head->M * head->C), HEAD_AT(head)))
GUARDED(head_backward, (bb_device * dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head),
        (INNER, ACT_AT(dh, head->M * head->C), F32_AT(de, head->V * head->C), F32_AT(dlogits, head->M * head->V),
         F32_AT(h, head->M * head->C), HEAD_AT(head)))
GUARDED(loss_forward, (bb_device * dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V),
        (INNER, F32_AT(nll, M), F32_AT(logits, M *V), AT(y, M), M, V))
GUARDED(loss_backward,
        (bb_device * dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M, int64_t V),
        (INNER, F32_AT(dlogits, M *V), F32_AT(logits, M *V), AT(y, M), scale, M, V))
GUARDED(rmsnorm_forward, (bb_device * dev, bb_rows y, float *r, const float *x, const bb_norm *norm),
        (INNER, ROWS_AT(y, norm->M, norm->C), F32_AT(r, norm->M), F32_AT(x, norm->M * norm->C), NORM_AT(norm)))
GUARDED(rmsnorm_backward,
        (bb_device * dev, float *dx, float *dw, const void *dy, const float *x, const float *r, const bb_norm *norm),
        (INNER, F32_AT(dx, norm->M * norm->C), F32_AT(dw, norm->C), ACT_AT(dy, norm->M * norm->C), F32_AT(x, norm->M * norm->C),
         F32_AT(r, norm->M), NORM_AT(norm)))
GUARDED(act_quant, (bb_device * dev, bb_rows y, const float *x, int64_t M, int64_t K),
        (INNER, ROWS_AT(y, M, K), F32_AT(x, M *K), M, K))
GUARDED(act_to_f32, (bb_device * dev, float *y, const void *x, int64_t n), (INNER, F32_AT(y, n), ACT_AT(x, n), n))
GUARDED(rope_forward, (bb_device * dev, float *x, void *kept, int64_t position0, const bb_rope *rope),
        (INNER, F32_AT(x, rope_size(rope)), ACT_AT(kept, rope_size(rope)), position0, ROPE_AT(position0, rope)))
GUARDED(rope_backward, (bb_device * dev, void *dx, const bb_rope *rope), (INNER, ACT_AT(dx, rope_size(rope)), ROPE_AT(0, rope)))
GUARDED(swiglu_forward, (bb_device * dev, bb_rows y, void *kept, const float *gate_up, int64_t M, int64_t F),
        (INNER, ROWS_AT(y, M, F), ACT_AT(kept, M * 2 * F), F32_AT(gate_up, M * 2 * F), M, F))
GUARDED(swiglu_backward, (bb_device * dev, void *d_gate_up, const void *gate_up, const void *dh, int64_t M, int64_t F),
        (INNER, ACT_AT(d_gate_up, M * 2 * F), ACT_AT(gate_up, M * 2 * F), ACT_AT(dh, M *F), M, F))
GUARDED(ternary_quant, (bb_device * dev, const bb_ternary *t, const float *w), (INNER, TERNARY_AT(t), F32_AT(w, t->n * t->k)))
GUARDED(ternary_quant_rows, (bb_device * dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows),
        (INNER, TERNARY_AT(t), F32_AT(w, t->n * t->k), first, rows))
GUARDED(sum_abs, (bb_device * dev, double *sums, const float *w, int64_t n), (INNER, SUMS_AT(sums, n), F32_AT(w, n), n))
GUARDED(ternary_load, (bb_device * dev, const bb_ternary *t, const uint8_t *codes),
        (INNER, TERNARY_AT(t), AT(codes, t->n *bb_ceil_div(t->k, 4))))
GUARDED(ternary_unpack, (bb_device * dev, int8_t *q, const bb_ternary *t), (INNER, AT(q, t->n * t->k), TERNARY_AT(t)))
GUARDED(linear_forward, (bb_device * dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M),
        (INNER, F32_AT(y, M * t->n), F32_AT(residual, M * t->n), ROWS_AT(x, M, t->k), TERNARY_AT(t), M))
GUARDED(linear_backward, (bb_device * dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M),
        (INNER, ACT_AT(dx, M * t->k),
         (bb_layer_gradient){AT(g.dy, M * t->n * (int64_t)bb_dtype_bytes(g.dtype)), g.dtype, F32_AT(g.dw, t->n * t->k), g.add},
         ROWS_AT(x, M, t->k), TERNARY_AT(t), M))
GUARDED(ste_clip, (bb_device * dev, float *dw, const float *w, const bb_ternary *t),
        (INNER, F32_AT(dw, t->n * t->k), F32_AT(w, t->n * t->k), SCALES_AT(t)))
GUARDED(attention_forward, (bb_device * dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a),
        (INNER, F32_AT(o, o_size(a)), ACT_AT(kept, o_size(a)), F32_AT(lse, a->B * a->H * a->Tq),
         (bb_qkv){F32_AT(x.q, q_size(a)), F32_AT(x.k, kv_size(a)), F32_AT(x.v, kv_size(a))}, a))
static void kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v) {
    real_batch real;
    const bb_kv_batch *b = batch_at(dev, __func__, &real, batch);
    int64_t width = batch->sequences[0].kv->Hk * batch->sequences[0].kv->D, n = strided(real.rows, batch->kv_stride, width);
    INNER->ops->kv_append(INNER, b, F32_AT(k, n), F32_AT(v, n));
}

static void attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    real_batch real;
    const bb_kv_batch *b = batch_at(dev, __func__, &real, batch);
    int64_t width = batch->H * batch->sequences[0].kv->D;
    INNER->ops->attention_cached(INNER, F32_AT(o, strided(real.rows, batch->o_stride, width)),
                                 F32_AT(q, strided(real.rows, batch->q_stride, width)), b);
}

static size_t kv_bytes(bb_device *dev, const bb_kv *kv) { return INNER->ops->kv_bytes(INNER, kv); }

static void kv_copy(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n) {
    bb_kv real_to = kv_at(dev, __func__, to), real_from = kv_at(dev, __func__, from);
    INNER->ops->kv_copy(INNER, &real_to, &real_from, n);
}

static void kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n) {
    bb_kv real = kv_at(dev, __func__, kv);
    INNER->ops->kv_unpack(INNER, F32_AT(k, n * kv->Hk * kv->D), F32_AT(v, n * kv->Hk * kv->D), &real, layer, first, n);
}

GUARDED(attention_backward,
        (bb_device * dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
         const bb_attention *a),
        (INNER, (bb_qkv_gradient){ACT_AT(dx.q, q_size(a)), ACT_AT(dx.k, kv_size(a)), ACT_AT(dx.v, kv_size(a))},
         ACT_AT(d_o, o_size(a)), (bb_qkv){ACT_AT(x.q, q_size(a)), ACT_AT(x.k, kv_size(a)), ACT_AT(x.v, kv_size(a))},
         ACT_AT(o, o_size(a)), F32_AT(lse, a->B * a->H * a->Tq), a))
GUARDED(sum_squares, (bb_device * dev, double *sums, const float *x, int64_t n), (INNER, SUMS_AT(sums, n), F32_AT(x, n), n))
GUARDED(add, (bb_device * dev, float *y, const float *x, int64_t n), (INNER, F32_AT(y, n), F32_AT(x, n), n))
GUARDED(adamw_step, (bb_device * dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h),
        (INNER, F32_AT(p, n), F32_AT(g, n), F32_AT(m, n), F32_AT(v, n), n, h))
GUARDED(row_adagrad_step,
        (bb_device * dev, float *p, const float *g, float *v, int64_t rows, int64_t C, const bb_row_adagrad *h),
        (INNER, F32_AT(p, rows *C), F32_AT(g, rows *C), F32_AT(v, rows), rows, C, h))
GUARDED(adamw8bit_init, (bb_device * dev, bb_adam8_state s, int64_t n), (INNER, adam8_at(dev, __func__, s, n), n))
GUARDED(adamw8bit_step, (bb_device * dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h),
        (INNER, F32_AT(p, n), F32_AT(g, n), adam8_at(dev, __func__, s, n), n, h))
static void muon_step(bb_device *dev, const bb_muon_matrix *matrices, int64_t count, const bb_muon *h) {
    bb_muon_matrix *real = calloc((size_t)count, sizeof *real);
    if (!real) abort();
    for (int64_t i = 0; i < count; i++) {
        const bb_muon_matrix *m = &matrices[i];
        int64_t n = m->N * m->K;
        real[i] = (bb_muon_matrix){F32_AT(m->p, n), F32_AT(m->g, n), AT(m->m, n * (int64_t)sizeof *m->m), m->N, m->K};
    }
    INNER->ops->muon_step(INNER, real, count, h);
    free(real);
}
static size_t muon_scratch(bb_device *dev, int64_t N, int64_t K) { return INNER->ops->muon_scratch(INNER, N, K); }

static const bb_ops guarded_ops = {.name = "guarded",
                                   .host_memory = false,
                                   .close = close_device,
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

static bb_status open_device(int threads, bb_device **out, bb_error *err) {
    guarded *g = calloc(1, sizeof *g);
    if (!g) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_device_open("ref", threads, &g->inner, err);
    if (status != BB_OK) {
        free(g);
        return status;
    }
    g->ops = guarded_ops;
    g->ops.act_dtype = g->inner->ops->act_dtype;
    g->base.ops = &g->ops;
    g->base.threads = g->inner->threads;
    g->base.forward_rows = g->inner->forward_rows;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    g->real = mmap(NULL, RANGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    g->shown = mmap(NULL, RANGE_BYTES, PROT_NONE, flags, -1, 0);
    if (g->real == MAP_FAILED || g->shown == MAP_FAILED) abort(); /* a test without address space */
    *out = &g->base;
    return BB_OK;
}

void guarded_register(void) {
    static const bb_backend backend = {.name = "guarded", .open = open_device};
    bb_error err;
    if (bb_backend_register(&backend, &err) == BB_OK) return;
    fprintf(stderr, "%s\n", err.message);
    abort();
}

bool guarded_owns(const bb_device *dev, const void *p) { return (uintptr_t)p - (uintptr_t)of(dev)->shown < RANGE_BYTES; }

int guarded_copies(const bb_device *dev) { return of(dev)->copies; }
