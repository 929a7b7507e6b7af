// SPDX-License-Identifier: MIT
/* The gradients of a step: the sum over micro-batches, in a fixed order, within a rank and over all ranks.
 *
 * BB_REDUCE_EXACT: sums form one tree over all micro-batches of the step. A node with an even number of micro-batches is the
 * sum of its two halves; an odd number makes a leaf, whose micro-batches are accumulated one after the other. Ranks hold
 * contiguous runs of micro-batches: if their number is a power of two, each run is a subtree, so any such number gives the same
 * bits. A rank needs one buffer of all gradients for each time that its run can be halved, and adds and clears all gradients
 * once for each leaf.
 * BB_REDUCE_FAST: a rank accumulates all its micro-batches one after the other; the tree is only over ranks.
 * Either way, the same number of ranks always gives the same bits.
 *
 * The sum over ranks begins block by block, during the backward pass of the last micro-batch. */
#ifndef BB_TRAINING_GRADIENTS_H
#define BB_TRAINING_GRADIENTS_H

#include "dist/dist.h"
#include "model/model.h"
#include "training/collectives.h"
#include "training/shards.h"

enum { BB_GRADIENT_LEVELS = 30 };

/* A step has `total` micro-batches; a rank computes `count` of them from `first` on. */
typedef struct bb_micro_run {
    int total, first, count;
} bb_micro_run;

bb_status bb_micro_run_for_rank(const bb_train_options *options, int rank, int size, bb_micro_run *out, bb_error *err);

typedef struct bb_gradients {
    bb_model *model;
    bb_dist *dist;
    int micros;                         /* micro-batches per step in this process */
    int per_leaf, levels;               /* micro-batches of a leaf of the tree; levels above the leaves */
    float *partial[BB_GRADIENT_LEVELS]; /* (levels) device, like model->grads */
    bb_dist_kind kind;                  /* of the sum over ranks */
    const bb_shards *parts;             /* of the ranks, or all_parts */
    int64_t rows;                       /* of a micro-batch, at most */
    double *losses;                     /* (micros) */
    float *nll, *host_nll;              /* (micros, rows) device, (rows) host; where the device has its own memory, else NULL */
    bb_shards all_parts;
    bb_collectives collectives;
    /* of the current step */
    bool checked;
    int micro, next_bucket;
    int64_t micro_rows;
    int64_t final_from; /* from this element on, gradients are complete in this process */
    bb_error failure;   /* in the callback; code BB_OK: none */
} bb_gradients;

/* The model must have reserved gradients. parts: each rank gets the sum of its own parts only; NULL: every rank gets all. The
 * arguments must outlive g. */
bb_status bb_gradients_open(bb_model *model, bb_dist *dist, int micros, bb_reduce reduce, const bb_shards *parts,
                            bb_gradients *out, bb_error *err);
void bb_gradients_close(bb_gradients *g);
/* Bytes of partial sums, and of what losses of `rows` rows a micro-batch are made of, in the device's memory, which is its own or not. */
uint64_t bb_gradients_predict(const bb_param_table *table, int micros, bb_reduce reduce);
uint64_t bb_gradients_predict_losses(int micros, int64_t rows, bool own_memory);
/* Bytes of buffers for the exchange, in the host's memory. own_memory: the device has its own. */
uint64_t bb_gradients_buffers(const bb_param_table *table, bool whole_matrices, const bb_dist *dist, bool own_memory);

/* A step: begin, then each micro-batch in turn (batch, scale as in bb_model_loss_backward), losses, then finish. After that
 * model->grads is the sum over all ranks; with `parts`, only in those of this rank, and undefined elsewhere.
 *
 * checked: each loss is waited for, and a micro-batch whose loss is not finite adds nothing. Otherwise a device that has its own memory is
 * waited for when all is started, by `losses`, and such a micro-batch makes gradients that are not finite: begin again, checked. *checked
 * receives which it is. */
bb_status bb_gradients_begin(bb_gradients *g, bool *checked, bb_error *err);
bb_status bb_gradients_micro(bb_gradients *g, const bb_train_batch *batch, double scale, bb_error *err);
/* losses (micros) */
bb_status bb_gradients_losses(bb_gradients *g, double *losses, bb_error *err);
bb_status bb_gradients_finish(bb_gradients *g, bb_error *err);

#endif
