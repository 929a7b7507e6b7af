// SPDX-License-Identifier: MIT
/* What this process may use of the machine: the smaller of what the system has and what its control groups (v1, v2) allow. */
#ifndef BB_CORE_HOST_H
#define BB_CORE_HOST_H

#include <stdint.h>

/* `root` is put before /proc and /sys: "" for the running system, a folder for one laid out there. */

/* Processors: the affinity mask, or the CPU quota rounded up where that is less. >= 1. */
int bb_host_cpus(const char *root);
/* Bytes of memory, and of those that can be had without swapping (page cache that can be dropped counts as free). Both 0 where
 * /proc/meminfo cannot be read. */
void bb_host_memory(const char *root, uint64_t *total_bytes, uint64_t *free_bytes);

#endif
