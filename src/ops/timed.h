// SPDX-License-Identifier: MIT
/* A device that forwards every call to another device and times each operation, so that measurements are of the real pass. */
#ifndef BB_OPS_TIMED_H
#define BB_OPS_TIMED_H

#include "ops/ops.h"

/* The peak that limits an operation (bb_peaks); NONE if it mostly moves bytes. */
typedef enum bb_limit { BB_LIMIT_NONE, BB_LIMIT_F32, BB_LIMIT_BF16, BB_LIMIT_INT8 } bb_limit;

/* All calls of one operation; for linear layers, all calls with one shape. */
typedef struct bb_timed_entry {
    const char *name; /* as in bb_ops */
    int64_t n, k;     /* linear_forward and linear_backward: shape of the weights; otherwise 0 */
    bb_limit limit;
    int64_t calls;
    double seconds, work; /* work: multiplications and additions, from the arguments; 0 without a limit */
} bb_timed_entry;

enum { BB_TIMED_ENTRIES = 64 };

typedef struct bb_timings {
    bb_peaks peaks; /* from the last measure_peaks; zeros before */
    double started; /* bb_clock_seconds() at bb_timed_start */
    int count;
    bb_timed_entry entry[BB_TIMED_ENTRIES]; /* in order of first call */
} bb_timings;

/* `inner` must outlive the timed device, is not closed with it, and must not be used by others meanwhile. Nothing is timed
 * until bb_timed_start. */
bb_status bb_timed_open(bb_device *inner, bb_device **out, bb_error *err);
/* Clears the timings and starts timing. The device then waits for each operation to finish, so that each is charged its own
 * time. */
void bb_timed_start(bb_device *timed);
void bb_timed_stop(bb_device *timed);
/* NULL if the device was not opened by bb_timed_open. */
const bb_timings *bb_timed_timings(const bb_device *device);

#endif
