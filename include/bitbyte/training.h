// SPDX-License-Identifier: MIT
/* Training: schedules, optimizers, the trainer, run directories. */
#ifndef BITBYTE_TRAINING_H
#define BITBYTE_TRAINING_H

#include "data.h"
#include "dist.h"
#include "model.h"

/* ---- Schedules ----------------------------------------------------------------------------------------------------------- */

/* After a linear warm-up: a cosine down to the last step; constant; constant, then linear over the last steps (cooldown). */
typedef enum bb_lr_schedule { BB_LR_COSINE = 0, BB_LR_CONSTANT = 1, BB_LR_LINEAR = 2 } bb_lr_schedule;
enum { BB_STEPS_CHANGES = 16 };
typedef struct bb_steps_before {
    int64_t steps, until;
} bb_steps_before;
typedef struct bb_lr_plan {
    bb_lr_schedule schedule;
    double base_lr, min_factor; /* COSINE, LINEAR: the final rate is base_lr * min_factor */
    int64_t warmup_steps, total_steps;
    double cooldown_frac; /* LINEAR: part of total_steps */
    /* Where the number of steps was changed during the run: it was before[i].steps until step before[i].until was done. Each change
     * stretches what was left of the schedule over the steps that are left; warm-up and cooldown are parts of the first number. */
    int changes;
    bb_steps_before before[BB_STEPS_CHANGES];
} bb_lr_plan;

BB_API double bb_lr_for_step(const bb_lr_plan *plan, int64_t step);
/* The sequence length curriculum: 2048, 4096, 8192 by progress, at most `cap` (0: no cap). */
BB_API int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap);
BB_API double bb_bits_per_byte(double loss_nats);

/* ---- Optimizer ----------------------------------------------------------------------------------------------------------- */

/* ADAMW: f32 moments. ADAMW8BIT: 8-bit moments for the matrices of the blocks. MUON: orthogonalized momentum in bf16 for the
 * matrices of the blocks, ADAMW for the embedding and the norms. */
typedef enum bb_optimizer_kind { BB_OPTIM_ADAMW = 0, BB_OPTIM_ADAMW8BIT = 1, BB_OPTIM_MUON = 2 } bb_optimizer_kind;

typedef struct bb_optimizer bb_optimizer;
typedef struct bb_optimizer_options {
    size_t struct_size;
    bb_optimizer_kind kind;
    double lr, weight_decay, beta1, beta2, eps;
    double lr_adam;      /* MUON: the rate of what AdamW updates, where lr is that of the matrices; follows the same schedule */
    double lr_ngram;     /* the rate of n-gram embeddings, under any optimizer; follows the same schedule */
    double momentum;     /* MUON: below 1; 0: 0.95 for a model with n-gram embeddings, else 0.9 */
    bool decay_all;      /* decay every parameter, not only 2-D weights */
    bb_dist *share_over; /* shards the moments over these ranks (ZeRO stage 1); results are the same. NULL: not sharded.
                            Must outlive the optimizer. Only a trainer with the same dist may then call bb_optimizer_step.
                            Until train returns, a rank's f32 copies of weights that other ranks update are stale */
    int muon_iterations; /* MUON: of Newton-Schulz, 1 to 5 */
} bb_optimizer_options;
BB_OPTIONS(bb_optimizer_options);
/* Optimizes the parameters of `model`, which must outlive it. */
BB_API bb_status bb_optimizer_create(bb_model *model, const bb_optimizer_options *options, bb_optimizer **out, bb_error *err);
BB_API void bb_optimizer_free(bb_optimizer *optimizer);
BB_API bool bb_optimizer_is_8bit(const bb_optimizer *optimizer);
BB_API uint64_t bb_optimizer_state_bytes(const bb_optimizer *optimizer); /* of this process */
/* Divides the gradients by loss_scale (1: unscaled), clips their global norm to max_norm (0: no clipping), and updates once.
 * If the gradient norm is not finite, nothing changes and *applied is false. */
BB_API bb_status bb_optimizer_step(bb_optimizer *optimizer, double lr, double max_norm, double loss_scale, double *grad_norm,
                                   bool *applied, bb_error *err);

/* Dynamic loss scaling for gradients in fp16 (bb_device_set_activations): the scale doubles after `growth_interval` good steps and halves
 * on overflow, down to 1. PyTorch's GradScaler begins with 65536 and 2000. */
typedef struct bb_loss_scaler bb_loss_scaler;
BB_API bb_status bb_loss_scaler_create(double initial_scale, int growth_interval, bool enabled, bb_loss_scaler **out,
                                       bb_error *err);
BB_API void bb_loss_scaler_free(bb_loss_scaler *scaler);
BB_API double bb_loss_scaler_scale(const bb_loss_scaler *scaler); /* 1 if disabled */
BB_API void bb_loss_scaler_update(bb_loss_scaler *scaler, bool found_overflow);

/* ---- Trainer ------------------------------------------------------------------------------------------------------------- */

typedef struct bb_trainer bb_trainer;

