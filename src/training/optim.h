/* AdamW and its 8-bit form over the model's parameter table.
 * SPDX-License-Identifier: MIT */
#ifndef BB_TRAINING_OPTIM_H
#define BB_TRAINING_OPTIM_H

#include "model/bitbytelm.h"

enum { BB_OPTIM_SMALL_TENSOR = 4096 }; /* the 8-bit form keeps tensors with fewer elements in fp32 */

/* The state of one tensor of the table: either the f32 pair or the 8-bit form. Device memory. */
typedef struct bb_optimizer_slot {
    bool is_8bit;
    float *m, *v; /* (count) f32 */
    bb_adam8_state q;
} bb_optimizer_slot;

struct bb_optimizer {
    bb_model *model;
    bb_optimizer_options options;
    int64_t steps;            /* updates applied */
    double norm_limit;        /* a gradient norm above it changes nothing, as one that is not finite; INFINITY: none */
    bb_optimizer_slot *slots; /* host array, one per table entry */
    void *memory;             /* one arena of device memory */
    size_t bytes;
};

/* Blocks of the 8-bit form of a tensor of `count` elements. */
int64_t bb_optimizer_blocks(int64_t count);
/* Bytes that the state of this configuration takes. */
bb_status bb_optimizer_predict(const bb_config *config, bb_optimizer_kind kind, uint64_t *bytes, bb_error *err);

#endif
