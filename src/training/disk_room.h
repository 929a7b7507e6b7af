// SPDX-License-Identifier: MIT
/* Whether a run's checkpoints fit on the disk: found before the first step, not after some hours. */
#ifndef BB_TRAINING_DISK_ROOM_H
#define BB_TRAINING_DISK_ROOM_H

#include "training/run_dir.h"

typedef struct bb_save_plan {
    int64_t first_step, end; /* steps done, and done at the end */
    int save_every;          /* 0: only the last */
    bool also_by_time;       /* so that the number of saves is not known */
    int best_every;          /* steps between validations that may save; 0: none does */
    bb_keep keep;
    int existing; /* checkpoints in the directory */
} bb_save_plan;

/* How many more checkpoints the directory holds at once, at most: one is removed only when the next is whole. >= 1. */
int64_t bb_save_plan_peak(const bb_save_plan *plan);

/* Room in `dir` for `count` files of `bytes` each. BB_ERR_IO where not even one fits, by free space or by the file size limit.
 * warning: text where `count` do not fit, else "". Where the system does not say what is free, nothing is wrong. */
bb_status bb_disk_room_check(const char *dir, uint64_t bytes, int64_t count, char *warning, size_t warning_size, bb_error *err);

#endif
