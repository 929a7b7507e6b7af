// SPDX-License-Identifier: MIT
/* Tables of the time that a timed device (ops/timed.h) spent in its operations. */
#ifndef BB_TRAINING_PROFILE_H
#define BB_TRAINING_PROFILE_H

#include <jansson.h>

#include "bitbyte.h"
#include "ops/timed.h"

/* Returns the peak that an operation is compared with, in 10^9/s: the peak of its type, or of the next wider type if the device
 * has no such instructions. *name: of the peak. 0 and NULL if there is none. */
double bb_profile_peak(const bb_peaks *peaks, bb_limit limit, const char **name);

/* Returns the minimum time of the measured work at the peaks, in seconds. */
double bb_profile_limit_seconds(const bb_timings *timings);

/* Returns one object per operation: name, calls, ms per call, percent of `seconds` under the key `share`; and if its work is
 * known, gops (10^9 per second), peak and percent_of_peak. Linear layers are named by their shapes in a model of this
 * config. */
json_t *bb_profile_operations(const bb_timings *timings, const bb_config *config, double seconds, const char *share);

/* Returns the percent of `seconds` in products with weights (gemm), in attention, and in the rest. */
json_t *bb_profile_shares(const bb_timings *timings, double seconds);

#endif
