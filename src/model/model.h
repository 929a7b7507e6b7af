// SPDX-License-Identifier: MIT
/* The model: parameters, gradients, prepared weights and the workspace. */
#ifndef BB_MODEL_MODEL_H
#define BB_MODEL_MODEL_H

#include <sys/types.h>

#include "model/ngram.h"
#include "model/params.h"
#include "model/weights.h"
#include "model/workspace.h"

struct bb_model {
    bb_device *device;
    bb_config config;
    bb_param_table table;
    int trained_length;
    bool for_inference;   /* has no f32 copy of its ternary weights */
    bool gradients_empty; /* grads counts as zeros, whatever it holds: the next backward pass overwrites it */
    bool prepared;        /* the prepared weights match the current parameters */
    bool has_source;
    float *params;    /* device memory, table.held f32 */
    float *grads;     /* same layout; NULL until training is reserved */
    bb_block *blocks; /* host array (L) */
    void *quantized;  /* device memory of the prepared weights; NULL in a dense model */
    size_t quantized_bytes;
    bb_ngram_table ngram; /* inference: codes and scales in ngram_memory; otherwise the current parameters */
    void *ngram_memory;
    char *chat_template; /* as stored in its file, not validated; NULL: none */
    dev_t source_device; /* the file that the model was loaded from, if has_source */
    ino_t source_inode;
    bb_workspace ws;
    /* Called during a backward pass when the gradients from element `first` on are final; may be NULL. `first` decreases from
     * block to block down to 0. */
    void (*on_gradients)(void *user, int64_t first);
    void *on_gradients_user;
};

enum { BB_DEFAULT_TRAINED_LENGTH = 2048 }; /* for files that do not store it */

/* Creates a model whose parameters are all zero, for a loader to fill. For inference the loader also fills the ternary
 * matrices. */
bb_status bb_model_create_empty(bb_device *device, const bb_config *config, bb_model **out, bb_error *err);
bb_status bb_model_create_for_inference(bb_device *device, const bb_config *config, bb_model **out, bb_error *err);
/* Returns the prepared matrix of ternary tensor `index` of the table: one segment, in the model's memory. */
bb_ternary bb_model_ternary(const bb_model *model, int index);

/* Reserves the workspace for passes without backward over `rows` rows of up to `positions` positions; never shrinks it. */
bb_status bb_model_reserve_rows(bb_model *model, int64_t rows, int64_t positions, bb_error *err);

/* bb_model_loss_backward that waits for nothing: nll, (rows) f32 of the device's memory, gets the negative log likelihood of each byte, and
 * where one is not finite, gradients are not either. batch may be overwritten when it returns. Without an error, sync gives the first one. */
bb_status bb_model_start_loss_backward(bb_model *model, const bb_train_batch *batch, double scale, float *nll, bb_error *err);
/* The mean of nll (rows), of the host's memory: the loss. */
double bb_mean_nll(const float *nll, int64_t rows);
/* Writes zeros if gradients are empty, for users of grads other than a backward pass. */
bb_status bb_model_settle_gradients(bb_model *model, bb_error *err);
/* Replaces the gradient buffer (table.total f32) and returns the old one, which the caller then owns. */
float *bb_model_swap_gradients(bb_model *model, float *grads);
/* Must be called after params change (optimizer step, load), so that the prepared weights are quantized again before their next
 * use. */
void bb_model_parameters_changed(bb_model *model);
/* Quantizes the prepared weights if they are out of date. */
void bb_model_prepare(bb_model *model);
/* Returns BB_ERR_NUMERIC with the tensor and element if a weight is not finite. Prepares the weights, and reads little else. */
bb_status bb_model_check_finite(bb_model *model, bb_error *err);

#endif
