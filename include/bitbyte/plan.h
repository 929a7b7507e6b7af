// SPDX-License-Identifier: MIT
/* Before training: how much memory it takes, and what makes the most of a given time. */
#ifndef BITBYTE_PLAN_H
#define BITBYTE_PLAN_H

#include "training.h"

/* ---- Memory -------------------------------------------------------------------------------------------------------------- */

/* Memory use of a run in bytes, without about 20 MB for the program. scratch is approximate. */
typedef struct bb_memory_estimate {
    uint64_t parameters, gradients, optimizer, activations, quantized_weights, scratch, total;
    uint64_t checkpoint_copy; /* copy that checkpoints are written from; included in total; 0: none, see bb_save_copy */
    uint64_t reduction;       /* partial gradient sums and exchange buffers; included in total */
    uint64_t inference_weights, kv_cache, inference_total;
    bool own_memory;     /* the device has memory of its own, and total is of it: without the copy and the buffers */
    uint64_t host_total; /* then these, in the host's memory; else 0 */
} bb_memory_estimate;

/* Training with these batches, and inference over seq_len bytes. */
typedef struct bb_memory_request {
    size_t struct_size;
    bb_optimizer_kind optim;
    int batch_size, seq_len;
    bool recompute; /* see bb_train_options */
} bb_memory_request;
BB_OPTIONS(bb_memory_request); /* ADAMW8BIT, 1 sequence of 2048 bytes */
BB_API bb_status bb_memory_predict(bb_device *device, const bb_config *config, const bb_memory_request *request,
                                   bb_memory_estimate *out, bb_error *err);
/* Adjusts an estimate of bb_memory_predict for this rank: adds partial gradient sums and exchange buffers, and subtracts the
 * moments that other ranks hold. */
BB_API bb_status bb_memory_predict_rank(const bb_config *config, const bb_train_options *options,
                                        const bb_optimizer_options *optimizer, bb_memory_estimate *estimate, bb_error *err);

/* ---- Training by a budget of time ---------------------------------------------------------------------------------------- */

/* The shape of about so many parameters: "1m", "3m", "10m", "25m", "85m", "200m" or "680m". */
BB_API bb_status bb_config_of_size(const char *size, bb_config *out, bb_error *err);

/* What 0 or NULL leaves open is chosen. */
typedef struct bb_plan_request {
    size_t struct_size;
    double minutes;
    int64_t data_bytes;
    const char *size;          /* see bb_config_of_size */
    const bb_config *config;   /* instead of a size */
    int ngram_max, ngram_bits; /* with a size: see bb_config */
    int seq_len, batch_size, grad_accum, global_batch;
    const bb_optimizer_options *optimizer; /* whose speed is measured; share_over is ignored. NULL: the default recipe */
    bb_dist *dist;                         /* that will train: all its ranks call bb_plan_run. NULL: this process */
} bb_plan_request;
BB_OPTIONS(bb_plan_request);

enum { BB_PLAN_LINES = 4 };
typedef struct bb_plan {
    bb_config config;
    int seq_len, batch_size, grad_accum; /* as in bb_train_options */
    bool recompute;
    int64_t steps;
    double budget_minutes;          /* for bb_train_options */
    int64_t max_steps;              /* likewise: more would read the data too often */
    double bytes_per_second;        /* of the whole job, measured or, for large models, estimated */
    char lines[BB_PLAN_LINES][160]; /* what was chosen, and why */
} bb_plan;

/* Measures how fast `device` trains (some seconds) and chooses what makes the most of the time (docs/LEARNING.md). */
BB_API bb_status bb_plan_run(bb_device *device, const bb_plan_request *request, bb_plan *out, bb_error *err);
/* Estimates from a trial of about two seconds how fast one process trains this model. */
BB_API bb_status bb_training_speed(bb_device *device, const bb_config *config, int seq_len, double *speed, bb_error *err);

#endif