/* The order of gradient summation, which is fixed for a given number of ranks. FAST: each rank accumulates its micro-batches,
 * then ranks are summed. EXACT: sums by micro-batch, so that 1, 2, 4, … ranks give bit-identical checkpoints if they divide the
 * number of micro-batches. Takes more time and memory if a rank has several micro-batches per step. */
typedef enum bb_reduce { BB_REDUCE_FAST = 0, BB_REDUCE_EXACT = 1 } bb_reduce;

/* Whether checkpoints are written from a copy while training continues; else the next update waits for the file. AUTO: copy
 * unless it takes more than 1/8 of the host's memory. */
typedef enum bb_save_copy { BB_SAVE_COPY_AUTO = 0, BB_SAVE_COPY_YES, BB_SAVE_COPY_NO } bb_save_copy;

typedef enum bb_train_event_kind {
    BB_TRAIN_STEP = 0,   /* after every step */
    BB_TRAIN_VALIDATION, /* val_bpb was measured */
    BB_TRAIN_SAVED,      /* `path` holds the complete checkpoint of `step`, possibly some steps ago */
    BB_TRAIN_NOTICE      /* `message` is for the user: skipped step, short shard, … */
} bb_train_event_kind;

typedef struct bb_train_event {
    bb_train_event_kind kind;
    int64_t step, total_steps; /* steps done, including this one */
    int seq_len;
    double loss, bpb, lr, grad_norm, val_bpb;
    double bytes_per_second, elapsed_seconds, eta_seconds;                  /* in this call of train */
    int64_t bytes_seen;                                                     /* bytes trained on by the whole job since step 0 */
    int64_t skipped_steps, skipped_micro_batches, best_step, patience_left; /* best, left: validation with patience, else -1 */
    bool logged;                                                            /* this step is written to metrics.jsonl */
    double pause_seconds; /* BB_TRAIN_SAVED: how long training paused for it */
    /* Shares of the time since the last logged step. wait_share: waiting for other ranks, mean over ranks. exposed_share: the
     * minimum over ranks, summed over steps: communication not hidden by computation. */
    double wait_share, exposed_share;
    const char *path, *message;
    double loss_scale; /* of the loss scaler, after this step; 0: none */
} bb_train_event;

typedef struct bb_train_options {
    size_t struct_size;
    int64_t steps, warmup_steps; /* warmup_steps -1: int(warmup_frac * steps) */
    int64_t stop_at;             /* save and return after this step; schedules still use `steps`; 0: off */
    double warmup_frac;
    bb_lr_schedule lr_schedule;
    double lr_min_factor, cooldown_frac; /* see bb_lr_plan */
    double grad_clip;
    double spike_skip; /* skip steps whose loss or gradient norm exceeds the mean of the last 64 applied steps by this many
                          standard deviations; 0: off. Ten in a row end the run with BB_ERR_NUMERIC */
    int batch_size, grad_accum; /* per rank */
    int64_t global_batch;       /* sequences per step in the whole job, replaces grad_accum; 0: off */
    bb_dist *dist;              /* NULL: only this process. Must outlive the trainer */
    bb_reduce reduce;
    int seq_len;                     /* 0: the curriculum */
    int seq_len_cap;                 /* 0: none */
    bool recompute;                  /* keep only block inputs; recompute other activations in backward */
    int log_every, save_every, keep; /* keep: number of newest checkpoints to keep; 0: all */
    int keep_every;                  /* also keep checkpoints of steps divisible by this; 0: off */
    bool save_sync;                  /* wait until each checkpoint is written */
    bb_save_copy save_copy;
    double save_minutes; /* also save when the last checkpoint is this old; 0: off */
    double max_minutes;  /* save and return before the trainer is this old; 0: off */
    double
        budget_minutes;  /* now and then `steps` is set to what fits in this time, from the trainer's creation to the end of the
                              run, at the speed so far; requires seq_len; 0: off */
    const char *out_dir; /* NULL: write nothing */
    bool allow_overwrite;
    const char *run_config_json;          /* text of config.json in out_dir; NULL: none */
    const char *checkpoint_config_json;   /* JSON text stored in each checkpoint, for bb_checkpoint_config; NULL: none */
    bool require_same_data;               /* resuming on different data is an error, not a BB_TRAIN_NOTICE */
    const char *val_data;                 /* NULL: no validation */
    int val_every, val_batches, patience; /* patience: end after N validations without improvement; 0: off */
    int val_seq_len;                      /* bytes per window; 0: the training sequence length, at most 2048 */
    bool strict_val;                      /* a failed validation ends the run; otherwise it is a counted notice */
    void (*on_event)(void *user, const bb_train_event *event);
    void *user;
    int64_t budget_max_steps; /* with budget_minutes: never more steps than this; 0: no limit */
    const char
        *steps_before; /* "1800@97,1810@480": the run had 1800 steps until step 97, then 1810 until step 480, and `steps` from
                                 there on, as budget_minutes recorded it; the schedule is then the same. NULL or "": no change */
} bb_train_options;
BB_OPTIONS(bb_train_options);
/* Defaults for optimizer, rates, schedule and weight decay. BITBYTE: those measured to learn the most from each byte
 * (docs/LEARNING.md). ORIGINAL: the defaults of the PyTorch program that this one follows, and of the two functions above. */
