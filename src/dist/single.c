// SPDX-License-Identifier: MIT
/* One process: sums are its own data, nothing is sent. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/host.h"
#include "dist/dist.h"

static void single_close(bb_dist *d) {
    free(d->hosts);
    free(d);
}

static void single_abort(bb_dist *d, int exit_status) {
    (void)d;
    _exit(exit_status);
}

static void single_wait_to_report(bb_dist *d) { (void)d; }

static bb_status single_all_gather(bb_dist *d, const void *mine, void *all, size_t bytes, bb_error *err) {
    (void)d, (void)err;
    memcpy(all, mine, bytes);
    return BB_OK;
}

static bb_status single_broadcast(bb_dist *d, void *data, size_t bytes, int root, bb_error *err) {
    (void)d, (void)data, (void)bytes, (void)root, (void)err;
    return BB_OK;
}

static bb_status single_transfer(bb_dist *d, void *data, size_t bytes, int from, int to, bb_error *err) {
    (void)d, (void)data, (void)bytes, (void)from, (void)to, (void)err;
    return BB_OK;
}

static bb_status single_start(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    (void)d, (void)kind, (void)range, (void)err;
    return BB_OK;
}

static bb_status single_wait(bb_dist *d, bb_error *err) {
    (void)d, (void)err;
    return BB_OK;
}

static bb_status single_wait_until(bb_dist *d, bool (*done)(void *user), void *user, bb_error *err) {
    (void)d, (void)err;
    while (!done(user)) sched_yield();
    return BB_OK;
}

static size_t single_buffer_bytes(int size, int64_t elements) {
    (void)size, (void)elements;
    return 0;
}

static const bb_dist_engine single = {.name = "single",
                                      .close = single_close,
                                      .abort = single_abort,
                                      .wait_to_report = single_wait_to_report,
                                      .all_gather = single_all_gather,
                                      .broadcast = single_broadcast,
                                      .transfer = single_transfer,
                                      .start = single_start,
                                      .wait = single_wait,
                                      .wait_until = single_wait_until,
                                      .buffer_bytes = single_buffer_bytes};

bb_status bb_dist_open_single(bb_dist **out, bb_error *err) {
    bb_dist *d = calloc(1, sizeof *d);
    if (d) d->hosts = calloc(1, sizeof *d->hosts);
    if (!d || !d->hosts) {
        free(d);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    }
    d->engine = &single;
    d->size = d->local_size = 1;
    d->threads = bb_host_threads("", 1);
    if (gethostname(d->hosts[0], sizeof d->hosts[0] - 1) != 0) strcpy(d->hosts[0], "?");
    *out = d;
    return BB_OK;
}
