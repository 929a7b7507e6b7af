// SPDX-License-Identifier: MIT
#include "training/collectives_peers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"

/* ---- joining ------------------------------------------------------------------------------------------------------------- */

/* Joining waits for all ranks inside a library, so it runs on another thread while this thread watches for a lost rank. */
typedef struct joining {
    bb_device *device;
    unsigned char id[BB_PEERS_ID_BYTES];
    int rank, size;
    atomic_bool ended;
    bb_status status;
    bb_error error;
} joining;

static void *join(void *user) {
    joining *j = user;
    j->status = j->device->ops->optional->peers_join(j->device, j->id, j->rank, j->size, &j->error);
    atomic_store(&j->ended, true);
    return NULL;
}

static bool has_ended(void *user) { return atomic_load(&((joining *)user)->ended); }

/* If another rank fails, the thread keeps waiting for it and is abandoned, because the job ends. */
static bb_status join_beside(bb_peer_group *g, joining *j, bb_error *err) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, join, j) != 0) return bb_fail(err, BB_ERR_MEMORY, "no thread to join other devices");
    bb_status lost = g->dist->engine->wait_until(g->dist, has_ended, j, err);
    if (lost != BB_OK) {
        pthread_detach(thread);
        return lost;
    }
    pthread_join(thread, NULL);
    return j->status == BB_OK ? BB_OK : bb_fail(err, j->status, "%s", j->error.message);
}

enum { CHECKED = 96 }; /* elements per rank and part */

static float checked_value(int rank, int64_t i) { return (float)(rank * 1000 + (int)(i % 977)); }

/* Exchanges a range whose sums are exact: each rank's part becomes the sum, then goes to all. */
static bb_status check_sums(bb_peer_group *g, bool *right, bb_error *err) {
    bb_device *dev = g->device;
    int size = g->dist->size;
    int64_t n = (int64_t)CHECKED * size, *cut = calloc((size_t)size + 1, sizeof *cut);
    size_t bytes = (size_t)n * sizeof(float);
    float *host = malloc(bytes), *x = dev->ops->alloc(dev, bytes);
    bb_status status = cut && host && x ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory to compare exchanges between devices");
    if (status == BB_OK) {
        for (int r = 1; r <= size; r++) cut[r] = (int64_t)r * CHECKED - (r < size ? r % 7 : 0); /* parts of unequal size */
        for (int64_t i = 0; i < n; i++) host[i] = checked_value(g->dist->rank, i);
        dev->ops->copy_in(dev, x, host, bytes);
        status = dev->ops->sync(dev, err);
    }
    bb_dist_range range = {.x = x, .cut = cut, .width = sizeof *x};
    if (status == BB_OK) status = bb_peer_group_start(g, BB_DIST_ALL_REDUCE, range, err);
    if (status == BB_OK) status = bb_peer_group_wait(g, err);
    if (status == BB_OK) {
        dev->ops->copy_out(dev, host, x, bytes);
        status = dev->ops->sync(dev, err);
    }
    *right = status == BB_OK;
    for (int64_t i = 0; i < n && *right; i++) {
        float sum = 0;
        for (int r = 0; r < size; r++) sum += checked_value(r, i);
        *right = bb_bits_of_f32(sum) == bb_bits_of_f32(host[i]);
    }
    if (x) dev->ops->free(dev, x, bytes);
    free(host);
    free(cut);
    return status;
}

/* Joins and checks; all ranks get the same status. */
static bb_status join_and_check(bb_peer_group *g, joining *j, bb_error *err) {
    bb_dist *d = g->dist;
    bool right = false;
    *j = (joining){.device = g->device, .rank = d->rank, .size = d->size};
    bb_status status = d->rank == 0 ? g->ops->peers_id(g->device, j->id, err) : BB_OK;
    BB_TRY(bb_dist_agree(d, status, err));
    BB_TRY(d->engine->broadcast(d, j->id, sizeof j->id, 0, err));
    status = join_beside(g, j, err);
    if (status == BB_ERR_PEER) return status;
    BB_TRY(bb_dist_agree(d, status, err));
    status = check_sums(g, &right, err);
    if (status == BB_OK && !right) status = bb_fail(err, BB_ERR_UNSUPPORTED, "a wrong sum");
    return bb_dist_agree(d, status, err);
}

bb_status bb_peer_group_open(bb_device *device, bb_dist *dist, bb_peer_group *g, bb_error *err) {
    const bb_optional_ops *optional = device->ops->optional;
    size_t size = (size_t)dist->size;
    *g = (bb_peer_group){.device = device, .dist = dist};
    if (!optional || !optional->peers_join || size > BB_PEERS_MAX) return BB_OK;
    g->messages = calloc(2 * size, sizeof *g->messages);
    g->parts = calloc(size, sizeof *g->parts);
    joining *j = malloc(sizeof *j); /* on the heap, because the thread may outlive this call */
    bb_status status = g->messages && g->parts && j ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for %zu ranks", size);
    status = bb_dist_agree(g->dist, status, err);
    if (status == BB_OK && j) {
        g->ops = optional;
        if (optional->peers_joined(g->device) != g->dist->size) {
            bb_error why;
            status = join_and_check(g, j, &why);
            if (status != BB_OK) {
                g->ops = NULL;
                optional->peers_leave(g->device, why.message);
            }
            /* A lost process ends the job, and j is left to the waiting thread. For any other failure, the exchange goes
             * through host memory. */
            if (status == BB_ERR_PEER) {
                g->left_to_thread = j;
                return bb_fail(err, status, "%s", why.message);
            }
        }
        status = BB_OK;
    }
    free(j);
    return status;
}

