// SPDX-License-Identifier: MIT
/* The options of `bitbyte train`, and the configuration that a resumed run or a model file brings. */
#ifndef BB_PROGRAMS_TRAIN_OPTIONS_H
#define BB_PROGRAMS_TRAIN_OPTIONS_H

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

    char checkpoint[4096]; /* file or run directory to resume from, "" when there is none */
    char *config_json;     /* what config.json of the run will hold */
    char default_out[64];
    json_t *saved;     /* the resumed run's configuration, NULL when there is none; options borrow text from it */
    char *absolute[3]; /* what paths were made absolute in */
} bb_train_args;

extern const bb_cli_command bb_train_command; /* for messages */

/* Whether the command line says --ddp: asked before it is read, since then the ranks read it together. */
bool bb_train_wants_ranks(int argc, char **argv);
/* Reads the command line and, when resuming or starting from a file, the configuration that comes with it; checks everything
 * that needs neither memory nor data. Returns BB_CLI_CONTINUE or an exit status; bb_train_args_free in every case. */
int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args);
void bb_train_args_free(bb_train_args *args);
/* Length of the longest sequences that the run will train on. */
int bb_train_longest(const bb_train_options *options);

#endif
