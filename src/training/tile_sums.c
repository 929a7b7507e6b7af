// SPDX-License-Identifier: MIT
#include "training/tile_sums.h"

#include <stdlib.h>
#include <string.h>

#include "core/math.h"

static int64_t tiles_of(int64_t count) { return (count + BB_NORM_TILE - 1) / BB_NORM_TILE; }

static int64_t tiles_of_rank(const bb_shards *s, int rank) {
    int64_t tiles = 0;
    for (int i = 0; i < s->piece_count; i++)
        if (s->pieces[i].rank == rank) tiles += tiles_of(s->pieces[i].count);
    return tiles;
}

static size_t device_bytes(const bb_tile_sums *s) { return (size_t)bb_max(s->max, 1) * sizeof *s->on_device; }

uint64_t bb_tile_sums_bytes(int64_t elements, int count) {
    return (uint64_t)(elements / BB_NORM_TILE + count) * sizeof(double);
}

bb_status bb_tile_sums_open(bb_device *device, const bb_param_table *table, const bb_shards *shards, bb_dist *dist,
                            bb_tile_sums *out, bb_error *err) {
    int ranks = dist ? dist->size : 1;
    *out = (bb_tile_sums){.device = device, .table = table, .shards = shards, .dist = dist};
    for (int r = 0; r < ranks; r++) {
        int64_t tiles = tiles_of_rank(shards, r);
        if (tiles > out->max) out->max = tiles;
    }
    out->all = calloc((size_t)(out->max * (dist ? ranks + 1 : 1)) + 1, sizeof *out->all);
    out->next = calloc((size_t)ranks, sizeof *out->next);
    if (!device->ops->host_memory) out->on_device = device->ops->alloc(device, device_bytes(out));
    if (!out->all || !out->next || (!device->ops->host_memory && !out->on_device)) {
        bb_tile_sums_close(out);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the sums of %lld tiles", (long long)out->max);
    }
    out->own = dist ? out->all + ranks * out->max : out->all;
    return BB_OK;
}

void bb_tile_sums_close(bb_tile_sums *s) {
    if (s->on_device) s->device->ops->free(s->device, s->on_device, device_bytes(s));
    free(s->all);
    free(s->next);
    *s = (bb_tile_sums){.max = s->max};
}

bb_status bb_tile_sums_compute(bb_tile_sums *s, bb_tile_kernel *kernel, const float *x, bb_error *err) {
    bb_device *dev = s->device;
    double *sums = s->on_device ? s->on_device : s->own;
    int rank = s->dist ? s->dist->rank : 0;
    int64_t done = 0;
    for (int i = 0; i < s->shards->piece_count; i++) {
        const bb_piece *p = &s->shards->pieces[i];
        if (p->rank != rank) continue;
        kernel(dev, sums + done, x + s->table->entries[p->param].offset + p->first, p->count);
        done += tiles_of(p->count);
    }
    if (s->on_device) dev->ops->copy_out(dev, s->own, s->on_device, (size_t)done * sizeof *s->own);
    BB_TRY(dev->ops->sync(dev, err));
    memset(s->next, 0, (size_t)(s->dist ? s->dist->size : 1) * sizeof *s->next);
    return s->dist ? s->dist->engine->all_gather(s->dist, s->own, s->all, (size_t)s->max * sizeof *s->all, err) : BB_OK;
}

void bb_tile_sums_add(bb_tile_sums *s, int param, double *sum) {
    for (int i = s->shards->first_piece[param]; i < s->shards->first_piece[param + 1]; i++) {
        const bb_piece *p = &s->shards->pieces[i];
        int64_t end = s->next[p->rank] + tiles_of(p->count);
        for (int64_t t = s->next[p->rank]; t < end; t++) *sum += s->all[p->rank * s->max + t];
        s->next[p->rank] = end;
    }
}