void bb_peer_group_close(bb_peer_group *g) {
    free(g->messages);
    free(g->parts);
    if (g->received) g->device->ops->free(g->device, g->received, g->received_bytes);
    *g = (bb_peer_group){0};
}

/* ---- exchanges ------------------------------------------------------------------------------------------------------------ */

typedef struct polling {
    bb_peer_group *g;
    bb_status status;
    bb_error error;
} polling;

static bool is_done(void *user) {
    polling *p = user;
    bool done = false;
    p->status = p->g->ops->peers_poll(p->g->device, &done, &p->error);
    return done || p->status != BB_OK;
}

static bool is_past(void *seconds) { return bb_clock_seconds() > *(double *)seconds; }

bb_status bb_peer_group_wait(bb_peer_group *g, bb_error *err) {
    polling p = {.g = g};
    bb_status status = g->dist->engine->wait_until(g->dist, is_done, &p, err);
    if (status == BB_OK && p.status != BB_OK) { /* possibly caused by a lost rank, which the engine can name */
        double end = bb_clock_seconds() + g->dist->timeout_seconds + 2;
        status = g->dist->engine->wait_until(g->dist, is_past, &end, err);
        if (status == BB_OK) status = bb_fail(err, p.status, "%s", p.error.message);
    }
    if (status != BB_OK) g->ops->peers_leave(g->device, NULL); /* operations that wait for a lost rank would never end */
    return status;
}

static void add_message(bb_peer_group *g, int *count, void *data, int64_t bytes, int rank, bool receive) {
    if (bytes > 0) g->messages[(*count)++] = (bb_peer_message){data, (size_t)bytes, rank, receive};
}

/* Allocates memory for this rank's part from each of the others. */
static bb_status reserve_received(bb_peer_group *g, int64_t own, bb_error *err) {
    size_t bytes = (size_t)own * (size_t)(g->dist->size - 1) * sizeof(float);
    if (bytes <= g->received_bytes) return BB_OK;
    BB_TRY(bb_peer_group_wait(g, err)); /* earlier exchanges still use the present buffer */
    if (g->received) g->device->ops->free(g->device, g->received, g->received_bytes);
    g->received = g->device->ops->alloc(g->device, bytes);
    g->received_bytes = g->received ? bytes : 0;
    if (g->received) return g->device->ops->sync(g->device, err);
    return bb_fail(err, BB_ERR_MEMORY, "no memory for %.1f MB of gradients from other ranks", (double)bytes * 1e-6);
}

static bb_status reduce(bb_peer_group *g, bb_dist_range range, bb_error *err) {
    int rank = g->dist->rank, size = g->dist->size, count = 0;
    int64_t own = range.cut[rank + 1] - range.cut[rank];
    float *x = range.x;
    BB_TRY(reserve_received(g, own, err));
    g->parts[rank] = x + range.cut[rank];
    for (int i = 1; i < size; i++) { /* each rank begins with its successor, so that not all send to the same one */
        int to = (rank + i) % size, from = (rank + size - i) % size;
        g->parts[from] = g->received + (i - 1) * own;
        add_message(g, &count, x + range.cut[to], (range.cut[to + 1] - range.cut[to]) * range.width, to, false);
        add_message(g, &count, g->parts[from], own * range.width, from, true);
    }
    g->ops->peers_exchange(g->device, g->messages, count);
    g->ops->peers_sum(g->device, g->parts[rank], g->parts, size, own);
    return BB_OK;
}

static void gather(bb_peer_group *g, bb_dist_range range, bool to_all) {
    int rank = g->dist->rank, size = g->dist->size, count = 0;
    unsigned char *x = range.x;
    const int64_t *cut = range.cut;
    for (int i = 1; i < size; i++) {
        int to = (rank + i) % size, from = (rank + size - i) % size;
        if (to_all || to == 0)
            add_message(g, &count, x + cut[rank] * range.width, (cut[rank + 1] - cut[rank]) * range.width, to, false);
        if (to_all || rank == 0)
            add_message(g, &count, x + cut[from] * range.width, (cut[from + 1] - cut[from]) * range.width, from, true);
    }
    g->ops->peers_exchange(g->device, g->messages, count);
}

bb_status bb_peer_group_start(bb_peer_group *g, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    bool sums = kind == BB_DIST_REDUCE_SCATTER || kind == BB_DIST_ALL_REDUCE;
    if (sums) BB_TRY(reduce(g, range, err));
    if (kind != BB_DIST_REDUCE_SCATTER) gather(g, range, kind != BB_DIST_GATHER);
    return BB_OK;
}
