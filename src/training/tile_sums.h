// SPDX-License-Identifier: MIT
/* Sums over the tiles (BB_NORM_TILE) of all parameters or gradients. Each rank computes the tiles of its pieces. They are
 * added in the order of the parameters, so that the result does not depend on the distribution of pieces over ranks. */
#ifndef BB_TRAINING_TILE_SUMS_H
#define BB_TRAINING_TILE_SUMS_H

#include "dist/dist.h"
#include "ops/ops.h"
#include "training/shards.h"

typedef struct bb_tile_sums {
    const bb_param_table *table;
    const bb_shards *shards;
    bb_dist *dist; /* NULL: a single rank */
    bb_device *device;
    double *on_device;  /* (max): where the device computes them, if its memory is not the host's; else NULL */
    double *all;        /* (ranks, max): tiles by rank, then by piece */
    double *own;        /* (max): tiles of this rank; on a single rank, `all` */
    int64_t max, *next; /* max: tiles of a rank. next (ranks): the next tile for bb_tile_sums_add */
} bb_tile_sums;

/* An operation that sums tiles: sum_squares or sum_abs of bb_ops. */
typedef void bb_tile_kernel(bb_device *dev, double *sums, const float *x, int64_t n);

/* device, table, shards and dist must outlive it. */
bb_status bb_tile_sums_open(bb_device *device, const bb_param_table *table, const bb_shards *shards, bb_dist *dist,
                            bb_tile_sums *out, bb_error *err);
void bb_tile_sums_close(bb_tile_sums *s);
/* Collective call. x (table->total): each rank reads its pieces. */
bb_status bb_tile_sums_compute(bb_tile_sums *s, bb_tile_kernel *kernel, const float *x, bb_error *err);
/* Bytes of the device's memory that it takes, if that is not the host's, for `count` tensors of so many elements in all: at most. */
uint64_t bb_tile_sums_bytes(int64_t elements, int count);
/* Adds the tiles of a parameter to *sum, one by one. Call it for each parameter in order. */
void bb_tile_sums_add(bb_tile_sums *s, int param, double *sum);

#endif
