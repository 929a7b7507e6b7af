// SPDX-License-Identifier: MIT
/* Validates the options of a trainer. */
#ifndef BB_TRAINING_TRAIN_OPTIONS_H
#define BB_TRAINING_TRAIN_OPTIONS_H

#include "bitbyte.h"
#include "core/status.h"

/* Returns BB_ERR_ARGUMENT with the name of the first invalid value. */
bb_status bb_train_options_check(const bb_train_options *options, bb_error *err);

/* The length of sequences at a step. It only grows. */
static inline int bb_train_seq_len(const bb_train_options *o, int64_t step) {
    return o->seq_len ? o->seq_len : bb_seq_len_for_step(step, o->steps, o->seq_len_cap);
}

#endif
