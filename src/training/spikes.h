// SPDX-License-Identifier: MIT
/* Detects steps whose loss or gradient norm is far above those of the steps before them. */
#ifndef BB_TRAINING_SPIKES_H
#define BB_TRAINING_SPIKES_H

enum {
    BB_SPIKE_WINDOW = 64,
    BB_SKIPPED_IN_A_ROW = 10
}; /* number of applied steps compared with; number of consecutive skipped steps that ends a run */

/* Values of the latest applied steps, oldest first. Part of the training state, so that a resumed run decides like an
 * uninterrupted one. */
typedef struct bb_spike_window {
    int count;
    double loss[BB_SPIKE_WINDOW], grad_norm[BB_SPIKE_WINDOW];
} bb_spike_window;

/* Returns the largest value that is not a spike: the mean of `count` values plus `z` times their standard deviation, which is
 * taken as at least a thousandth of the mean. INFINITY until the window is full, and if z is 0. */
double bb_spike_limit(const double *values, int count, double z);
void bb_spike_add(bb_spike_window *window, double loss, double grad_norm);

#endif
