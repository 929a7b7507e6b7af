// SPDX-License-Identifier: MIT
/* Learning rate and sequence length as functions of the step. */
#include <math.h>

#include "bitbyte.h"

double bb_lr_for_step(int64_t step, int64_t warmup_steps, int64_t total_steps, double base_lr, bb_lr_schedule schedule,
                      double min_factor) {
    if (step < 0) step = 0;
    if (step < warmup_steps) return base_lr * (double)(step + 1) / (double)warmup_steps;
    if (schedule == BB_LR_CONSTANT) return base_lr;
    int64_t span = total_steps - warmup_steps;
    double t = (double)(step - warmup_steps) / (double)(span > 1 ? span : 1);
    if (t > 1) t = 1;
    return base_lr * (min_factor + (1 - min_factor) * 0.5 * (1 + cos(3.14159265358979323846 * t)));
}

int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap) {
    double frac = (double)step / (double)(total_steps > 1 ? total_steps : 1);
    int seq_len = frac < 0.2 ? 2048 : frac < 0.5 ? 4096 : 8192;
    return cap > 0 && cap < seq_len ? cap : seq_len;
}
