// SPDX-License-Identifier: MIT
/* Distributed training. `single` is one process; `mpi` is the processes that a launcher started (mpirun, srun).
 *
 * Rules for all engines
 * - Every rank calls the same functions in the same order, with ranges of the same lengths.
 * - The order of a sum depends on the number of ranks alone, never on arrival: see bb_dist_tree_sum.
 * - Nothing blocks forever. When a process, a host or the network is lost, waiting calls fail within about timeout_seconds with
 *   BB_ERR_PEER and a message that names a rank and its host; that rank then ends the job with bb_dist_abort. A rank that is
 *   only slow (saving, reading) is waited for.
 * - Pointers are to host memory. */
#ifndef BB_DIST_DIST_H
#define BB_DIST_DIST_H

#include "core/status.h"

typedef enum bb_dist_kind {
    BB_DIST_REDUCE_SCATTER, /* each rank's part becomes the sum; the other parts are undefined afterwards */
    BB_DIST_ALL_GATHER,     /* each rank's part goes to all */
    BB_DIST_ALL_REDUCE,     /* reduce-scatter, then all-gather */
    BB_DIST_GATHER          /* each rank's part goes to rank 0 */
} bb_dist_kind;

/* A range divided among the ranks: rank r's part is elements cut[r] .. cut[r+1]-1 of x, cut[0] = 0. Parts may be empty. */
typedef struct bb_dist_range {
    void *x;
    const int64_t *cut; /* (size + 1), valid until the wait; at most BB_DIST_MAX_PART elements per part */
    int width;          /* bytes per element, at most 4; sums are of f32 */
} bb_dist_range;
enum { BB_DIST_MAX_PART = 1 << 28 };

typedef struct bb_dist_engine {
    const char *name;
    void (*close)(bb_dist *d);
    void (*abort)(bb_dist *d, int exit_status);
    void (*wait_to_report)(bb_dist *d);
    /* all: (size, bytes), in order of rank */
    bb_status (*all_gather)(bb_dist *d, const void *mine, void *all, size_t bytes, bb_error *err);
    bb_status (*broadcast)(bb_dist *d, void *data, size_t bytes, int root, bb_error *err);
    /* Sends point to point; called by these two ranks only. */
    bb_status (*transfer)(bb_dist *d, void *data, size_t bytes, int from, int to, bb_error *err);
    /* Starts asynchronously; the engine owns the range until the wait. Operations run in the order of the starts. */
    bb_status (*start)(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err);
    /* Waits for everything started so far. */
    bb_status (*wait)(bb_dist *d, bb_error *err);
    /* Waits for something outside the engine: polls done() until it returns true or a process is lost. */
    bb_status (*wait_until)(bb_dist *d, bool (*done)(void *user), void *user, bb_error *err);
    /* Returns the size of the buffers that ranges of up to `elements` need. */
    size_t (*buffer_bytes)(int size, int64_t elements);
} bb_dist_engine;

/* First member of every engine's own struct. */
struct bb_dist {
    const bb_dist_engine *engine;
    int rank, size;
    int local_size;      /* ranks on this host */
    int local_rank;      /* number of ranks on this host before this one */
    int threads;         /* this rank's share of the processors available to it */
    char (*hosts)[64];   /* (size) */
    int timeout_seconds; /* time without a heartbeat after which a rank is lost */
    double wait_seconds; /* total time in calls that wait */
    int64_t sent_bytes;  /* bytes sent by this rank for ranges */
};

bb_status bb_dist_open_single(bb_dist **out, bb_error *err);
/* BB_ERR_UNSUPPORTED in a build without MPI. */
bb_status bb_dist_open_mpi(bb_dist **out, bb_error *err);

/* Sums count vectors of n f32 as a tree: an even count is the sum of its first half plus the sum of its second; an odd count is
 * summed in order. So halves that were summed elsewhere give the same bits. out may be one of in. */
void bb_dist_tree_sum(float *out, const float *const *in, int count, int64_t n);

/* Reductions of a few numbers, built on all_gather; every rank combines them in order of rank. */
bb_status bb_dist_max_i64(bb_dist *d, int64_t *values, int count, bb_error *err);
bb_status bb_dist_min_i64(bb_dist *d, int64_t *values, int count, bb_error *err);
bb_status bb_dist_sum_f64(bb_dist *d, double *values, int count, bb_error *err);
bb_status bb_dist_barrier(bb_dist *d, bb_error *err);

#endif
