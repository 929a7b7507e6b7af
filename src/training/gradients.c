// SPDX-License-Identifier: MIT
#include "training/gradients.h"

#include <stdlib.h>

enum { MAX_MICROS = 1 << 24 };

bb_status bb_micro_run_for_rank(const bb_train_options *o, int rank, int size, bb_micro_run *out, bb_error *err) {
    int64_t total = (int64_t)o->grad_accum * size;
    if (o->global_batch > 0) {
        if (o->global_batch % o->batch_size != 0)
            return bb_fail(err, BB_ERR_ARGUMENT, "a step of %lld sequences (global_batch) is not a multiple of %d (batch_size)",
                           (long long)o->global_batch, o->batch_size);
        total = o->global_batch / o->batch_size;
    }
    if (total < size)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "a step of %lld batches of %d is too small for %d ranks: use a smaller batch_size or fewer ranks",
                       (long long)total, o->batch_size, size);
    if (total > MAX_MICROS)
        return bb_fail(err, BB_ERR_ARGUMENT, "a step of %lld batches: expected at most %d", (long long)total, MAX_MICROS);
    out->total = (int)total;
    out->first = (int)(total * rank / size);
    out->count = (int)(total * (rank + 1) / size) - out->first;
    return BB_OK;
}

/* ---- levels of the tree ------------------------------------------------------------------------------------------------ */

