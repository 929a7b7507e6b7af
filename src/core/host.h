// SPDX-License-Identifier: MIT
/* The processors and memory that this process may use: those of the system, or less if its control groups (v1, v2) say so. */
#ifndef BB_CORE_HOST_H
#define BB_CORE_HOST_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

enum { BB_MAX_THREADS = 1024 }; /* of a device */

/* `root` is prefixed to /proc and /sys: "" for the running system, or a folder with a copy for tests. */

/* Returns the number of processors: the affinity mask, or the CPU quota rounded up if that is less; at least 1. */
int bb_host_cpus(const char *root);
/* Default number of threads of a device: OMP_NUM_THREADS if that is 1 or more, else bb_host_cpus divided by the number of
 * processes that share them. From 1 to BB_MAX_THREADS. */
int bb_host_threads(const char *root, int sharers);

typedef struct bb_affinity {
    int cpus;    /* number of processors in the mask; 1 if it cannot be read */
    uint64_t id; /* the same for the same mask */
} bb_affinity;

typedef int bb_get_affinity(pid_t pid, size_t bytes, cpu_set_t *set);
/* The affinity mask of this thread, from `get` (sched_getaffinity), for any number of processors. */
bb_affinity bb_host_affinity(bb_get_affinity *get);
/* Bytes of memory, and those available without swapping (page cache that can be dropped counts as free). Both are 0, unknown,
 * if /proc/meminfo cannot be read. */
void bb_host_memory(const char *root, uint64_t *total_bytes, uint64_t *free_bytes);
/* Returns the resident memory of this process in bytes; 0 if unknown. */
uint64_t bb_host_resident(void);

#endif
