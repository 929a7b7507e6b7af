// SPDX-License-Identifier: MIT
/* What ranks that share out the update of the weights (--zero 1) give each other after it, so that each can compute with all of
 * them. Of a ternary tensor that is its codes, a sixteenth of its f32: each rank quantizes what it updated, with scales that
 * are the sum of all parts' sums in the order of the parameters. So a rank's f32 values of what others update are old, until
 * bb_weight_exchange_f32 brings them: for a checkpoint, and at the end. Among many ranks, whose parts are no whole rows of
 * codes (shards.h), and for the clipped estimator, which reads f32 weights, that is what every update ends with. */
#ifndef BB_TRAINING_WEIGHT_EXCHANGE_H
#define BB_TRAINING_WEIGHT_EXCHANGE_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/shards.h"
#include "training/tile_sums.h"

typedef struct bb_weight_exchange {
    bb_model *model;
    bb_dist *dist;
    const bb_shards *shards;
    bb_tile_sums *tiles;
    bool codes;         /* not f32 each time */
    bool f32_are_old;   /* those that other ranks update */
    int64_t *code_cuts; /* (buckets, size + 1): bytes, from where the bucket's codes begin */
    float *plain;       /* the values of what is not ternary, rank after rank, piece by piece */
    int64_t *plain_cut; /* (size + 1) */
} bb_weight_exchange;

/* shards are those of dist's ranks; they, tiles (used for the scales) and the model outlive it. */
bb_status bb_weight_exchange_open(bb_model *model, bb_dist *dist, const bb_shards *shards, bb_tile_sums *tiles,
                                  bb_weight_exchange *out, bb_error *err);
void bb_weight_exchange_close(bb_weight_exchange *x);
/* All ranks call these: after each has updated its pieces in model->params; and to have all of them in f32, everywhere or,
 * until the next update, on rank 0. */
bb_status bb_weight_exchange_after_update(bb_weight_exchange *x, bb_error *err);
bb_status bb_weight_exchange_f32(bb_weight_exchange *x, bb_error *err);
bb_status bb_weight_exchange_f32_to_rank_0(bb_weight_exchange *x, bb_error *err);
/* A checksum of a part of what all ranks have, part 0 .. parts-1: where it differs, so do their weights. Of one that is not
 * open, of its model's weights. */
uint64_t bb_weight_exchange_sum(const bb_weight_exchange *x, int part, int parts);

#endif