typedef enum bb_recipe { BB_RECIPE_BITBYTE = 0, BB_RECIPE_ORIGINAL = 1 } bb_recipe;
/* Sets a recipe's values in options that hold defaults. Either may be NULL. */
BB_API void bb_recipe_options(bb_recipe recipe, bb_train_options *options, bb_optimizer_options *optimizer);
/* Returns the learning rates of a run with these options and this peak rate of the optimizer. */
BB_API bb_lr_plan bb_train_lr_plan(const bb_train_options *options, double base_lr);
/* The caller owns model, optimizer and scaler (may be NULL), which must outlive the trainer. Allocates the memory for the whole
 * run. With several ranks, each rank has its own of these and its own dataset over the same data, opened as rank 0 of 1; the
 * trainer selects the rank's part of each step. Only rank 0 writes files and gets events. */
BB_API bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler,
                                   const bb_train_options *options, bb_trainer **out, bb_error *err);
BB_API void bb_trainer_free(bb_trainer *trainer);
/* path: a checkpoint, or a run directory (its latest valid checkpoint; a BB_TRAIN_NOTICE names each damaged one). Without
 * load_opt_state, training continues at the same step with fresh moments. Call before train. */
BB_API bb_status bb_trainer_resume(bb_trainer *trainer, const char *path, bool load_opt_state, bb_error *err);
/* Trains until `steps`, `stop_at`, `max_minutes`, the end of `patience`, or a stop request (which saves and returns
 * BB_ERR_INTERRUPTED). A request to one rank stops all. On an error, saves the last good step unless the disk or the numbers
 * caused it; the message names the latest checkpoint. If train fails on one rank, others may wait for it: call bb_dist_abort.
 * Resuming at a step whose validation was interrupted or failed validates first. */
BB_API bb_status bb_trainer_train(bb_trainer *trainer, bb_dataset *dataset, bb_error *err);
/* Async-signal-safe, on any rank. stop: finish the step or cancel the validation, save, return. save: save after this step and
 * continue. */
BB_API void bb_trainer_request_stop(bb_trainer *trainer);
BB_API void bb_trainer_request_save(bb_trainer *trainer);
/* For use in on_event: appends a line to metrics.jsonl with a text that the model wrote at the current step. prompt, sample:
 * UTF-8. */
BB_API bb_status bb_trainer_log_sample(bb_trainer *trainer, const char *prompt, const char *sample, bb_error *err);
BB_API int64_t bb_trainer_failed_validations(const bb_trainer *trainer); /* since creation, on rank 0 */
BB_API int64_t bb_trainer_step(const bb_trainer *trainer);
BB_API int64_t bb_trainer_total_steps(const bb_trainer *trainer); /* with a budget, the corrected number */
/* Returns how samples are drawn: the default for a new run, else as in the resumed run. */
BB_API bb_sampling bb_trainer_sampling(const bb_trainer *trainer);
BB_API const char *bb_trainer_resumed_from(const bb_trainer *trainer); /* the checkpoint that was resumed, or NULL */
/* Returns wait_share and exposed_share (see bb_train_event) over the whole call of train; 0 for a single process. */
BB_API void bb_trainer_wait_shares(const bb_trainer *trainer, double *wait_share, double *exposed_share);
BB_API bool bb_trainer_out_of_time(const bb_trainer *trainer);     /* returns whether train ended because of max_minutes */
BB_API bool bb_trainer_out_of_patience(const bb_trainer *trainer); /* returns whether the run ended because of patience */
BB_API int64_t bb_trainer_best_step(const bb_trainer *trainer, double *val_bpb); /* with patience, on rank 0; -1: none */
/* ---- Run directories ----------------------------------------------------------------------------------------------------- */

/* Returns the checkpoint_config_json stored in a checkpoint, or NULL. Free it with bb_string_free. */
BB_API bb_status bb_checkpoint_config(const char *path, char **text, bb_error *err);
/* Find a run directory's newest checkpoint; the newest before a step; the one that a `latest` or `best` names (else `given`
 * itself). */
BB_API bb_status bb_run_latest_checkpoint(const char *run_dir, char *path, size_t path_size, bb_error *err);
BB_API bb_status bb_run_checkpoint_before(const char *run_dir, int64_t before, char *path, size_t path_size, bb_error *err);
BB_API bb_status bb_run_named_checkpoint(const char *given, char *path, size_t path_size, bb_error *err);
/* Finds the latest valid checkpoint of a run directory: calls `load` on each, newest first, while it returns BB_ERR_IO,
 * BB_ERR_FORMAT or BB_ERR_DATA (damaged), and returns its last status. on_damaged (may be NULL) gets each damaged one. */
BB_API bb_status bb_run_latest_valid(const char *run_dir, bb_status (*load)(void *user, const char *path, bb_error *err),
                                     void (*on_damaged)(void *user, const char *path, const char *reason), void *user,
                                     bb_error *err);

#endif
