// SPDX-License-Identifier: MIT
/* Exchanges between devices that can reach one another (ops/optional.h): like the MPI engine's (dist/mpi_ranges.c), in messages
 * of device memory, in parallel with the device's other work. */
#ifndef BB_TRAINING_COLLECTIVES_PEERS_H
#define BB_TRAINING_COLLECTIVES_PEERS_H

#include "dist/dist.h"
#include "ops/optional.h"

typedef struct bb_peer_group {
    bb_device *device;
    bb_dist *dist;
    const bb_optional_ops *ops; /* NULL: no direct exchange is possible, or it gives wrong values */
    bb_peer_message *messages;  /* (2 size) */
    float **parts, *received;   /* (size), device memory: this rank's part of a range, as received from the others */
    size_t received_bytes;
    void *left_to_thread; /* never freed: used by a thread that waits for a lost process while the job ends */
} bb_peer_group;

/* A collective call. Joins the devices if necessary, and checks a sum. */
bb_status bb_peer_group_open(bb_device *device, bb_dist *dist, bb_peer_group *out, bb_error *err);
void bb_peer_group_close(bb_peer_group *group);
/* Like the engine's functions. */
bb_status bb_peer_group_start(bb_peer_group *group, bb_dist_kind kind, bb_dist_range range, bb_error *err);
bb_status bb_peer_group_wait(bb_peer_group *group, bb_error *err);

#endif
