// SPDX-License-Identifier: MIT
/* Output of `bitbyte train`: summary, progress and result, as text or as lines of JSON. */
#ifndef BB_PROGRAMS_TRAIN_REPORT_H
#define BB_PROGRAMS_TRAIN_REPORT_H

#include "progress.h"
#include "train_options.h"

/* Memory of one rank in bytes. */
typedef struct bb_rank_memory {
    uint64_t predicted, optimizer, peak; /* peak: maximum resident size; 0 until the end */
} bb_rank_memory;

typedef struct bb_train_report {
    const bb_train_args *args;
    bb_rank_memory *ranks; /* (size of the job) */
    bb_progress progress;
    bb_trainer *trainer; /* stopped if output fails; NULL before it exists */
    bb_spark losses;
    char saved[4096]; /* the latest checkpoint, "" before the first */
} bb_train_report;

bb_status bb_train_report_open(bb_train_report *report, const bb_train_args *args, bb_error *err);
void bb_train_report_close(bb_train_report *report);
/* Collective. Shares this rank's predicted memory and optimizer state size with all ranks. */
bb_status bb_train_report_memory(bb_train_report *report, uint64_t predicted, uint64_t optimizer, bb_error *err);
/* Predicted memory of this rank, and free memory. */
typedef struct bb_train_memory {
    bb_memory_estimate estimate;
    uint64_t free_bytes;
    bool no_copy; /* not enough memory for a checkpoint copy */
} bb_train_memory;

/* Prints the summary before the first step. */
void bb_train_report_summary(bb_train_report *report, bb_device *device, const bb_config *config, const bb_train_memory *memory,
                             const bb_dataset *dataset, int64_t first_step);
/* Prints a note before the first step. */
void bb_train_report_note(bb_train_report *report, const char *message);
/* Returns an event as --json prints it and --on_metrics receives it; NULL if out of memory. */
json_t *bb_train_event_json(const bb_train_event *event);
/* Shows a sample: an object with step, prompt and sample. */
void bb_train_report_sample(bb_train_report *report, json_t *event);
/* on_event of the trainer; user is the report. */
void bb_train_report_event(void *user, const bb_train_event *event);
/* Collective. Prints the result, memory use, and the next command. */
bb_status bb_train_report_end(bb_train_report *report, bool interrupted, int64_t step, double seconds, bb_error *err);
/* With --profile: prints the report of bb_profile_report for this rank. */
void bb_train_report_profile(bb_train_report *report, const char *profile);

#endif
