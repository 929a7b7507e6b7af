// SPDX-License-Identifier: MIT
/* The memory of a pass over the whole model, in one allocation: activations, scratch, logits and the RoPE table. */
#ifndef BB_MODEL_WORKSPACE_H
#define BB_MODEL_WORKSPACE_H

#include "model/activations.h"

typedef struct bb_workspace_shape {
    int64_t B, T;
    int64_t positions; /* of the RoPE table, at least T */
    bool training;     /* saves what a backward pass needs */
    bool recompute;    /* with training: saves only the inputs of the blocks, and one block's activations */
} bb_workspace_shape;

typedef struct bb_workspace {
    int64_t max_rows; /* B*T of the largest shape; 0: not open */
    int64_t positions;
    bool training, recompute;
    void *memory;
    size_t bytes;
    uint8_t *x, *y;             /* (M) bytes */
    int32_t *ngram_index;       /* (M, bb_ngram_count) */
    float *rope_cos, *rope_sin; /* (positions, D/2) */
    float **block_x;            /* host array (L+1): each block's input, (M,C) f32; the last is norm_f's input. Without training
                                 * all are the same buffer. */
    bb_block_saved *saved;      /* host array (L); without training, or with recompute, all share the same memory */
    float *final_r;             /* (M), of norm_f */
    float *h;                   /* (M,C) f32: norm_f's output */
    float *logits;              /* (M,V) f32; dlogits in place */
    float *nll;                 /* (M) f32 */
    float *dx;                  /* (M,C) f32, the residual's gradient; NULL without training */
    bb_block_scratch scratch;
    float *host_nll;           /* host (M) */
    int32_t *host_ngram_index; /* host; NULL without n-gram embeddings */
} bb_workspace;

/* Returns the device memory that a workspace takes. */
size_t bb_workspace_bytes(bb_device *device, const bb_config *config, const bb_workspace_shape *shape);
/* Replaces *w, whose memory is freed first; a zeroed *w is a closed workspace. On an error *w is closed. */
bb_status bb_workspace_open(bb_workspace *w, bb_device *device, const bb_config *config, const bb_workspace_shape *shape,
                            bb_error *err);
void bb_workspace_close(bb_workspace *w, bb_device *device);

#endif
