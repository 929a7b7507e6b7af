// SPDX-License-Identifier: MIT
/* AdamW, its 8-bit form, and Muon over the model's parameter table; the moments all here, or shared out over ranks (ZeRO stage 1,
 * arXiv:1910.02054): each rank updates the pieces whose moments it holds, and gives the new weights to the others. */
#ifndef BB_TRAINING_OPTIM_H
#define BB_TRAINING_OPTIM_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/shards.h"
#include "training/tile_sums.h"
#include "training/weight_exchange.h"

enum { BB_OPTIM_SMALL_TENSOR = 4096 }; /* the 8-bit form keeps the moments of tensors with fewer elements in f32 */

typedef enum bb_moments { BB_MOMENTS_F32, BB_MOMENTS_8BIT, BB_MOMENTUM_BF16, BB_MOMENTS_ROWS } bb_moments;

/* The state of one piece; the members of its form are set, all NULL where another rank holds it. */
typedef struct bb_optimizer_slot {
    bb_moments form;
    float *m, *v; /* (count) f32 */
    bb_adam8_state q;
    bb_bf16 *momentum; /* (count), Muon's */
    float *row_sums;   /* (rows): Adagrad's, of n-gram embeddings under any optimizer */
} bb_optimizer_slot;

struct bb_optimizer {
    bb_model *model;
    bb_optimizer_options options;
    bb_dist *dist;            /* that the state is shared out over; NULL: it is all here */
    int64_t steps;            /* updates applied */
    double norm_limit;        /* a gradient norm above it changes nothing, as one that is not finite; INFINITY: none */
    bb_shards shards;         /* of one rank where dist is NULL */
    bb_optimizer_slot *slots; /* host array, one per piece */
    bb_muon_matrix *matrices; /* host array: room for the matrices of this rank's pieces that Muon updates */
    void *memory;             /* one arena of device memory: this rank's pieces */
    size_t bytes;
    bb_tile_sums tiles;          /* of the gradients for their norm, of the weights for their scales */
    bb_weight_exchange exchange; /* with dist's ranks; of the model alone where dist is NULL */
};

/* The form of a tensor's moments. n-gram embeddings have a number a row: most rows are seen in few steps, where a mean over steps says
 * little, and moments would take twice the memory of the table. In 8 bits are those of the blocks' matrices, unless small. Of the embedding, rows that are rarely
 * seen have moments far below those of the rows beside them, too far for a block's 8 bits. */
bb_moments bb_optimizer_moments(bb_optimizer_kind kind, const bb_param *param);
bb_status bb_optimizer_check_kind(bb_optimizer_kind kind, bb_error *err);
/* Blocks of the 8-bit form of so many elements. */
int64_t bb_optimizer_blocks(int64_t count);
/* Bytes that the state of this configuration takes on a rank; size 1: all of it. */
bb_status bb_optimizer_predict(const bb_config *config, bb_optimizer_kind kind, int rank, int size, uint64_t *bytes,
                               bb_error *err);
/* Fills slots (one per piece) with the places of a rank's state in an arena; slots may be NULL, to measure. */
void bb_optimizer_layout(const bb_param_table *table, const bb_shards *shards, int rank, bb_optimizer_kind kind,
                         bb_optimizer_slot *slots, bb_arena *arena);
/* For the trainer, which does not know the struct. */
const bb_model *bb_optimizer_model(const bb_optimizer *optimizer);
/* The ranks that share its state; NULL: it is all here. */
bb_dist *bb_optimizer_dist(const bb_optimizer *optimizer);
/* What the ranks hold of its state; NULL: it is all here. */
const bb_shards *bb_optimizer_parts(const bb_optimizer *optimizer);
double bb_optimizer_lr(const bb_optimizer *optimizer);
int64_t bb_optimizer_steps(const bb_optimizer *optimizer);
/* bb_optimizer_step changes nothing when the gradient norm is above the limit; INFINITY: no limit. */
void bb_optimizer_set_norm_limit(bb_optimizer *optimizer, double limit);
/* All ranks call these: brings the f32 weights that other ranks update, to everywhere or to rank 0. Nothing to do when the state is
 * not shared. */
bb_status bb_optimizer_gather_weights(bb_optimizer *optimizer, bb_error *err);
bb_status bb_optimizer_gather_weights_to_rank_0(bb_optimizer *optimizer, bb_error *err);
/* As bb_weight_exchange_sum. */
uint64_t bb_optimizer_weights_checksum(const bb_optimizer *optimizer, int part, int parts);
/* Its name in checkpoints; "none" for NULL. */
const char *bb_optimizer_name(const bb_optimizer *optimizer);
/* The global norm of the gradients, the same bits however the state is shared out. */
bb_status bb_optimizer_grad_norm(bb_optimizer *optimizer, double *norm, bb_error *err);

#endif