static int halvings(int micros, bb_reduce reduce) {
    int levels = 0;
    for (; reduce == BB_REDUCE_EXACT && micros % 2 == 0; micros /= 2) levels++;
    return levels;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static size_t range_bytes(const bb_gradients *g) { return (size_t)g->model->table.total * sizeof(float); }

static size_t losses_bytes(const bb_gradients *g) {
    return (size_t)bb_gradients_predict_losses(g->micros, g->rows, !g->model->device->ops->host_memory);
}

static bb_status open_losses(bb_gradients *g, bb_error *err) {
    bb_device *dev = g->model->device;
    size_t bytes = losses_bytes(g);
    g->losses = calloc((size_t)g->micros, sizeof *g->losses);
    if (bytes > 0) {
        g->nll = dev->ops->alloc(dev, bytes);
        g->host_nll = malloc((size_t)g->rows * sizeof *g->host_nll);
    }
    if (g->losses && (bytes == 0 || (g->nll && g->host_nll))) return BB_OK;
    return bb_fail(err, BB_ERR_MEMORY, "no memory for the losses of %d batches: %.1f MB", g->micros, (double)bytes * 1e-6);
}

bb_status bb_gradients_open(bb_model *model, bb_dist *dist, int micros, bb_reduce reduce, const bb_shards *parts,
                            bb_gradients *g, bb_error *err) {
    *g = (bb_gradients){.model = model, .dist = dist, .micros = micros, .levels = halvings(micros, reduce), .parts = parts};
    g->kind = parts ? BB_DIST_REDUCE_SCATTER : BB_DIST_ALL_REDUCE;
    g->per_leaf = micros >> g->levels;
    g->rows = model->ws.max_rows;
    bb_status status = BB_OK;
    for (int i = 0; i < g->levels && status == BB_OK; i++) {
        g->partial[i] = model->device->ops->alloc(model->device, range_bytes(g));
        if (!g->partial[i])
            status = bb_fail(err, BB_ERR_MEMORY, "no memory for %d partial sums of gradients, %.1f MB each", g->levels,
                             (double)range_bytes(g) * 1e-6);
    }
    if (status == BB_OK) status = open_losses(g, err);
    if (status == BB_OK && !parts) {
        g->parts = &g->all_parts;
        status = bb_shards_create(&model->table, dist->size, false, &g->all_parts, err);
    }
    if (status == BB_OK) {
        size_t longest = (size_t)bb_shards_max_bucket(&model->table, parts && parts->whole_matrices) * sizeof(float);
        status = bb_collectives_open(model->device, dist, longest, &g->collectives, err);
    }
    if (status != BB_OK) bb_gradients_close(g);
    return status;
}

void bb_gradients_close(bb_gradients *g) {
    if (!g->model) return;
    for (int i = 0; i < g->levels; i++)
        if (g->partial[i]) g->model->device->ops->free(g->model->device, g->partial[i], range_bytes(g));
    if (g->nll) g->model->device->ops->free(g->model->device, g->nll, losses_bytes(g));
    free(g->host_nll);
    free(g->losses);
    bb_collectives_close(&g->collectives);
    bb_shards_free(&g->all_parts);
    *g = (bb_gradients){0};
}

uint64_t bb_gradients_predict(const bb_param_table *table, int micros, bb_reduce reduce) {
    return (uint64_t)halvings(micros, reduce) * (uint64_t)table->total * sizeof(float);
}

uint64_t bb_gradients_predict_losses(int micros, int64_t rows, bool own_memory) {
    return own_memory ? (uint64_t)micros * (uint64_t)rows * sizeof(float) : 0;
}

uint64_t bb_gradients_buffers(const bb_param_table *table, bool whole_matrices, const bb_dist *dist, bool own_memory) {
    if (dist->size == 1) return 0;
    int64_t longest = bb_shards_max_bucket(table, whole_matrices);
    /* once for the gradients, and once for the weights */
    uint64_t staging = own_memory ? 2 * BB_COLLECTIVES_STAGED * (uint64_t)longest * sizeof(float) : 0;
    return dist->engine->buffer_bytes(dist->size, longest) + staging;
}

/* ---- a step ------------------------------------------------------------------------------------------------------------ */

bb_status bb_gradients_begin(bb_gradients *g, bool *checked, bb_error *err) {
    g->checked = *checked = *checked || !g->nll;
    g->micro = g->next_bucket = 0;
    g->final_from = g->model->table.total;
    g->failure.code = BB_OK;
    return bb_model_zero_gradients(g->model, err);
}

/* Called when this process has completed the gradients from element `first` on. Adds the partial sums there, and starts the
 * exchange of complete buckets. */
static void gradients_final(void *user, int64_t first) {
    bb_gradients *g = user;
    bb_device *dev = g->model->device;
    float *grads = g->model->grads;
    if (first >= g->final_from) return;
    for (int i = 0; i < g->levels; i++) dev->ops->add(dev, grads + first, g->partial[i] + first, g->final_from - first);
    g->final_from = first;
    const bb_shards *s = g->parts;
    for (; g->next_bucket < s->bucket_count && s->buckets[g->next_bucket].begin >= first; g->next_bucket++) {
        const bb_bucket *b = &s->buckets[g->next_bucket];
        if (g->failure.code != BB_OK) return;
        /* what copies or sends ranges of a device's own memory does so after the work that was started before */
        if (dev->ops->host_memory) g->failure.code = dev->ops->sync(dev, &g->failure);
        if (g->failure.code == BB_OK)
            g->failure.code = bb_collectives_start(
                &g->collectives, g->kind, (bb_dist_range){.x = grads + b->begin, .cut = b->cut, .width = sizeof *grads},
                &g->failure);
    }
}

/* Called for each complete leaf but the last. Adds it to the left siblings that wait for it; the sum then waits for its right
 * sibling. */
static bb_status leaf_done(bb_gradients *g, int leaf, bb_error *err) {
    bb_model *model = g->model;
    bb_device *dev = model->device;
    int level = 0;
    for (; leaf & (1 << level); level++) dev->ops->add(dev, model->grads, g->partial[level], model->table.total);
    g->partial[level] = bb_model_swap_gradients(model, g->partial[level]);
    return bb_model_zero_gradients(model, err);
}

bb_status bb_gradients_micro(bb_gradients *g, const bb_train_batch *batch, double scale, bb_error *err) {
    bb_model *model = g->model;
    int index = g->micro, done = ++g->micro;
    g->micro_rows = (int64_t)batch->batch_size * batch->seq_len;
    bool last = done == g->micros;
    /* a single process without partial sums needs no callback, so that the backend may record the backward pass */
    model->on_gradients = last && (g->dist->size > 1 || g->levels > 0) ? gradients_final : NULL;
    model->on_gradients_user = g;
    bb_status status = g->checked ? bb_model_loss_backward(model, batch, scale, &g->losses[index], err)
                                  : bb_model_start_loss_backward(model, batch, scale, g->nll + index * g->rows, err);
    model->on_gradients = NULL;
    BB_TRY(status);
    BB_TRY(bb_model_settle_gradients(model, err)); /* needed if the loss was not finite */
    if (last) gradients_final(g, 0);               /* if the loss was not finite, there was no callback */
    if (g->failure.code != BB_OK) {
        if (err) *err = g->failure;
        return g->failure.code;
    }
    if (!last && done % g->per_leaf == 0) return leaf_done(g, done / g->per_leaf - 1, err);
    return BB_OK;
}

bb_status bb_gradients_losses(bb_gradients *g, double *losses, bb_error *err) {
    bb_device *dev = g->model->device;
    for (int i = 0; i < g->micros; i++) {
        if (!g->checked) {
            dev->ops->copy_out(dev, g->host_nll, g->nll + i * g->rows, (size_t)g->micro_rows * sizeof *g->host_nll);
            g->losses[i] = bb_mean_nll(g->host_nll, g->micro_rows);
        }
        losses[i] = g->losses[i];
    }
    return dev->ops->sync(dev, err);
}

bb_status bb_gradients_finish(bb_gradients *g, bb_error *err) { return bb_collectives_wait(&g->collectives, err); }
