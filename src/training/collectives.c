// SPDX-License-Identifier: MIT
#include "training/collectives.h"

#include <stdlib.h>

bb_status bb_collectives_open(bb_device *device, bb_dist *dist, size_t range_bytes, bb_collectives *out, bb_error *err) {
    *out = (bb_collectives){.device = device, .dist = dist, .range_bytes = range_bytes};
    if (dist->size == 1 || device->ops->host_memory) return BB_OK;
    BB_TRY(bb_peer_group_open(device, dist, &out->peers, err));
    if (out->peers.ops) return BB_OK;
    out->staging = malloc(BB_COLLECTIVES_STAGED * range_bytes);
    if (out->staging) return BB_OK;
    return bb_fail(err, BB_ERR_MEMORY, "no host memory for what ranks exchange: %.1f MB",
                   (double)(BB_COLLECTIVES_STAGED * range_bytes) * 1e-6);
}

void bb_collectives_close(bb_collectives *c) {
    bb_peer_group_close(&c->peers);
    free(c->staging);
    *c = (bb_collectives){0};
}

/* ---- through host memory ----------------------------------------------------------------------------------------------- */

typedef enum direction { OUT, IN } direction;

static void copy(bb_collectives *c, int index, int64_t begin, int64_t end, direction to) {
    const bb_dist_range *r = &c->staged[index].range;
    unsigned char *host = c->staging + (size_t)index * c->range_bytes + begin * r->width;
    unsigned char *device = (unsigned char *)r->x + begin * r->width;
    size_t bytes = (size_t)((end - begin) * r->width);
    if (bytes == 0) return;
    if (to == OUT)
        c->device->ops->copy_out(c->device, host, device, bytes);
    else
        c->device->ops->copy_in(c->device, device, host, bytes);
}

/* Copies back what an exchange of this kind changes. */
static void copy_back(bb_collectives *c, int index) {
    const int64_t *cut = c->staged[index].range.cut;
    int rank = c->dist->rank, size = c->dist->size;
    switch (c->staged[index].kind) {
    case BB_DIST_REDUCE_SCATTER: copy(c, index, cut[rank], cut[rank + 1], IN); break;
    case BB_DIST_ALL_REDUCE: copy(c, index, 0, cut[size], IN); break;
    case BB_DIST_GATHER:
        if (rank > 0) break; /* rank 0's own part comes first and is unchanged */
        copy(c, index, cut[1], cut[size], IN);
        break;
    case BB_DIST_ALL_GATHER:
        copy(c, index, 0, cut[rank], IN);
        copy(c, index, cut[rank + 1], cut[size], IN);
        break;
    }
}

static bb_status finish_staged(bb_collectives *c, bb_error *err) {
    int count = c->count;
    c->count = 0;
    BB_TRY(c->dist->engine->wait(c->dist, err));
    for (int i = 0; i < count; i++) copy_back(c, i);
    return c->device->ops->sync(c->device, err); /* the staging buffer is about to be reused */
}

static bb_status start_staged(bb_collectives *c, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    int rank = c->dist->rank, size = c->dist->size;
    if ((size_t)(range.cut[size] * range.width) > c->range_bytes)
        return bb_fail(err, BB_ERR_INTERNAL, "an exchange of %lld bytes exceeds the reserved %zu",
                       (long long)(range.cut[size] * range.width), c->range_bytes);
    if (c->count == BB_COLLECTIVES_STAGED) BB_TRY(finish_staged(c, err));
    int index = c->count++;
    bool sums = kind == BB_DIST_REDUCE_SCATTER || kind == BB_DIST_ALL_REDUCE;
    c->staged[index] = (bb_staged_range){.kind = kind, .range = range};
    copy(c, index, sums ? 0 : range.cut[rank], sums ? range.cut[size] : range.cut[rank + 1], OUT);
    BB_TRY(c->device->ops->sync(c->device, err));
    range.x = c->staging + (size_t)index * c->range_bytes;
    return c->dist->engine->start(c->dist, kind, range, err);
}

bb_status bb_collectives_start(bb_collectives *c, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    if (c->peers.ops) return bb_peer_group_start(&c->peers, kind, range, err);
    return c->staging ? start_staged(c, kind, range, err) : c->dist->engine->start(c->dist, kind, range, err);
}

bb_status bb_collectives_wait(bb_collectives *c, bb_error *err) {
    if (c->peers.ops) return bb_peer_group_wait(&c->peers, err);
    return c->staging ? finish_staged(c, err) : c->dist->engine->wait(c->dist, err);
}
