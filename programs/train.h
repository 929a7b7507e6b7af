// SPDX-License-Identifier: MIT
/* The parts of `bitbyte train`: its options, where its configuration comes from, and what it says. */
#ifndef BB_PROGRAMS_TRAIN_H
#define BB_PROGRAMS_TRAIN_H

#include "common.h"
#include "progress.h"

typedef struct bb_train_args {
    bb_train_options options; /* what the library takes; pointers and callbacks are filled in later */
    bb_model_args model;
    bb_device_args device;
    const char *data, *out, *val_data, *resume, *init; /* paths, absolute after bb_train_args_read */
    double lr, wd;
    int optim, lr_schedule, reduce, save_copy; /* bb_optimizer_kind, bb_lr_schedule, bb_reduce, bb_save_copy */
    int dist_timeout, zero;
    int64_t seed;
    bool no_ckpt, no_opt_state, allow_overwrite, wd_all, ddp, use_sdpa, json;

    char checkpoint[4096]; /* file or run directory to resume from, "" when there is none */
    char *config_json;     /* what config.json of the run will hold; free() it */
} bb_train_args;

/* Whether the command line says --ddp: asked before it is read, since then the ranks read it together. */
bool bb_train_wants_ranks(int argc, char **argv);
/* Reads the command line and, when resuming or starting from a file, the configuration that comes with it; checks everything
 * that needs neither memory nor data. Returns BB_CLI_GO_ON or an exit status. */
int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args, const bb_cli_command **command);
/* Length of the longest sequences that the run will train on. */
int bb_train_longest(const bb_train_options *options);

/* Bytes of one rank. */
typedef struct bb_rank_memory {
    uint64_t predicted, optimizer, peak; /* peak: resident, by the system's count; 0 until the end */
} bb_rank_memory;

typedef struct bb_train_report {
    const bb_train_args *args;
    bb_rank_memory *ranks; /* (size of the job) */
    bb_progress progress;
    bb_trainer *trainer; /* asked to stop when what it says no longer arrives; NULL before it exists */
    char saved[4096];    /* the newest checkpoint, "" before the first */
} bb_train_report;

bb_status bb_train_report_open(bb_train_report *report, const bb_train_args *args, bb_error *err);
void bb_train_report_close(bb_train_report *report);
/* All ranks: what this one will take, and what its optimizer's state takes, to all. */
bb_status bb_train_report_memory(bb_train_report *report, uint64_t predicted, uint64_t optimizer, bb_error *err);
/* Everything that is known before the first step. */
void bb_train_report_summary(bb_train_report *report, bb_device *device, const bb_config *config,
                             const bb_memory_estimate *memory, uint64_t free_bytes, const bb_dataset_info *data,
                             int64_t first_step);
/* Something that the user should read, before the first step. */
void bb_train_report_note(bb_train_report *report, const char *message);
/* The trainer's on_event; user is the report. */
void bb_train_report_event(void *user, const bb_train_event *event);
/* All ranks: how it ended, interrupted or done, what it took, and what to type next. */
bb_status bb_train_report_end(bb_train_report *report, bool interrupted, int64_t step, double seconds, bb_error *err);

#endif
