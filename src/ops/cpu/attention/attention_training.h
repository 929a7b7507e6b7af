// SPDX-License-Identifier: MIT
#ifndef BB_OPS_CPU_ATTENTION_TRAINING_H
#define BB_OPS_CPU_ATTENTION_TRAINING_H

#include "ops/cpu/attention/forward_set.h"
#include "ops/cpu/device/entries.h"

/* Computes the job, which has an lse, faster than the kernels of forward_set.h would, and in another order. False, and nothing
 * is done, if this processor has no such kernels. */
bool bb_cpu_attention_training(bb_device *dev, const attention_job *job);

#endif
