// SPDX-License-Identifier: MIT
/* Exchanges of ranges between ranks (bb_dist_engine's start and wait) where the ranges are in a device's memory. There are three ways:
 *
 * - That memory is the host's: the engine works on it.
 * - Devices reach one another (bb_optional_ops): a direct exchange as the MPI engine's, beside the device's other work, if the devices
 *   pass a check when they join.
 * - Otherwise a range goes through host memory: it is copied out when it is started, exchanged by the engine while the device
 *   computes, and copied back at the wait.
 *
 * Sums have the order of bb_dist_tree_sum in each, and so the same bits. */
#ifndef BB_TRAINING_COLLECTIVES_H
#define BB_TRAINING_COLLECTIVES_H

#include "dist/dist.h"
#include "training/collectives_peers.h"

/* Ranges on their way through host memory. */
enum { BB_COLLECTIVES_STAGED = 8 };

typedef struct bb_staged_range {
    bb_dist_kind kind;
    bb_dist_range range; /* x: device */
} bb_staged_range;

typedef struct bb_collectives {
    bb_device *device;
    bb_dist *dist;
    /* through host memory */
    unsigned char *staging; /* (BB_COLLECTIVES_STAGED, range_bytes) host; NULL where it is not needed */
    size_t range_bytes;
    bb_staged_range staged[BB_COLLECTIVES_STAGED];
    int count;           /* of them */
    bb_peer_group peers; /* between devices; peers.ops is NULL: not this way */
} bb_collectives;

/* A collective call. range_bytes: of the longest range. device and dist must outlive it. */
bb_status bb_collectives_open(bb_device *device, bb_dist *dist, size_t range_bytes, bb_collectives *out, bb_error *err);
void bb_collectives_close(bb_collectives *c);
/* As the engine's entries. Before start, the caller has waited for the range's values (bb_ops.sync). */
bb_status bb_collectives_start(bb_collectives *c, bb_dist_kind kind, bb_dist_range range, bb_error *err);
bb_status bb_collectives_wait(bb_collectives *c, bb_error *err);

#endif
