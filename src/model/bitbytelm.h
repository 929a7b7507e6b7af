// SPDX-License-Identifier: MIT
/* The model: parameters, workspace, forward and backward over the operation table. */
#ifndef BB_MODEL_BITBYTELM_H
#define BB_MODEL_BITBYTELM_H

#include "core/arena.h"
#include "model/block.h"
#include "model/params.h"
#include "ops/ops.h"

typedef struct bb_workspace {
    int64_t max_rows;  /* B*T that it is carved for; 0: none yet */
    int64_t positions; /* in the rotary table */
    bool training, recompute;
    void *memory;
    size_t bytes;
    uint8_t *x, *y;             /* (M) bytes, device */
    float *rope_cos, *rope_sin; /* (positions, D/2) */
    float **block_x;            /* host array (L+1): the input of each block, (M,C) f32; the last is norm_f's input.
                                 * Without training all are the same buffer. */
    bb_block_saved *saved;      /* host array (L); with recompute, or without training, all entries name the same memory */
    float *final_r;             /* (M) */
    float *h;                   /* (M,C) f32: norm_f's output */
    float *logits;              /* (M,V) f32; dlogits in place */
    float *nll;                 /* (M) f32 */
    float *dx;                  /* (M,C) f32, the residual's gradient */
    bb_block_scratch scratch;
    float *host_nll; /* host (M) */
} bb_workspace;

struct bb_model {
    bb_device *device;
    bb_config config;
    bb_param_table table;
    bool for_inference;   /* it holds no f32 of its ternary weights */
    float *params;        /* device, table.held f32 */
    float *grads;         /* the same shape; NULL until training is reserved */
    bool gradients_empty; /* all zero, whatever stands in grads: the next backward pass overwrites it */
    bb_block *blocks;     /* host array (L): where a block's parameters, gradients and prepared weights are */
    void *quantized;      /* device memory of the prepared weights */
    size_t quantized_bytes;
    bool prepared; /* the prepared weights belong to the present parameters */
    int trained_length;
    bb_workspace ws;
    /* Called in a backward pass when it adds nothing more to the gradients from element `first` on: first goes down from pass
     * to pass of a block until it is 0. NULL: nobody. */
    void (*on_gradients)(void *user, int64_t first);
    void *on_gradients_user;
};

enum { BB_DEFAULT_TRAINED_LENGTH = 2048 }; /* where a file does not say */

/* A model whose parameters are all zero, for a loader to fill. For inference, a loader fills the ternary tensors too. */
bb_status bb_model_create_empty(bb_device *device, const bb_config *config, bb_model **out, bb_error *err);
bb_status bb_model_create_for_inference(bb_device *device, const bb_config *config, bb_model **out, bb_error *err);
/* The prepared weight of ternary tensor `index` of the table: one segment, in the model's memory. */
bb_ternary bb_model_ternary(const bb_model *model, int index);

/* Writes the zeros of gradients that are empty, before something else than a backward pass uses them. */
bb_status bb_model_settle_gradients(bb_model *model, bb_error *err);
/* Gives the model another range for its gradients, table.total f32; the old one is the caller's. */
float *bb_model_swap_gradients(bb_model *model, float *grads);
/* After a change of params (optimizer step, load): the prepared weights are made again before their next use. */
void bb_model_parameters_changed(bb_model *model);
/* Makes the prepared (quantized) weights if they are not current. */
void bb_model_prepare(bb_model *model);

/* Bytes of workspace for batches up to (batch_size, seq_len), of that for a cache, and of the prepared weights. */
size_t bb_workspace_measure(bb_device *device, const bb_config *config, int batch_size, int seq_len, bool training,
                            bool recompute);
size_t bb_cache_workspace_measure(bb_device *device, const bb_config *config, int64_t capacity);
size_t bb_quantized_measure(bb_device *device, const bb_config *config, bool for_inference);

/* The keys and values of the bytes so far, which the cached forward pass reads and fills. */
typedef struct bb_kv_cache {
    bb_device *device;
    void *memory; /* device: of all layers */
    size_t bytes;
    bb_kv *layers; /* host (layer_count) */
    int layer_count;
    int64_t capacity; /* positions */
    int64_t length;   /* filled positions; the caller may set it back, to read on from there with other bytes */
} bb_kv_cache;

enum { BB_PREFILL_ROWS = 256 }; /* so many bytes go through the model at once: the workspace stays small */

/* Bytes of a cache. */
size_t bb_kv_cache_bytes(const bb_config *config, int64_t capacity, bb_kv_type type);
/* An empty cache, and the model's workspace for reading into it. */
bb_status bb_kv_cache_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err);
void bb_kv_cache_close(bb_kv_cache *cache);
/* Runs n >= 1 bytes at positions length .. length+n-1 (<= capacity) through the model, appends them to the cache, and gives
 * the logits of the last one (all = false: (V)) or of all (n,V), on the host. */
bb_status bb_model_forward_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *bytes, int64_t n, bool all, float *logits,
                                  bb_error *err);
/* Reads bytes x as decoding does, and gives nll[i], nats, of y[i] after x[0] .. x[i]; for an empty cache of capacity n or more.
 */
bb_status bb_model_nll_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *x, const uint8_t *y, int64_t n, float *nll,
                              bb_error *err);

#endif
