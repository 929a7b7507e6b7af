// SPDX-License-Identifier: MIT
#include "training/weight_exchange.h"

#include <stdlib.h>
#include <xxhash.h>

#include "ops/ops.h"

enum { COPIED_BYTES = 1 << 16 }; /* buffer for a checksum of weights in a device's own memory */

static const bb_param *param_of(const bb_weight_exchange *x, const bb_piece *p) { return &x->model->table.entries[p->param]; }
static float *values_of(const bb_weight_exchange *x, const bb_piece *p) {
    return x->model->params + param_of(x, p)->offset + p->first;
}
static bool is_own(const bb_weight_exchange *x, const bb_piece *p) { return p->rank == x->dist->rank; }

/* ---- places of codes and values -------------------------------------------------------------------------------------- */

/* Returns the byte offset, from the model's first code, of the codes of element `at`, or of the next element that has codes.
 * `at` is the start of a tensor or a position where ranks may divide one. */
static int64_t code_place(const bb_weight_exchange *x, int64_t at) {
    const bb_model *m = x->model;
    const bb_param_table *t = &m->table;
    int last = -1;
    for (int i = 0; i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        if (!p->ternary) continue;
        last = i;
        if (p->offset + p->count <= at) continue;
        bb_ternary ternary = bb_model_ternary(m, i);
        ternary.n = ternary.segment_end[0] = at > p->offset ? (at - p->offset) / p->shape[1] : 0;
        return (unsigned char *)ternary.data - (unsigned char *)m->quantized +
               (int64_t)(ternary.n ? m->device->ops->ternary_bytes(m->device, &ternary) : 0);
    }
    bb_ternary ternary = bb_model_ternary(m, last);
    return (unsigned char *)ternary.data - (unsigned char *)m->quantized +
           (int64_t)m->device->ops->ternary_bytes(m->device, &ternary);
}

static int64_t *code_cut(const bb_weight_exchange *x, int bucket) {
    return x->code_cuts + (int64_t)bucket * (x->dist->size + 1);
}

static void place_codes(bb_weight_exchange *x) {
    for (int b = 0; b < x->shards->bucket_count; b++) {
        const bb_bucket *bucket = &x->shards->buckets[b];
        int64_t begin = code_place(x, bucket->begin);
        for (int r = 0; r <= x->dist->size; r++) code_cut(x, b)[r] = code_place(x, bucket->begin + bucket->cut[r]) - begin;
    }
}

static void place_plain(bb_weight_exchange *x) {
    int64_t plain = 0;
    for (int r = 0; r < x->dist->size; r++) {
        x->plain_cut[r] = plain;
        for (int i = 0; i < x->shards->piece_count; i++) {
            const bb_piece *p = &x->shards->pieces[i];
            if (p->rank == r && !param_of(x, p)->ternary) plain += p->count;
        }
    }
    x->plain_cut[x->dist->size] = plain;
}

bb_status bb_weight_exchange_open(bb_model *model, bb_dist *dist, const bb_shards *shards, bb_tile_sums *tiles,
                                  bb_weight_exchange *out, bb_error *err) {
    size_t size = (size_t)dist->size;
    bb_weight_exchange *x = out;
    *x = (bb_weight_exchange){.model = model, .dist = dist, .shards = shards, .tiles = tiles};
    size_t longest = (size_t)bb_shards_max_bucket(&model->table, shards->whole_matrices) * sizeof(float);
    BB_TRY(bb_collectives_open(model->device, dist, longest, &x->collectives, err));
    x->codes = shards->whole_rows && model->config.ste != BB_STE_CLIPPED && !model->config.dense;
    if (!x->codes) return BB_OK;
    x->code_cuts = calloc((size_t)shards->bucket_count * (size + 1), sizeof *x->code_cuts);
    x->plain_cut = calloc(size + 1, sizeof *x->plain_cut);
    if (x->code_cuts && x->plain_cut) {
        place_codes(x);
        place_plain(x);
        x->plain = calloc((size_t)x->plain_cut[size], sizeof *x->plain);
    }
    if (x->plain) return BB_OK;
    bb_weight_exchange_close(x);
    return bb_fail(err, BB_ERR_MEMORY, "out of memory for the exchange of weights between ranks");
}

void bb_weight_exchange_close(bb_weight_exchange *x) {
    bb_collectives_close(&x->collectives);
    free(x->code_cuts);
    free(x->plain);
    free(x->plain_cut);
    *x = (bb_weight_exchange){0};
}

/* ---- scales ---------------------------------------------------------------------------------------------------------- */

/* Computes the scale of every ternary tensor, with the same result as on a single rank. */
static bb_status compute_scales(bb_weight_exchange *x, bb_error *err) {
    bb_model *m = x->model;
    const bb_ops *ops = m->device->ops;
    BB_TRY(bb_tile_sums_compute(x->tiles, ops->sum_abs, m->params, err));
    for (int i = 0; i < m->table.count; i++) {
        double sum = 0;
        bb_tile_sums_add(x->tiles, i, &sum);
        if (!m->table.entries[i].ternary) continue;
        float scale = bb_absmean_scale(sum, m->table.entries[i].count);
        ops->copy_in(m->device, bb_model_ternary(m, i).scale, &scale, sizeof scale);
    }
    return BB_OK;
}

/* ---- codes ----------------------------------------------------------------------------------------------------------- */

static void quantize_piece(bb_weight_exchange *x, const bb_piece *p) {
    bb_device *dev = x->model->device;
    bb_ternary t = bb_model_ternary(x->model, p->param);
    dev->ops->ternary_quant_rows(dev, &t, x->model->params + param_of(x, p)->offset, p->first / t.k, p->count / t.k);
}

