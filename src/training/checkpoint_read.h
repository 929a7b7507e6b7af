// SPDX-License-Identifier: MIT
/* Reads checkpoints (checkpoint_write.h). */
#ifndef BB_TRAINING_CHECKPOINT_READ_H
#define BB_TRAINING_CHECKPOINT_READ_H

#include "training/checkpoint_state.h"

/* Loads into an existing model of the same configuration; a different configuration is an error that names both values.
 * optimizer NULL: its state is not read. state may be NULL; a file without training state yields a zero state. Nothing is
 * changed unless the whole file is valid. */
bb_status bb_checkpoint_load(const char *path, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                             bb_error *err);

/* Returns the metadata's text under a key, which the caller frees; NULL if the file has no such key. */
bb_status bb_checkpoint_text(const char *path, const char *key, char **out, bb_error *err);

#endif
