// SPDX-License-Identifier: MIT
/* The gradients of a step: micro-batches added in a fixed order, in this process and over all of them.
 *
 * BB_REDUCE_EXACT: every order is that of one tree over all micro-batches of the step. An even number of them is the sum of its
 * first half plus that of its second; an odd number is added one after the other in place. Ranks hold contiguous runs, so that
 * with a power of two of them, each run is a subtree, and the sum is the same bit for bit whatever their number. A process
 * needs log2 of its own halvings more ranges for partial sums, and one addition and one clearing of all gradients a leaf.
 * BB_REDUCE_FAST: a rank's micro-batches are added one after the other in place; then the tree over ranks.
 * Either way the same number of ranks gives the same bits, always.
 *
 * The sum over ranks begins block by block while the last micro-batch's backward pass goes on. */
#ifndef BB_TRAINING_GRADIENTS_H
#define BB_TRAINING_GRADIENTS_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/shards.h"

enum { BB_GRADIENT_LEVELS = 30 };

/* A step has `total` micro-batches; a rank takes `count` of them from `first` on. */
typedef struct bb_micro_run {
    int total, first, count;
} bb_micro_run;

bb_status bb_micro_run_of(const bb_train_options *options, int rank, int size, bb_micro_run *out, bb_error *err);

typedef struct bb_gradients {
    bb_model *model;
    bb_dist *dist;
    int micros;                         /* of a step, in this process */
    int per_leaf, levels;               /* micro-batches added in place; halvings above that */
    float *partial[BB_GRADIENT_LEVELS]; /* (levels) device, like model->grads */
    bb_dist_kind kind;                  /* of the sum over ranks */
    const bb_shards *parts;             /* of the ranks, or all_parts */
    bb_shards all_parts;
    /* of the present step */
    int micro, next_bucket;
    int64_t final_from; /* gradients from here on are this process's sum */
    bb_error failure;   /* of the callback; code BB_OK: none */
} bb_gradients;

/* model has its gradients reserved. parts: each rank gets the sum of its own parts alone; NULL: every rank gets all of it. They must
 * outlive g. */
bb_status bb_gradients_open(bb_model *model, bb_dist *dist, int micros, bb_reduce reduce, const bb_shards *parts,
                            bb_gradients *out, bb_error *err);
void bb_gradients_close(bb_gradients *g);
/* Bytes of partial sums and of the exchange's buffers; dist NULL: one process. */
uint64_t bb_gradients_predict(const bb_param_table *table, bool whole_matrices, const bb_dist *dist, int micros,
                              bb_reduce reduce);

/* A step: begin, then each micro-batch in turn (batch, scale, loss as in bb_model_loss_backward), then finish, after which
 * model->grads is the sum over all ranks, or of `parts`, is it there and undefined elsewhere. */
bb_status bb_gradients_begin(bb_gradients *g, bb_error *err);
bb_status bb_gradients_micro(bb_gradients *g, const bb_batch *batch, double scale, double *loss, bb_error *err);
bb_status bb_gradients_finish(bb_gradients *g, bb_error *err);

#endif
