// SPDX-License-Identifier: MIT
/* The training state of a checkpoint, and its JSON form in the file's metadata. docs/FORMAT.md is normative. */
#ifndef BB_TRAINING_CHECKPOINT_STATE_H
#define BB_TRAINING_CHECKPOINT_STATE_H

#include <jansson.h>

#include "bitbyte.h"
#include "training/spikes.h"

/* Everything besides tensors that a resumed run needs to be the same run. */
typedef struct bb_training_state {
    int64_t step;     /* steps done */
    uint64_t samples; /* samples consumed by the whole job: the position in the data */
    int64_t bytes_seen;
    int64_t skipped_steps, skipped_micro_batches;
    int64_t optimizer_steps; /* updates applied, which bias corrections count */
    int trained_length;      /* longest seq_len so far */
    double scaler_scale;     /* 0: no scaler */
    int scaler_good_steps;
    int64_t skipped_in_a_row; /* skipped steps since the last update */
    bb_spike_window spikes;   /* count is 0 if spikes are not detected */
    bool moments_widened;     /* set by bb_checkpoint_load: a file of version 0.1.0 had 8-bit moments that are f32 now */
    bb_sampling sampling;     /* how the data is sampled */
    const char *data,
        *run_config; /* texts for the metadata, owned by the caller; NULL: none. bb_checkpoint_text reads them back */
} bb_training_state;

/* Metadata keys. */
#define BB_CHECKPOINT_STATE "training_state"
#define BB_CHECKPOINT_DATA "data"
#define BB_CHECKPOINT_RUN_CONFIG "run_config"

/* optimizer: its name. Returns NULL if out of memory. */
json_t *bb_training_state_to_json(const bb_training_state *state, const char *optimizer);
/* path: the file, for error messages. optimizer (optimizer_size) receives the optimizer's name. */
bb_status bb_training_state_from_json(const char *text, const char *path, bb_training_state *out, char *optimizer,
                                      size_t optimizer_size, bb_error *err);

#endif
