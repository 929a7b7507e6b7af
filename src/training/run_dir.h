// SPDX-License-Identifier: MIT
/* The directory that a run leaves: config.json, metrics.jsonl, step-NNNNNNNN.safetensors, latest. docs/FORMAT.md. */
#ifndef BB_TRAINING_RUN_DIR_H
#define BB_TRAINING_RUN_DIR_H

#include <jansson.h>

#include "core/status.h"

typedef struct bb_run_dir {
    char *path;
    int lock_fd; /* on the directory itself: one process trains in it */
} bb_run_dir;

/* The checkpoints that stay when a new one is saved: the `newest` (0: all), and those of steps divisible by `every` (0: no
 * others). */
typedef struct bb_keep {
    int newest, every;
} bb_keep;

typedef struct bb_run_dir_use {
    int64_t resume_step;  /* the step that this process resumes from; -1 if its state did not come from this directory */
    int64_t damaged_step; /* the latest checkpoint, if found damaged; else -1 */
    bool allow_overwrite;
    const char *config_json; /* what the run will write to config.json; NULL: nothing */
} bb_run_dir_use;

/* Creates the directory if necessary, and locks it. An error, before anything is changed: with resume_step -1, files that the
 * run would write but that belong to another program; checkpoints that the run would overwrite (with resume_step -1 all, else
 * the later ones). `allow_overwrite` removes those checkpoints. But later ones up to `damaged_step` are renamed to
 * NAME.damaged. Temporary files of a killed process are removed. */
bb_status bb_run_dir_open(const char *path, const bb_run_dir_use *use, bb_run_dir *out, bb_error *err);
void bb_run_dir_close(bb_run_dir *dir);

/* Path of the checkpoint of a step, malloc'd. NULL: out of memory. */
char *bb_run_dir_checkpoint_path(const bb_run_dir *dir, int64_t step);
/* The step in the name of a checkpoint; -1 for any other name. */
int64_t bb_run_dir_step_of(const char *path);
/* Writes `latest`, then removes the checkpoints that `keep` does not name. */
bb_status bb_run_dir_checkpoint_saved(const bb_run_dir *dir, int64_t step, const bb_keep *keep, bb_error *err);

/* The number of checkpoints in the directory. */
bb_status bb_run_dir_count(const bb_run_dir *dir, int *count, bb_error *err);

/* Removes the lines of steps after `step`, which an earlier process logged but did not save. */
bb_status bb_run_dir_rewind_metrics(const bb_run_dir *dir, int64_t step, bb_error *err);
/* Whether metrics.jsonl has a validation at `step`. */
bb_status bb_run_dir_was_validated(const char *dir, int64_t step, bool *validated, bb_error *err);
/* Appends one line, all of it or nothing; steals the reference. */
bb_status bb_run_dir_append_metrics(const bb_run_dir *dir, json_t *line, bb_error *err);

/* Whether the checkpoint file `path` is in the directory `dir`, which need not exist. */
bb_status bb_run_dir_contains(const char *dir, const char *path, bool *contains, bb_error *err);

#endif
