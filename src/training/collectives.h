// SPDX-License-Identifier: MIT
/* Exchanges ranges in device memory between ranks (bb_dist_engine's start and wait). There are three ways:
 *
 * - If device memory is host memory, the engine works on it. - If the devices can reach one another (bb_optional_ops), they
 *   exchange directly, like the MPI engine, in parallel with the device's other work, provided that they pass a check when they
 *   join. - Otherwise a range goes through host memory: it is copied out when the exchange starts, exchanged by the engine
 *   while the device computes, and copied back at the wait.
 *
 * All three add in the order of bb_dist_tree_sum, and so give the same bits. */
#ifndef BB_TRAINING_COLLECTIVES_H
#define BB_TRAINING_COLLECTIVES_H

#include "dist/dist.h"
#include "training/collectives_peers.h"

/* Number of ranges that can be in transit through host memory. */
enum { BB_COLLECTIVES_STAGED = 8 };

typedef struct bb_staged_range {
    bb_dist_kind kind;
    bb_dist_range range; /* x: device memory */
} bb_staged_range;

typedef struct bb_collectives {
    bb_device *device;
    bb_dist *dist;
    /* transit through host memory */
    unsigned char *staging; /* host memory (BB_COLLECTIVES_STAGED, range_bytes); NULL if not needed */
    size_t range_bytes;
    bb_staged_range staged[BB_COLLECTIVES_STAGED];
    int count;           /* number of staged ranges */
    bb_peer_group peers; /* direct exchange; peers.ops is NULL if it is not used */
} bb_collectives;

/* A collective call. range_bytes: size of the longest range. device and dist must outlive *out. */
bb_status bb_collectives_open(bb_device *device, bb_dist *dist, size_t range_bytes, bb_collectives *out, bb_error *err);
void bb_collectives_close(bb_collectives *c);
/* Like the engine's functions. Before start, the caller must have waited for the range's values (bb_ops.sync). */
bb_status bb_collectives_start(bb_collectives *c, bb_dist_kind kind, bb_dist_range range, bb_error *err);
bb_status bb_collectives_wait(bb_collectives *c, bb_error *err);

#endif
