// SPDX-License-Identifier: MIT
/* Tables of what a timed device (ops/timed.h) spent its time on. */
#ifndef BB_TRAINING_PROFILE_H
#define BB_TRAINING_PROFILE_H

#include <jansson.h>

#include "bitbyte.h"
#include "ops/timed.h"

/* The peak that an operation is held against, in 10^9/s: its own, or where the device has no such instructions the next wider
 * type's. *name: of the peak. 0 and NULL without one. */
double bb_profile_peak(const bb_peaks *peaks, bb_limit limit, const char **name);

/* The least seconds that the timed work can take at the peaks. */
double bb_profile_limit_seconds(const bb_timings *timings);

/* One object an operation: name, calls, ms a call, its percent of `seconds` under the key `share`, and where its work is known gops
 * (10^9 a second), peak and percent_of_peak. Linear layers are named by their shapes in a model of this config. */
json_t *bb_profile_operations(const bb_timings *timings, const bb_config *config, double seconds, const char *share);

/* Percent of `seconds` in products with weights (gemm), attention, and all else. */
json_t *bb_profile_shares(const bb_timings *timings, double seconds);

#endif
