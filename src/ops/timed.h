// SPDX-License-Identifier: MIT
/* A device that passes everything on to another one and times each operation: what is timed is the real thing, whoever calls it. */
#ifndef BB_OPS_TIMED_H
#define BB_OPS_TIMED_H

#include "ops/ops.h"

/* The peak that limits an operation (bb_peaks); none for what moves bytes and multiplies little. */
typedef enum bb_limit { BB_LIMIT_NONE, BB_LIMIT_F32, BB_LIMIT_BF16, BB_LIMIT_INT8 } bb_limit;

/* All calls of one operation, of linear layers all that had the same shape. */
typedef struct bb_timed_entry {
    const char *name; /* as in bb_ops */
    int64_t n, k;     /* linear_forward and linear_backward: of the weights; otherwise 0 */
    bb_limit limit;
    int64_t calls;
    double seconds, work; /* work: multiplications and additions, counted from the arguments; 0 without a limit */
} bb_timed_entry;

enum { BB_TIMED_ENTRIES = 64 };

typedef struct bb_timings {
    bb_peaks peaks; /* what measure_peaks last gave; zeros before */
    double started; /* bb_clock_seconds() of bb_timed_start */
    int count;
    bb_timed_entry entry[BB_TIMED_ENTRIES]; /* in the order of their first calls */
} bb_timings;

/* `inner` must outlive it, is not closed with it, and is not used by others meanwhile. Nothing is timed until bb_timed_start. */
bb_status bb_timed_open(bb_device *inner, bb_device **out, bb_error *err);
/* Forgets what was timed, and times from now on. The device then waits for each operation to end, so that its time is its own. */
void bb_timed_start(bb_device *timed);
void bb_timed_stop(bb_device *timed);
/* NULL where the device is not one of bb_timed_open. */
const bb_timings *bb_timed_timings(const bb_device *device);

#endif
