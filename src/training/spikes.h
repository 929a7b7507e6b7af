// SPDX-License-Identifier: MIT
/* Steps whose loss or gradient norm stands far above those of the steps before it. */
#ifndef BB_TRAINING_SPIKES_H
#define BB_TRAINING_SPIKES_H

enum { BB_SPIKE_WINDOW = 64, BB_SKIPPED_IN_A_ROW = 10 }; /* applied steps that are compared with; skipped ones that end a run */

/* Of the newest applied steps, the oldest first. Part of the training state, so that a resumed run judges as one without a
 * break. */
typedef struct bb_spike_window {
    int count;
    double loss[BB_SPIKE_WINDOW], grad_norm[BB_SPIKE_WINDOW];
} bb_spike_window;

/* The greatest value that is no spike: the mean of `count` values and `z` of their standard deviations, which are taken for at
 * least a thousandth of the mean. INFINITY until the window is full, and where z is 0. */
double bb_spike_limit(const double *values, int count, double z);
void bb_spike_add(bb_spike_window *window, double loss, double grad_norm);

#endif
