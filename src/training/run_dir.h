// SPDX-License-Identifier: MIT
/* The directory of a run: config.json, metrics.jsonl, step-NNNNNNNN.safetensors, latest, best. docs/FORMAT.md. */
#ifndef BB_TRAINING_RUN_DIR_H
#define BB_TRAINING_RUN_DIR_H

#include "core/status.h"

#define BB_RUN_METRICS "metrics.jsonl"

typedef struct bb_run_dir {
    char *path;
    int lock_fd;  /* lock on the directory itself: only one process may train in it */
    int64_t best; /* step of the checkpoint that `best` names, which is never removed; -1: there is no `best` */
} bb_run_dir;

/* Which checkpoints are kept when a new one is saved: the `newest` (0: all), and those of steps divisible by `every` (0: no
 * others). */
typedef struct bb_retention {
    int newest, every;
} bb_retention;

typedef struct bb_run_dir_use {
    int64_t resume_step;  /* the step to resume from; -1 if the state did not come from this directory */
    int64_t damaged_step; /* the latest checkpoint if it was found damaged; else -1 */
    bool allow_overwrite;
    const char *config_json; /* text for config.json; NULL: not written */
    bool names_best;         /* the run will write `best` */
} bb_run_dir_use;

/* Creates the directory if necessary, and locks it. Fails, before anything is changed, if with resume_step -1 it has files that
 * the run would write but that belong to another program (for `best`, always), or if it has checkpoints that the run would
 * overwrite (with resume_step -1 all, else the later ones). `allow_overwrite` removes those checkpoints. Later ones up to
 * `damaged_step` are renamed to NAME.damaged. Removes temporary files of a killed process, and a `best` whose checkpoint is
 * gone. */
bb_status bb_run_dir_open(const char *path, const bb_run_dir_use *use, bb_run_dir *out, bb_error *err);
void bb_run_dir_close(bb_run_dir *dir);

/* Returns the malloc'd path of the checkpoint of a step, or NULL if out of memory. */
char *bb_run_dir_checkpoint_path(const bb_run_dir *dir, int64_t step);
/* Returns the step in the name of a checkpoint, or -1 for any other name. */
int64_t bb_run_dir_step_of(const char *path);
/* Writes `latest`, then removes the checkpoints that `keep` does not name, except the best. */
bb_status bb_run_dir_checkpoint_saved(const bb_run_dir *dir, int64_t step, const bb_retention *keep, bb_error *err);
/* The same for `best`. Must not be called during a save, whose thread reads which one is the best. */
bb_status bb_run_dir_set_best(bb_run_dir *dir, int64_t step, const bb_retention *keep, bb_error *err);
/* Returns whether the directory `path` has a checkpoint of this step, but no `best` that names it. */
bool bb_run_dir_best_is_late(const char *path, int64_t step);
/* Returns whether it has a checkpoint of this step. */
bool bb_run_dir_has_checkpoint(const char *path, int64_t step);

/* Counts the checkpoints in the directory. */
bb_status bb_run_dir_count(const bb_run_dir *dir, int *count, bb_error *err);

/* Sets *contains to whether the checkpoint file `path` is in the directory `dir`, which need not exist. */
bb_status bb_run_dir_contains(const char *dir, const char *path, bool *contains, bb_error *err);

#endif
