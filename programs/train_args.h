// SPDX-License-Identifier: MIT
/* The arguments of `bitbyte train`. */
#ifndef BB_PROGRAMS_TRAIN_ARGS_H
#define BB_PROGRAMS_TRAIN_ARGS_H

#include <jansson.h>

#include "bitbyte.h"
#include "common.h"

typedef enum bb_train_dtype { BB_DTYPE_AUTO, BB_DTYPE_BF16, BB_DTYPE_FP16 } bb_train_dtype;

typedef struct bb_train_args {
    bb_train_options options; /* library options; pointers and callbacks are set later */
    bb_model_args model;
    bb_import_args import; /* n_head, if given for the file of --init or --resume */
    bb_device_args device;
    double minutes;
    const char *size;
    const char *data, *out, *val_data, *resume, *init; /* paths, absolute after bb_train_args_read */
    double lr, lr_adam, lr_ngram, muon_momentum, wd, loss_scale;
    int muon_iterations;
    int recipe, optim, lr_schedule, reduce,
        save_copy; /* bb_recipe, bb_optimizer_kind, bb_lr_schedule, bb_reduce, bb_save_copy */
    int dtype;     /* bb_train_dtype */
    int dist_timeout, zero;
    int64_t seed;
    bool no_ckpt, no_opt_state, allow_overwrite, wd_all, ddp, use_sdpa, json, profile;
    int64_t sample_every;
    const char *sample_prompt, *on_metrics;
    bool tensorboard, metrics_csv;

    char checkpoint[4096];        /* file or run directory to resume from; "": none */
    char *config_json;            /* text of the run's config.json */
    char *checkpoint_config_json; /* configuration stored in its checkpoints */
    bb_plan plan;                 /* set by --minutes; steps 0: no plan */
    char *changes;                /* given options that differ from the resumed run; NULL: none */
    int64_t saved_steps;          /* --steps of the resumed run if it changed; else 0 */
    json_t *file_config;          /* configuration of a checkpoint file; options point to its strings */
    char default_out[64];
    json_t *saved;     /* configuration of the resumed run, or NULL; options point to its strings */
    char *absolute[3]; /* memory of absolute paths */
} bb_train_args;

/* Returns the optimizer options of the run; with --zero its moments are shared over dist. */
bb_optimizer_options bb_train_optimizer_options(const bb_train_args *args, bb_dist *dist);

/* Collective. Opens the device that this rank trains on: without --threads, with its share of the processors. */
bb_status bb_train_device_open(const bb_train_args *args, bb_dist *dist, bb_device **out, bb_error *err);

/* The option table, defined in train_option_table.c. */
extern const bb_cli_command bb_train_command;

#endif
