// SPDX-License-Identifier: MIT
/* Sums over the tiles (BB_NORM_TILE) of all parameters or gradients, of which each rank makes those of its pieces: added in the
 * order of the parameters, whoever made them, so that they do not depend on how the pieces are shared out. */
#ifndef BB_TRAINING_TILE_SUMS_H
#define BB_TRAINING_TILE_SUMS_H

#include "dist/dist.h"
#include "ops/ops.h"
#include "training/shards.h"

typedef struct bb_tile_sums {
    const bb_param_table *table;
    const bb_shards *shards;
    bb_dist *dist;       /* NULL: one rank alone */
    double *all;         /* (ranks, most), each rank's by pieces */
    double *own;         /* (most); alone it is `all` */
    int64_t most, *next; /* next: (ranks), the tile that bb_tile_sums_add comes to */
} bb_tile_sums;

/* An operation that sums tiles: bb_ops' sum_squares or sum_abs. */
typedef void bb_tile_kernel(bb_device *dev, double *sums, const float *x, int64_t n);

/* table, shards and dist outlive it. */
bb_status bb_tile_sums_open(const bb_param_table *table, const bb_shards *shards, bb_dist *dist, bb_tile_sums *out,
                            bb_error *err);
void bb_tile_sums_close(bb_tile_sums *s);
/* All ranks call it. x: table->total f32, of which this rank reads its pieces. */
bb_status bb_tile_sums_make(bb_tile_sums *s, bb_device *dev, bb_tile_kernel *kernel, const float *x, bb_error *err);
/* Adds the tiles of a parameter to *sum, one by one; to be called for each parameter in turn. */
void bb_tile_sums_add(bb_tile_sums *s, int param, double *sum);

#endif
