// SPDX-License-Identifier: MIT
/* What the library alone needs of learning rate schedules. */
#ifndef BB_TRAINING_LR_SCHEDULER_H
#define BB_TRAINING_LR_SCHEDULER_H

#include "bitbyte.h"

/* The number of steps before any change. */
int64_t bb_lr_first_steps(const bb_lr_plan *plan);
/* Sets the changes to those of a text like bb_train_options.steps_before. */
bb_status bb_lr_read_changes(bb_lr_plan *plan, const char *text, bb_error *err);

#endif
