// SPDX-License-Identifier: MIT
/* The validations of a run so far: the best one, and how many came after it. */
#ifndef BB_TRAINING_VAL_HISTORY_H
#define BB_TRAINING_VAL_HISTORY_H

#include "core/status.h"

enum { BB_METRICS_DIGITS = 9 }; /* significant digits of a number in metrics.jsonl */

typedef struct bb_val_history {
    int64_t last_step, best_step; /* -1: none */
    double best_bpb;              /* NaN: none */
    int64_t since_best;           /* validations after the best one */
} bb_val_history;

void bb_val_history_clear(bb_val_history *history);
/* Adds the next validation; returns true if it is the best so far. Results are compared as metrics.jsonl stores them, rounded
 * to BB_METRICS_DIGITS, so that a resumed run, which reads them there, decides the same. */
bool bb_val_history_add(bb_val_history *history, int64_t step, double bpb);

#endif
