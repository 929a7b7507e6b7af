// SPDX-License-Identifier: MIT
#include "training/spikes.h"

#include <math.h>
#include <string.h>

double bb_spike_limit(const double *values, int count, double z) {
    double sum = 0, squares = 0;
    if (z <= 0 || count < BB_SPIKE_WINDOW) return INFINITY;
    for (int i = 0; i < count; i++) sum += values[i];
    double mean = sum / count;
    for (int i = 0; i < count; i++) squares += (values[i] - mean) * (values[i] - mean);
    return mean + z * fmax(sqrt(squares / (count - 1)), 1e-3 * fabs(mean));
}

void bb_spike_add(bb_spike_window *w, double loss, double grad_norm) {
    if (w->count == BB_SPIKE_WINDOW) {
        w->count--;
        memmove(w->loss, w->loss + 1, (size_t)w->count * sizeof *w->loss);
        memmove(w->grad_norm, w->grad_norm + 1, (size_t)w->count * sizeof *w->grad_norm);
    }
    w->loss[w->count] = loss;
    w->grad_norm[w->count++] = grad_norm;
}
