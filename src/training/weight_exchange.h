// SPDX-License-Identifier: MIT
/* With --zero 1 each rank updates a part of the weights. Afterwards ranks exchange the updated parts, so that each can compute
 * with all weights. For ternary tensors they exchange codes, a sixteenth of the bytes of f32: each rank quantizes the values
 * that it updated, with scales from sums that are added over all ranks in the order of the parameters. So the f32 values that
 * other ranks update are stale until bb_weight_exchange_f32 fetches them, for a checkpoint and at the end. Every update
 * exchanges f32 values instead if parts are not whole rows of codes, as with many ranks (shards.h), for the clipped estimator,
 * which reads f32 weights, and for dense models, which have no codes. */
#ifndef BB_TRAINING_WEIGHT_EXCHANGE_H
#define BB_TRAINING_WEIGHT_EXCHANGE_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/collectives.h"
#include "training/shards.h"
#include "training/tile_sums.h"

typedef struct bb_weight_exchange {
    bb_model *model;
    bb_dist *dist;
    const bb_shards *shards;
    bb_collectives collectives;
    bb_tile_sums *tiles;
    bool codes;         /* updates exchange codes, not f32 */
    bool f32_are_stale; /* the f32 values that other ranks update are out of date */
    int64_t *code_cuts; /* (buckets, size + 1): byte offsets from the bucket's first code */
    float *plain;       /* values of the tensors that are not ternary, by rank, then by piece */
    int64_t *plain_cut; /* (size + 1): offset of each rank's values in plain */
} bb_weight_exchange;

/* shards: for the ranks of dist. tiles: used for the scales. model, dist, shards and tiles must outlive *out. */
bb_status bb_weight_exchange_open(bb_model *model, bb_dist *dist, const bb_shards *shards, bb_tile_sums *tiles,
                                  bb_weight_exchange *out, bb_error *err);
void bb_weight_exchange_close(bb_weight_exchange *x);
/* Collective calls. after_update: must be called after each rank has updated its pieces of model->params. f32: fetches all f32
 * values, on every rank, or on rank 0 only. */
bb_status bb_weight_exchange_after_update(bb_weight_exchange *x, bb_error *err);
bb_status bb_weight_exchange_f32(bb_weight_exchange *x, bb_error *err);
bb_status bb_weight_exchange_f32_to_rank_0(bb_weight_exchange *x, bb_error *err);
/* Returns a checksum of part 0 .. parts-1 of the weights that all ranks have; if it differs between ranks, so do their weights.
 * Before bb_weight_exchange_open, it covers the model's f32 weights. */
uint64_t bb_weight_exchange_sum(const bb_weight_exchange *x, int part, int parts);

#endif
