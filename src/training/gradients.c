/* SPDX-License-Identifier: MIT */
#include "training/gradients.h"

#include <stdlib.h>

/* Elements: what is exchanged at a time. Below the first, messages are all latency; above the second, buffers grow and what is
 * left to exchange after the last block shows. */
enum { BUCKET_LEAST = 1 << 20, BUCKET_MOST = 1 << 22, UNIT = 4096 };
enum { MICROS_MOST = 1 << 24 };

bb_status bb_micro_run_of(const bb_train_options *o, int rank, int size, bb_micro_run *out, bb_error *err) {
    int64_t total = (int64_t)o->grad_accum * size;
    if (o->global_batch > 0) {
        if (o->global_batch % o->batch_size != 0)
            return bb_fail(err, BB_ERR_ARGUMENT,
                           "a step of %lld sequences (global_batch) is no whole number of batches of %d (batch_size)",
                           (long long)o->global_batch, o->batch_size);
        total = o->global_batch / o->batch_size;
    }
    if (total < size)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "a step of %lld batches of %d is too little for %d ranks: a smaller batch_size, or fewer ranks",
                       (long long)total, o->batch_size, size);
    if (total > MICROS_MOST)
        return bb_fail(err, BB_ERR_ARGUMENT, "a step of %lld batches: at most %d", (long long)total, MICROS_MOST);
    out->total = (int)total;
    out->first = (int)(total * rank / size);
    out->count = (int)(total * (rank + 1) / size) - out->first;
    return BB_OK;
}

/* ---- how a run of micro-batches is halved ------------------------------------------------------------------------------ */

static int halvings(int micros, bb_reduce reduce) {
    int levels = 0;
    for (; reduce == BB_REDUCE_EXACT && micros % 2 == 0; micros /= 2) levels++;
    return levels;
}

/* ---- what is exchanged at a time --------------------------------------------------------------------------------------- */

/* The last place at or before `at` where ranks may divide a range: a tensor's beginning, or a multiple of UNIT from there. */
static int64_t divisible(const bb_param_table *t, int64_t at) {
    int low = 0, high = t->count; /* entries[low].offset <= at < entries[high].offset */
    if (at >= t->total) return t->total;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (t->entries[middle].offset <= at)
            low = middle;
        else
            high = middle;
    }
    int64_t offset = t->entries[low].offset;
    return offset + (at - offset) / UNIT * UNIT;
}

static void add_bucket(bb_gradients *g, int64_t begin, int64_t end) {
    const bb_param_table *t = &g->model->table;
    int size = g->dist->size;
    bb_bucket *b = &g->buckets[g->bucket_count];
    *b = (bb_bucket){.begin = begin, .count = end - begin, .cut = g->cuts + (int64_t)g->bucket_count * (size + 1)};
    g->bucket_count++;
    for (int r = 0; r <= size; r++) {
        int64_t at = r == size ? end : divisible(t, begin + b->count * r / size);
        b->cut[r] = (at > begin ? at : begin) - begin;
    }
}

