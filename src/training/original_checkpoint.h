// SPDX-License-Identifier: MIT
/* Resumes from a checkpoint of the PyTorch original: its weights, its step, and the moments of torch.optim.AdamW. */
#ifndef BB_TRAINING_ORIGINAL_CHECKPOINT_H
#define BB_TRAINING_ORIGINAL_CHECKPOINT_H

#include "modelfile/model_source.h"
#include "training/checkpoint_state.h"
#include "training/optim.h"

/* w: a source with layout `original` and the model's configuration. optimizer NULL: its state is not read; otherwise it must be
 * AdamW with f32 moments. Nothing is changed unless the whole file is valid. Files without training state and other optimizers
 * are refused. */
bb_status bb_original_checkpoint_load(const bb_model_source *w, bb_model *model, bb_optimizer *optimizer,
                                      bb_training_state *state, bb_error *err);

#endif
