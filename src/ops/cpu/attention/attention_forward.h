// SPDX-License-Identifier: MIT
/* What attention over a batch (attention.c) and over caches (attention_cached.c) share. */
#ifndef BB_OPS_CPU_ATTENTION_FORWARD_H
#define BB_OPS_CPU_ATTENTION_FORWARD_H

#include "ops/cpu/attention/forward_set.h"

/* Scratch of a thread for any of their functions. */
size_t bb_cpu_forward_bytes(bb_device *dev, int64_t D);

/* Number of tiles of a job. */
int64_t bb_cpu_forward_tasks(const attention_job *job);
/* Processes all queries of n jobs, with heads of the same size, in tiles. first_task (n+1): the number of tasks of the preceding
 * jobs. */
void bb_cpu_forward_tiles(bb_device *dev, const attention_job *jobs, const int64_t *first_task, int64_t n);

/* For items numbered through n groups: the group of item i. first (n+1): the number of items in the preceding groups. */
static inline int64_t bb_group_of(const int64_t *first, int64_t n, int64_t i) {
    int64_t low = 0;
    while (n - low > 1) {
        int64_t middle = (low + n) / 2;
        if (first[middle] <= i)
            low = middle;
        else
            n = middle;
    }
    return low;
}

#endif