/* From the end of the parameters down, divided where a block begins, and within what is large. Only shapes decide. */
static bb_status make_buckets(bb_gradients *g, bb_error *err) {
    const bb_param_table *t = &g->model->table;
    size_t most = (size_t)g->model->config.n_layer + 2 + (size_t)(t->total / (BUCKET_MOST / 2));
    g->buckets = calloc(most, sizeof *g->buckets);
    g->cuts = calloc(most * (size_t)(g->dist->size + 1), sizeof *g->cuts);
    if (!g->buckets || !g->cuts) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %zu ranges", most);
    int64_t end = t->total;
    for (int l = g->model->config.n_layer; l >= 0; l--) { /* the norm with the last block, the embedding with the first */
        int64_t begin = l ? t->entries[BB_PARAM_FIRST_BLOCK + (l - 1) * BB_PARAMS_PER_BLOCK].offset : 0;
        if (end - begin < BUCKET_LEAST && l > 0) continue;
        int64_t pieces = (end - begin + BUCKET_MOST - 1) / BUCKET_MOST, count = end - begin;
        for (int64_t i = pieces; i > 0; i--) {
            int64_t from = i == 1 ? begin : divisible(t, begin + count * (i - 1) / pieces);
            if (from < end) add_bucket(g, from, end);
            end = from;
        }
    }
    return BB_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static size_t range_bytes(const bb_gradients *g) { return (size_t)g->model->table.total * sizeof(float); }

bb_status bb_gradients_open(bb_model *model, bb_dist *dist, int micros, bb_reduce reduce, bb_gradients *g, bb_error *err) {
    *g = (bb_gradients){.model = model, .dist = dist, .micros = micros, .levels = halvings(micros, reduce)};
    g->per_leaf = micros >> g->levels;
    bb_status status = BB_OK;
    for (int i = 0; i < g->levels && status == BB_OK; i++) {
        g->partial[i] = model->device->ops->alloc(model->device, range_bytes(g));
        if (!g->partial[i])
            status = bb_fail(err, BB_ERR_MEMORY, "no memory for %d partial sums of gradients, %.1f MB each", g->levels,
                             (double)range_bytes(g) * 1e-6);
    }
    if (status == BB_OK && dist->size > 1) status = make_buckets(g, err);
    if (status != BB_OK) bb_gradients_close(g);
    return status;
}

void bb_gradients_close(bb_gradients *g) {
    if (!g->model) return;
    for (int i = 0; i < g->levels; i++)
        if (g->partial[i]) g->model->device->ops->free(g->model->device, g->partial[i], range_bytes(g));
    free(g->buckets);
    free(g->cuts);
    *g = (bb_gradients){0};
}

uint64_t bb_gradients_predict(int64_t parameters, const bb_dist *dist, int micros, bb_reduce reduce) {
    uint64_t partial = (uint64_t)halvings(micros, reduce) * (uint64_t)parameters * sizeof(float);
    int64_t largest = parameters < BUCKET_MOST ? parameters : BUCKET_MOST;
    return !dist ? partial : partial + dist->engine->buffer_bytes(dist->size, largest);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

bb_status bb_gradients_begin(bb_gradients *g, bb_error *err) {
    g->micro = g->next_bucket = 0;
    g->final_from = g->model->table.total;
    g->failure.code = BB_OK;
    return bb_model_zero_gradients(g->model, err);
}

/* This process adds nothing more from element `first` on: partial sums are added there, and what is whole goes to the ranks. */
static void gradients_final(void *user, int64_t first) {
    bb_gradients *g = user;
    bb_device *dev = g->model->device;
    float *grads = g->model->grads;
    if (first >= g->final_from) return;
    for (int i = 0; i < g->levels; i++) dev->ops->add(dev, grads + first, g->partial[i] + first, g->final_from - first);
    g->final_from = first;
    for (; g->next_bucket < g->bucket_count && g->buckets[g->next_bucket].begin >= first; g->next_bucket++) {
        const bb_bucket *b = &g->buckets[g->next_bucket];
        if (g->failure.code != BB_OK) return;
        g->failure.code = dev->ops->sync(dev, &g->failure);
        if (g->failure.code == BB_OK)
            g->failure.code = g->dist->engine->start(g->dist, BB_DIST_ALL_REDUCE,
                                                     (bb_dist_range){.x = grads + b->begin, .cut = b->cut}, &g->failure);
    }
}

/* A leaf is complete, not the last: it is added to the left neighbours that wait for it, and waits for its right one. */
static bb_status leaf_done(bb_gradients *g, int leaf, bb_error *err) {
    bb_model *model = g->model;
    bb_device *dev = model->device;
    int level = 0;
    for (; leaf & (1 << level); level++) dev->ops->add(dev, model->grads, g->partial[level], model->table.total);
    g->partial[level] = bb_model_swap_gradients(model, g->partial[level]);
    return bb_model_zero_gradients(model, err);
}

bb_status bb_gradients_micro(bb_gradients *g, const uint8_t *x, const uint8_t *y, int batch_size, int seq_len, double scale,
                             double *loss, bb_error *err) {
    bb_model *model = g->model;
    int done = ++g->micro;
    bool last = done == g->micros;
    model->on_gradients = last ? gradients_final : NULL;
    model->on_gradients_user = g;
    bb_status status = bb_model_loss_backward(model, x, y, batch_size, seq_len, scale, loss, err);
    model->on_gradients = NULL;
    BB_TRY(status);
    if (last) gradients_final(g, 0); /* also where the loss was not finite and nothing was called back */
    if (g->failure.code != BB_OK) {
        if (err) *err = g->failure;
        return g->failure.code;
    }
    if (!last && done % g->per_leaf == 0) return leaf_done(g, done / g->per_leaf - 1, err);
    return BB_OK;
}

bb_status bb_gradients_finish(bb_gradients *g, bb_error *err) { return g->dist->engine->wait(g->dist, err); }
