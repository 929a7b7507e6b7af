// SPDX-License-Identifier: MIT
/* Records which data a run was trained on, and checks that a resumed run has the same. */
#ifndef BB_TRAINING_RUN_DATA_H
#define BB_TRAINING_RUN_DATA_H

#include <jansson.h>

#include "data/dataset.h"

typedef struct bb_run_data {
    json_t *before; /* recorded in the resumed checkpoint; NULL: it has no record */
    char *text;     /* record for the run's checkpoints; NULL until bb_run_data_check */
} bb_run_data;

/* Reads the record in a checkpoint. */
bb_status bb_run_data_load(bb_run_data *data, const char *checkpoint, bb_error *err);
/* Identifies the data. `changes` describes in one line how it differs from the record, or is "". */
bb_status bb_run_data_check(bb_run_data *data, bb_dataset *dataset, char *changes, size_t size, bb_error *err);
void bb_run_data_free(bb_run_data *data);

#endif
