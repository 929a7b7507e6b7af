// SPDX-License-Identifier: MIT
/* Processes that train together. `single` is one process alone; `mpi` is as many as a launcher started (mpirun, srun).
 *
 * Rules for all engines
 * - Every rank calls the same functions in the same order, on ranges of the same lengths.
 * - A sum has an order that only the number of ranks decides, never what arrives first: see bb_dist_tree.
 * - Nothing waits for ever. When a process, a host or the network between them is gone, every waiting call on some rank fails
 *   within about timeout_seconds with BB_ERR_PEER and a message that names a rank and its host; that rank then ends the job
 * with bb_dist_abort. A rank that only takes long (to save, to read) is waited for.
 * - Addresses are of the host's memory. */
#ifndef BB_DIST_DIST_H
#define BB_DIST_DIST_H

#include "core/status.h"

typedef enum bb_dist_kind {
    BB_DIST_REDUCE_SCATTER, /* each rank's part becomes the sum; what stands in the other parts is undefined then */
    BB_DIST_ALL_GATHER,     /* each rank's part goes to all */
    BB_DIST_ALL_REDUCE,     /* the one, then the other */
    BB_DIST_GATHER          /* each rank's part goes to rank 0 */
} bb_dist_kind;

/* A range that ranks share out: rank r's part is elements cut[r] .. cut[r+1]-1 of x, cut[0] = 0. Parts may be empty. */
typedef struct bb_dist_range {
    void *x;
    const int64_t *cut; /* (size + 1), lives until the wait; at most BB_DIST_MAX_PART elements a part */
    int width;          /* bytes an element, at most 4; what is summed is f32 */
} bb_dist_range;
enum { BB_DIST_MAX_PART = 1 << 28 };

typedef struct bb_dist_engine {
    const char *name;
    void (*close)(bb_dist *d);
    void (*abort)(bb_dist *d, int exit_status);
    void (*wait_to_report)(bb_dist *d);
    /* all: (size, bytes), rank after rank */
    bb_status (*all_gather)(bb_dist *d, const void *mine, void *all, size_t bytes, bb_error *err);
    bb_status (*broadcast)(bb_dist *d, void *data, size_t bytes, int root, bb_error *err);
    /* One way, from rank to rank; both sides call it, the others do not. */
    bb_status (*transfer)(bb_dist *d, void *data, size_t bytes, int from, int to, bb_error *err);
    /* Begins, and returns; the range is the engine's until the wait. Work goes on in the background, in the order of the starts
     * where it must queue. */
    bb_status (*start)(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err);
    /* Until everything that was started is done. */
    bb_status (*wait)(bb_dist *d, bb_error *err);
    /* Bytes of buffers for ranges of up to `elements`. */
    size_t (*buffer_bytes)(int size, int64_t elements);
} bb_dist_engine;

/* What every engine's own state begins with. */
struct bb_dist {
    const bb_dist_engine *engine;
    int rank, size;
    int local_size;      /* ranks on this host */
    int threads;         /* processors that this rank may use, shared out among the ranks that may use the same ones */
    char (*hosts)[64];   /* (size) */
    int timeout_seconds; /* without a sign of life from a rank */
    double wait_seconds; /* in calls that wait, since the opening */
    int64_t sent_bytes;  /* by this rank, of started ranges */
};

bb_status bb_dist_open_single(bb_dist **out, bb_error *err);
/* BB_ERR_UNSUPPORTED in a build without MPI. */
bb_status bb_dist_open_mpi(bb_dist **out, bb_error *err);

/* The sum of count vectors in[first] .. of n f32, in the order of a tree: an even number is the sum of its first half plus that
 * of its second; an odd number is added from the first to the last. So halves that were summed elsewhere fit in, bit for bit.
 * out may be one of in. */
void bb_dist_tree_sum(float *out, const float *const *in, int count, int64_t n);

/* Built on all_gather: for a few numbers, which every rank combines in the order of the ranks. */
bb_status bb_dist_max_i64(bb_dist *d, int64_t *values, int count, bb_error *err);
bb_status bb_dist_min_i64(bb_dist *d, int64_t *values, int count, bb_error *err);
bb_status bb_dist_sum_f64(bb_dist *d, double *values, int count, bb_error *err);
bb_status bb_dist_barrier(bb_dist *d, bb_error *err);

#endif
