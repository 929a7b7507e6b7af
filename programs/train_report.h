// SPDX-License-Identifier: MIT
/* What `bitbyte train` says: a summary, progress, how it ended. For people, or as lines of JSON. */
#ifndef BB_PROGRAMS_TRAIN_REPORT_H
#define BB_PROGRAMS_TRAIN_REPORT_H

#include "progress.h"
#include "train_options.h"

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
/* What this rank will take, and what the host has. */
typedef struct bb_train_memory {
    bb_memory_estimate estimate;
    uint64_t free_bytes;
    bool no_copy; /* no memory for the copy that checkpoints would be written from */
} bb_train_memory;

/* Everything that is known before the first step. */
void bb_train_report_summary(bb_train_report *report, bb_device *device, const bb_config *config, const bb_train_memory *memory,
                             const bb_dataset *dataset, int64_t first_step);
/* Something that the user should read, before the first step. */
void bb_train_report_note(bb_train_report *report, const char *message);
/* The trainer's on_event; user is the report. */
void bb_train_report_event(void *user, const bb_train_event *event);
/* All ranks: how it ended, interrupted or done, what it took, and what to type next. */
bb_status bb_train_report_end(bb_train_report *report, bool interrupted, int64_t step, double seconds, bb_error *err);
/* With --profile: where the time of this rank went, as bb_profile_report gives it. */
void bb_train_report_profile(bb_train_report *report, const char *profile);

#endif
