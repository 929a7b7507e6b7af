// SPDX-License-Identifier: MIT
/* The arguments of `bitbyte train`. */
#ifndef BB_PROGRAMS_TRAIN_ARGS_H
#define BB_PROGRAMS_TRAIN_ARGS_H

#include <jansson.h>

#include "bitbyte.h"
#include "common.h"

typedef struct bb_train_args {
    bb_train_options options; /* what the library takes; pointers and callbacks are filled in later */
    bb_model_args model;
    bb_device_args device;
    const char *data, *out, *val_data, *resume, *init; /* paths, absolute after bb_train_args_read */
    double lr, wd;
    int optim, lr_schedule, reduce, save_copy; /* bb_optimizer_kind, bb_lr_schedule, bb_reduce, bb_save_copy */
    int dist_timeout, zero;
    int64_t seed;
    bool no_ckpt, no_opt_state, allow_overwrite, wd_all, ddp, use_sdpa, json, profile;

    char checkpoint[4096];        /* file or run directory to resume from, "" when there is none */
    char *config_json;            /* what config.json of the run will hold */
    char *checkpoint_config_json; /* what its checkpoints will */
    char *changes;                /* options that were given and differ from those of the resumed run; NULL: none */
    int64_t saved_steps;          /* of the resumed run, where --steps is another; else 0 */
    json_t *file_config;          /* the configuration that came with a checkpoint file; options borrow text from it */
    char default_out[64];
    json_t *saved;     /* the resumed run's configuration, NULL when there is none; options borrow text from it */
    char *absolute[3]; /* what paths were made absolute in */
} bb_train_args;

#endif
