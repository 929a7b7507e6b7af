// SPDX-License-Identifier: MIT
/* AdamW, its 8-bit form, and Muon over the model's parameter table. The moments are either all here, or shared out over ranks
 * (ZeRO stage 1, arXiv:1910.02054): each rank updates the pieces whose moments it holds, and sends the new weights to the
 * others. */
#ifndef BB_TRAINING_OPTIM_H
#define BB_TRAINING_OPTIM_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/shards.h"
#include "training/tile_sums.h"
#include "training/weight_exchange.h"

enum { BB_OPTIM_SMALL_TENSOR = 4096 }; /* the 8-bit form keeps the moments of tensors with fewer elements in f32 */

typedef enum bb_moments { BB_MOMENTS_F32, BB_MOMENTS_8BIT, BB_MOMENTUM_BF16, BB_MOMENTS_ROWS } bb_moments;

/* The state of one piece. Which members are set depends on its form; all are NULL if another rank holds the state. */
typedef struct bb_optimizer_slot {
    bb_moments form;
    float *m, *v; /* (count) f32 */
    bb_adam8_state q;
    bb_bf16 *momentum; /* (count): of Muon */
    float *row_sums;   /* (rows): of Adagrad, for n-gram embeddings under any optimizer */
} bb_optimizer_slot;

struct bb_optimizer {
    bb_model *model;
    bb_optimizer_options options;
    bb_dist *dist;            /* ranks that share the state; NULL: all of it is here */
    int64_t steps;            /* updates applied */
    double norm_limit;        /* steps with a larger or non-finite gradient norm change nothing; INFINITY: no limit */
    bb_shards shards;         /* for a single rank if dist is NULL */
    bb_optimizer_slot *slots; /* (piece count), host */
    bb_muon_matrix *matrices; /* host memory for the list of this rank's matrices that Muon updates */
    void *memory;             /* one arena of device memory with the state of this rank's pieces */
    size_t bytes;
    bb_tile_sums tiles;          /* sums over gradients for the norm, over weights for the scales */
    bb_weight_exchange exchange; /* with the ranks of dist; without dist, of the model alone */
};

/* Returns the form of a tensor's moments. n-gram embeddings have one number a row: most rows occur in few steps, where a mean
 * over steps says little, and moments would take twice the memory of the table. The 8-bit form is used for the matrices of the
 * blocks, unless they are small. It is not used for the embedding: rows that occur rarely have moments far below those of their
 * neighbors, too far for the 8 bits of a shared block. */
bb_moments bb_optimizer_moments(bb_optimizer_kind kind, const bb_param *param);
bb_status bb_optimizer_check_kind(bb_optimizer_kind kind, bb_error *err);
/* Returns the number of blocks of the 8-bit form for `count` elements. */
int64_t bb_optimizer_blocks(int64_t count);
/* Computes the bytes that the state of this configuration takes on a rank; size 1: all of it. */
bb_status bb_optimizer_predict(const bb_config *config, bb_optimizer_kind kind, int rank, int size, uint64_t *bytes,
                               bb_error *err);
/* Sets the slots (one per piece) to the addresses of a rank's state in an arena; slots may be NULL, to measure. */
void bb_optimizer_layout(const bb_param_table *table, const bb_shards *shards, int rank, bb_optimizer_kind kind,
                         bb_optimizer_slot *slots, bb_arena *arena);
/* Accessors for the trainer, which does not know the struct. */
const bb_model *bb_optimizer_model(const bb_optimizer *optimizer);
/* The ranks that share the state; NULL: all of it is here. */
bb_dist *bb_optimizer_dist(const bb_optimizer *optimizer);
/* Which parts of the state each rank holds; NULL: all of it is here. */
const bb_shards *bb_optimizer_parts(const bb_optimizer *optimizer);
double bb_optimizer_lr(const bb_optimizer *optimizer);
int64_t bb_optimizer_steps(const bb_optimizer *optimizer);
/* bb_optimizer_step changes nothing if the gradient norm exceeds the limit; INFINITY: no limit. */
void bb_optimizer_set_norm_limit(bb_optimizer *optimizer, double limit);
/* Collective calls: bring the f32 weights that other ranks update to every rank, or to rank 0. Do nothing if the state is not
 * shared. */
bb_status bb_optimizer_gather_weights(bb_optimizer *optimizer, bb_error *err);
bb_status bb_optimizer_gather_weights_to_rank_0(bb_optimizer *optimizer, bb_error *err);
/* See bb_weight_exchange_sum. */
uint64_t bb_optimizer_weights_checksum(const bb_optimizer *optimizer, int part, int parts);
/* Its name in checkpoints; "none" for NULL. */
const char *bb_optimizer_name(const bb_optimizer *optimizer);
/* Computes the global norm of the gradients, with the same bits however the state is shared. */
bb_status bb_optimizer_grad_norm(bb_optimizer *optimizer, double *norm, bb_error *err);

#endif
