// SPDX-License-Identifier: MIT
/* Opens the devices of a job's ranks: the ranks of a host take its cards in turn, each a different one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dist/dist.h"
#include "ops/registry.h"

/* Fails on all ranks if two ranks of a host have opened the same hardware. */
static bb_status check_exclusive(bb_dist *dist, const bb_device *device, bb_error *err) {
    enum { SIZE = sizeof device->exclusive };
    char(*all)[SIZE] = calloc((size_t)dist->size, sizeof *all);
    bb_status status = all ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for %d ranks", dist->size);
    if ((status = bb_dist_agree(dist, status, err)) == BB_OK)
        status = dist->engine->all_gather(dist, device->exclusive, all, sizeof *all, err);
    for (int r = 0; all && r < dist->size && status == BB_OK; r++)
        for (int other = 0; other < r && status == BB_OK; other++)
            if (all[r][0] && strcmp(all[r], all[other]) == 0 && strcmp(dist->hosts[r], dist->hosts[other]) == 0)
                status =
                    bb_fail(err, BB_ERR_ARGUMENT,
                            "ranks %d and %d, both on %s, would compute on the same card: start as many processes on each host "
                            "as it has cards (mpirun -np, --map-by ppr:N:node), and use --device cuda, which chooses the card",
                            other, r, dist->hosts[r]);
    free(all);
    return status;
}

bb_status bb_device_open_for_rank(const char *name, int threads, bb_dist *dist, bb_device **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("dist", dist);
    char numbered[48];
    int count = bb_device_count(name), index = count > 0 ? dist->local_rank % count : 0;
    if (count > 1 && snprintf(numbered, sizeof numbered, "%s:%d", name, index) < (int)sizeof numbered) name = numbered;
    bb_status status = bb_device_open(name, threads, out, err);
    if (dist->size > 1) status = bb_dist_agree(dist, status, err);
    if (dist->size > 1 && status == BB_OK) status = check_exclusive(dist, *out, err);
    if (status == BB_OK || !*out) return status;
    bb_device_close(*out);
    *out = NULL;
    return status;
}
