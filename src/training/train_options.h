// SPDX-License-Identifier: MIT
/* What a trainer may be told. */
#ifndef BB_TRAINING_TRAIN_OPTIONS_H
#define BB_TRAINING_TRAIN_OPTIONS_H

#include "core/status.h"

/* BB_ERR_ARGUMENT, with the name of the first value that can't be. */
bb_status bb_train_options_check(const bb_train_options *options, bb_error *err);

#endif
