// SPDX-License-Identifier: MIT
/* Moments in checkpoints of version 0.1.0: in 8 bits for every tensor of 4096 elements, where now some are in f32. */
#ifndef BB_TRAINING_OLD_MOMENTS_H
#define BB_TRAINING_OLD_MOMENTS_H

#include "modelfile/tensor_source.h"
#include "training/optim.h"

/* Whether the file has p's moments in 8 bits where the optimizer holds them in f32. */
bool bb_old_moments_found(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p);
/* Those moments (p->count each) in f32; free(*m). v is raised to what m allows after `steps` updates. */
bb_status bb_old_moments_read(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p, int64_t steps,
                              float **m, float **v, bb_error *err);

#endif
