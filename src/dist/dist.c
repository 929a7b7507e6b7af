// SPDX-License-Identifier: MIT
/* Common to all engines: agreement, small reductions, and the order of sums. */
#include "dist/dist.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TREE_TILE = 2048 }; /* elements per tile: partial sums stay in the cache */

void bb_dist_close(bb_dist *d) {
    if (d) d->engine->close(d);
}

void bb_dist_abort(bb_dist *d, int exit_status) {
    if (!d) _exit(exit_status);
    d->engine->abort(d, exit_status);
    abort(); /* not reached */
}

void bb_dist_wait_to_report(bb_dist *d) {
    if (d && d->size > 1) d->engine->wait_to_report(d);
}

int bb_dist_rank(const bb_dist *d) { return d ? d->rank : 0; }
int bb_dist_size(const bb_dist *d) { return d ? d->size : 0; }
int bb_dist_local_size(const bb_dist *d) { return d ? d->local_size : 0; }
int bb_dist_threads(const bb_dist *d) { return d ? d->threads : 0; }
const char *bb_dist_host(const bb_dist *d, int rank) { return d && rank >= 0 && rank < d->size ? d->hosts[rank] : "?"; }
double bb_dist_wait_seconds(const bb_dist *d) { return d ? d->wait_seconds : 0; }
void bb_dist_set_timeout(bb_dist *d, int seconds) {
    if (d) d->timeout_seconds = seconds > 0 ? seconds : 1;
}

/* ---- agreement ------------------------------------------------------------------------------------------------------- */

bb_status bb_dist_agree(bb_dist *d, bb_status mine, bb_error *err) {
    BB_REQUIRE("dist", d);
    if (d->size == 1) return mine;
    bb_error first = {.code = mine}, trouble;
    if (mine != BB_OK && err) first = *err;
    int32_t status = (int32_t)mine, *all = malloc((size_t)d->size * sizeof *all);
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status result = d->engine->all_gather(d, &status, all, sizeof status, &trouble);
    int lowest = -1, failed = 0;
    for (int r = 0; r < d->size && result == BB_OK; r++) {
        if (all[r] == BB_OK) continue;
        if (lowest < 0) lowest = r;
        failed++;
    }
    free(all);
    if (result == BB_OK && failed > 0) result = d->engine->broadcast(d, &first, sizeof first, lowest, &trouble);
    if (result != BB_OK) return bb_fail(err, result, "%s", trouble.message);
    if (failed == 0) return BB_OK;
    first.message[sizeof first.message - 1] = '\0';
    if (failed == d->size)
        return bb_fail(err, first.code, "all %d ranks, e.g. rank 0 on %s: %s", d->size, d->hosts[0], first.message);
    if (failed > 1)
        return bb_fail(err, first.code, "rank %d on %s, one of %d: %s", lowest, d->hosts[lowest], failed, first.message);
    return bb_fail(err, first.code, "rank %d on %s: %s", lowest, d->hosts[lowest], first.message);
}

/* ---- small reductions --------------------------------------------------------------------------------------------------- */

typedef enum combine { MAX_I64, MIN_I64, SUM_F64 } combine;

static bb_status reduce(bb_dist *d, void *values, int count, combine how, bb_error *err) {
    if (d->size == 1) return BB_OK;
    size_t bytes = (size_t)count * 8; /* both types */
    unsigned char *all = malloc((size_t)d->size * bytes);
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "out of memory for %d numbers of %d ranks", count, d->size);
    bb_status status = d->engine->all_gather(d, values, all, bytes, err);
    if (status == BB_OK) memcpy(values, all, bytes);
    for (int r = 1; r < d->size && status == BB_OK; r++) {
        if (how == SUM_F64) {
            const double *theirs = (const void *)(all + (size_t)r * bytes);
            for (int i = 0; i < count; i++) ((double *)values)[i] += theirs[i];
            continue;
        }
        const int64_t *theirs = (const void *)(all + (size_t)r * bytes);
        int64_t *ours = values;
        for (int i = 0; i < count; i++)
            if (how == MAX_I64 ? theirs[i] > ours[i] : theirs[i] < ours[i]) ours[i] = theirs[i];
    }
    free(all);
    return status;
}

bb_status bb_dist_max_i64(bb_dist *d, int64_t *values, int count, bb_error *err) {
    return reduce(d, values, count, MAX_I64, err);
}
bb_status bb_dist_min_i64(bb_dist *d, int64_t *values, int count, bb_error *err) {
    return reduce(d, values, count, MIN_I64, err);
}
bb_status bb_dist_sum_f64(bb_dist *d, double *values, int count, bb_error *err) {
    return reduce(d, values, count, SUM_F64, err);
}

bb_status bb_dist_barrier(bb_dist *d, bb_error *err) {
    int64_t unused = 0;
    return bb_dist_max_i64(d, &unused, 1, err);
}

bb_status bb_dist_all_gather_u64(bb_dist *d, uint64_t mine, uint64_t *values, bb_error *err) {
    BB_REQUIRE("dist, values", d, values);
    return d->engine->all_gather(d, &mine, values, sizeof mine, err);
}

/* ---- the order of sums ----------------------------------------------------------------------------------------------- */

static void add(float *restrict out, const float *restrict in, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += in[i];
}

/* n <= TREE_TILE elements from `at` on; out does not overlap in. */
static void sum_tile(float *restrict out, const float *const *in, int count, int64_t at, int64_t n) {
    if (count % 2 == 1) {
        memcpy(out, in[0] + at, (size_t)n * sizeof *out);
        for (int r = 1; r < count; r++) add(out, in[r] + at, n);
        return;
    }
    float right[TREE_TILE];
    sum_tile(out, in, count / 2, at, n);
    sum_tile(right, in + count / 2, count / 2, at, n);
    add(out, right, n);
}

void bb_dist_tree_sum(float *out, const float *const *in, int count, int64_t n) {
    for (int64_t at = 0; at < n; at += TREE_TILE) {
        int64_t tile = n - at < TREE_TILE ? n - at : TREE_TILE;
        float sum[TREE_TILE];
        sum_tile(sum, in, count, at, tile);
        memcpy(out + at, sum, (size_t)tile * sizeof *out);
    }
}
