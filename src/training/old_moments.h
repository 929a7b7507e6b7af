// SPDX-License-Identifier: MIT
/* Moments in checkpoints of version 0.1.0, which stored every tensor of at least 4096 elements in 8 bits; some of them are f32
 * now. */
#ifndef BB_TRAINING_OLD_MOMENTS_H
#define BB_TRAINING_OLD_MOMENTS_H

#include "modelfile/tensor_source.h"
#include "training/optim.h"

/* Returns whether the file has p's moments in 8 bits while the optimizer holds them in f32. */
bool bb_old_moments_found(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p);
/* Reads those moments (p->count each) as f32; the caller frees *m. v is raised to the minimum that m allows after `steps`
 * updates. */
bb_status bb_old_moments_read(const bb_tensor_source *st, const bb_optimizer *optimizer, const bb_param *p, int64_t steps,
                              float **m, float **v, bb_error *err);

#endif
