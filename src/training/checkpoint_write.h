// SPDX-License-Identifier: MIT
/* Writes checkpoints: the model's tensors under their own names, the optimizer's state under `opt.*`, and the training state as
 * JSON in the metadata, in one safetensors file. A model file is the same without the last two. docs/FORMAT.md is normative. */
#ifndef BB_TRAINING_CHECKPOINT_WRITE_H
#define BB_TRAINING_CHECKPOINT_WRITE_H

#include "training/checkpoint_snapshot.h"

/* Writes a captured snapshot. Releases it as soon as the live arrays have been read, before the file is flushed and renamed;
 * also on failure. */
bb_status bb_checkpoint_write(bb_snapshot *snapshot, const char *path, bb_error *err);

/* On ranks other than 0: sends this rank's part of the optimizer's state to rank 0: to bb_snapshot_capture if its snapshot is a
 * copy, else to bb_checkpoint_write. */
bb_status bb_checkpoint_contribute(const bb_optimizer *optimizer, bool copy, bb_error *err);

/* Captures and writes in one call. Without optimizer and state (both NULL) it writes a model file. */
bb_status bb_checkpoint_save(const char *path, const bb_model *model, const bb_optimizer *optimizer,
                             const bb_training_state *state, bb_error *err);

#endif
