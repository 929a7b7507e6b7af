// SPDX-License-Identifier: MIT
/* metrics.jsonl of a run directory. docs/FORMAT.md. */
#ifndef BB_TRAINING_RUN_METRICS_H
#define BB_TRAINING_RUN_METRICS_H

#include <jansson.h>

#include "training/run_dir.h"
#include "training/val_history.h"

/* Removes the lines of steps after `step`, which an earlier process logged but did not save. */
bb_status bb_run_metrics_rewind(const bb_run_dir *dir, int64_t step, bb_error *err);
/* Reads the validations up to `step`. */
bb_status bb_run_metrics_history(const char *dir, int64_t step, bb_val_history *out, bb_error *err);
/* Appends one line completely or not at all; takes ownership of the reference. */
bb_status bb_run_metrics_append(const bb_run_dir *dir, json_t *line, bb_error *err);

#endif
