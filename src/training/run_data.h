// SPDX-License-Identifier: MIT
/* Which data a run has been trained on, and whether a resumed one finds the same. */
#ifndef BB_TRAINING_RUN_DATA_H
#define BB_TRAINING_RUN_DATA_H

#include <jansson.h>

#include "data/dataset.h"

typedef struct bb_run_data {
    json_t *before; /* of the checkpoint that is resumed; NULL: it does not say */
    char *text;     /* what the run's checkpoints will say; NULL until bb_run_data_check */
} bb_run_data;

/* What a checkpoint says. */
bb_status bb_run_data_load(bb_run_data *data, const char *checkpoint, bb_error *err);
/* Looks at the data. `changes` gets in one line how it differs from what it was, "" where it does not. */
bb_status bb_run_data_check(bb_run_data *data, bb_dataset *dataset, char *changes, size_t size, bb_error *err);
void bb_run_data_free(bb_run_data *data);

#endif
