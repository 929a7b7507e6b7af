// SPDX-License-Identifier: MIT
#include "training/val_history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void bb_val_history_clear(bb_val_history *h) { *h = (bb_val_history){.last_step = -1, .best_step = -1, .best_bpb = NAN}; }

static double as_in_metrics(double bpb) {
    char text[64];
    snprintf(text, sizeof text, "%.*g", BB_METRICS_DIGITS, bpb);
    return strtod(text, NULL);
}

bool bb_val_history_add(bb_val_history *h, int64_t step, double bpb) {
    bpb = as_in_metrics(bpb);
    h->last_step = step;
    bool best = isfinite(bpb) && !(h->best_bpb <= bpb);
    h->since_best = best ? 0 : h->since_best + 1;
    if (!best) return false;
    h->best_step = step;
    h->best_bpb = bpb;
    return true;
}
