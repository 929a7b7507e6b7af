// SPDX-License-Identifier: MIT
/* Training with several processes. */
#ifndef BITBYTE_DIST_H
#define BITBYTE_DIST_H

#include "base.h"

/* ---- Distributed training ------------------------------------------------------------------------------------------------ */

/* A job of `size` processes, ranks 0 .. size-1. All ranks make the same calls in the same order. */
typedef struct bb_dist bb_dist;

/* engine: "single" (only this process) or "mpi" (started by mpirun or srun; can be opened once per process). BB_ERR_UNSUPPORTED
 * in a build without MPI. MPI waits forever for a process that never joins, so after 30 seconds this process reports that on
 * standard error and exits with status 1. bb_dist_close does the same. */
BB_API bb_status bb_dist_open(const char *engine, bb_dist **out, bb_error *err);
/* Waits until all ranks call it. After a failure it only frees memory. */
BB_API void bb_dist_close(bb_dist *dist);
/* Ends every process of the job with exit_status, e.g. after an error on this rank alone. Does not return. */
BB_API void bb_dist_abort(bb_dist *dist, int exit_status);
/* Call this before reporting an error and calling bb_dist_abort: it returns within a second on the first rank that fails, and
 * on others only if that rank has not ended the job a few seconds later. So one rank reports the error. */
BB_API void bb_dist_wait_to_report(bb_dist *dist);
BB_API int bb_dist_rank(const bb_dist *dist);
BB_API int bb_dist_size(const bb_dist *dist);
BB_API int bb_dist_local_size(const bb_dist *dist); /* ranks on this host */
BB_API const char *bb_dist_host(const bb_dist *dist, int rank);
/* Returns the thread count for this rank's device: its processors divided among the ranks that share them. */
BB_API int bb_dist_threads(const bb_dist *dist);
/* Sets the seconds without a heartbeat after which a rank counts as lost (default 15). Busy ranks send heartbeats, too. */
BB_API void bb_dist_set_timeout(bb_dist *dist, int seconds);
/* Collective. Returns BB_OK on every rank if all pass BB_OK, else the error of the lowest failing rank, "rank 2 on HOST: …". */
BB_API bb_status bb_dist_agree(bb_dist *dist, bb_status mine, bb_error *err);
/* values: (size), one per rank. */
BB_API bb_status bb_dist_all_gather_u64(bb_dist *dist, uint64_t mine, uint64_t *values, bb_error *err);
/* Returns the total seconds that this rank has waited for others. */
BB_API double bb_dist_wait_seconds(const bb_dist *dist);
/* Collective. Like bb_device_open, but if a host has several devices of that name ("cuda"), its ranks take them in turn. Fails
 * if two ranks would share a card. */
BB_API bb_status bb_device_open_for_rank(const char *name, int threads, bb_dist *dist, bb_device **out, bb_error *err);

#endif