/* Exchanges bucket by bucket: the codes of one are sent while the next is quantized. */
static bb_status exchange_codes(bb_weight_exchange *x, bb_error *err) {
    bb_device *dev = x->model->device;
    const bb_shards *s = x->shards;
    int i = 0;
    for (int b = s->bucket_count - 1; b >= 0; b--) {
        const bb_bucket *bucket = &s->buckets[b];
        for (; i < s->piece_count && values_of(x, &s->pieces[i]) < x->model->params + bucket->begin + bucket->count; i++)
            if (is_own(x, &s->pieces[i]) && param_of(x, &s->pieces[i])->ternary) quantize_piece(x, &s->pieces[i]);
        if (dev->ops->host_memory) BB_TRY(dev->ops->sync(dev, err));
        unsigned char *codes = (unsigned char *)x->model->quantized + code_place(x, bucket->begin);
        BB_TRY(bb_collectives_start(&x->collectives, BB_DIST_ALL_GATHER,
                                    (bb_dist_range){.x = codes, .cut = code_cut(x, b), .width = 1}, err));
    }
    return BB_OK;
}

/* ---- values that are not ternary ------------------------------------------------------------------------------------- */

/* own: copies this rank's pieces from params to plain; otherwise the pieces of other ranks from plain to params. */
static void move_plain(bb_weight_exchange *x, bool own) {
    bb_device *dev = x->model->device;
    for (int r = 0; r < x->dist->size; r++) {
        float *plain = x->plain + x->plain_cut[r];
        if ((r == x->dist->rank) != own) continue;
        for (int i = 0; i < x->shards->piece_count; i++) {
            const bb_piece *p = &x->shards->pieces[i];
            if (p->rank != r || param_of(x, p)->ternary) continue;
            size_t bytes = (size_t)p->count * sizeof *plain;
            if (own)
                dev->ops->copy_out(dev, plain, values_of(x, p), bytes);
            else
                dev->ops->copy_in(dev, values_of(x, p), plain, bytes);
            plain += p->count;
        }
    }
}

bb_status bb_weight_exchange_after_update(bb_weight_exchange *x, bb_error *err) {
    bb_device *dev = x->model->device;
    x->f32_are_stale = true;
    if (!x->codes) {
        BB_TRY(bb_weight_exchange_f32(x, err));
        bb_model_parameters_changed(x->model);
        return BB_OK;
    }
    BB_TRY(compute_scales(x, err));
    move_plain(x, true);
    BB_TRY(dev->ops->sync(dev, err));
    BB_TRY(x->dist->engine->start(x->dist, BB_DIST_ALL_GATHER,
                                  (bb_dist_range){.x = x->plain, .cut = x->plain_cut, .width = sizeof *x->plain}, err));
    BB_TRY(exchange_codes(x, err));
    BB_TRY(x->dist->engine->wait(x->dist, err));
    BB_TRY(bb_collectives_wait(&x->collectives, err));
    move_plain(x, false);
    BB_TRY(dev->ops->sync(dev, err));
    x->model->prepared = true;
    return BB_OK;
}

static bb_status move_f32(bb_weight_exchange *x, bb_dist_kind kind, bb_error *err) {
    const bb_shards *s = x->shards;
    for (int b = s->bucket_count - 1; b >= 0; b--) {
        const bb_bucket *bucket = &s->buckets[b];
        float *values = x->model->params + bucket->begin;
        BB_TRY(bb_collectives_start(&x->collectives, kind,
                                    (bb_dist_range){.x = values, .cut = bucket->cut, .width = sizeof *values}, err));
    }
    return bb_collectives_wait(&x->collectives, err);
}

bb_status bb_weight_exchange_f32(bb_weight_exchange *x, bb_error *err) {
    if (!x->f32_are_stale) return BB_OK;
    BB_TRY(move_f32(x, BB_DIST_ALL_GATHER, err));
    x->f32_are_stale = false;
    return BB_OK;
}

bb_status bb_weight_exchange_f32_to_rank_0(bb_weight_exchange *x, bb_error *err) {
    return x->f32_are_stale ? move_f32(x, BB_DIST_GATHER, err) : BB_OK;
}

/* ---- comparing ranks ------------------------------------------------------------------------------------------------- */

static uint64_t part_sum(bb_device *dev, const void *data, size_t bytes, int part, int parts) {
    size_t at = bytes * (size_t)part / (size_t)parts, end = bytes * (size_t)(part + 1) / (size_t)parts;
    const unsigned char *from = data;
    if (dev->ops->host_memory) return XXH3_64bits(from + at, end - at);
    unsigned char piece[COPIED_BYTES];
    uint64_t sum = 0;
    for (; at < end; at += COPIED_BYTES) {
        size_t n = end - at < sizeof piece ? end - at : sizeof piece;
        dev->ops->copy_out(dev, piece, from + at, n);
        sum = sum * 31 + XXH3_64bits(piece, n);
    }
    return sum;
}

uint64_t bb_weight_exchange_sum(const bb_weight_exchange *x, int part, int parts) {
    const bb_model *m = x->model;
    if (!x->f32_are_stale) return part_sum(m->device, m->params, (size_t)m->table.total * sizeof(float), part, parts);
    size_t begin = (size_t)(x->plain_cut[x->dist->size] * part / parts),
           end = (size_t)(x->plain_cut[x->dist->size] * (part + 1) / parts);
    uint64_t plain = XXH3_64bits(x->plain + begin, (end - begin) * sizeof *x->plain);
    return part_sum(m->device, m->quantized, m->quantized_bytes, part, parts) * 31 + plain;
}
