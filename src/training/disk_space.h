// SPDX-License-Identifier: MIT
/* Checks whether a run's checkpoints fit on the disk, before the first step rather than after hours. */
#ifndef BB_TRAINING_DISK_SPACE_H
#define BB_TRAINING_DISK_SPACE_H

#include "training/run_dir.h"

typedef struct bb_save_plan {
    int64_t first_step, end; /* steps done, and the total at the end */
    int save_every;          /* 0: only at the end */
    bool saves_by_time;      /* also after time intervals, so the number of saves is unknown */
    int best_every;          /* steps between validations that may save the best; 0: none */
    bb_retention keep;
    int existing; /* checkpoints already in the directory */
} bb_save_plan;

/* Returns the maximum number of additional checkpoints in the directory at any time, at least 1: an old one is removed only
 * after the next is complete. */
int64_t bb_save_plan_peak(const bb_save_plan *plan);

/* Checks the space in `dir` for `count` files of `bytes` bytes each. Fails with BB_ERR_IO if not even one fits, because of free
 * space or the file size limit. warning: a text if `count` do not fit, else "". If the system does not report free space, the
 * check passes. */
bb_status bb_disk_space_check(const char *dir, uint64_t bytes, int64_t count, char *warning, size_t warning_size,
                              bb_error *err);

#endif
