// SPDX-License-Identifier: MIT
/* Learning rate and sequence length as functions of the step. */
#include <math.h>

#include "bitbyte.h"
#include "core/math.h"
#include "core/options.h"

double bb_lr_for_step(const bb_lr_plan *p, int64_t step) {
    if (!p) return (double)NAN;
    if (step < 0) step = 0;
    if (step < p->warmup_steps) return p->base_lr * (double)(step + 1) / (double)p->warmup_steps;
    int64_t begin = p->warmup_steps; /* of the way down */
    if (p->schedule == BB_LR_LINEAR)
        begin = bb_max(begin, p->total_steps - (int64_t)(p->cooldown_frac * (double)p->total_steps));
    if (p->schedule == BB_LR_CONSTANT || step < begin) return p->base_lr;
    double t = (double)(step - begin) / (double)bb_max(p->total_steps - begin, 1);
    if (t > 1) t = 1;
    double left = p->schedule == BB_LR_LINEAR ? 1 - t : 0.5 * (1 + cos(3.14159265358979323846 * t));
    return p->base_lr * (p->min_factor + (1 - p->min_factor) * left);
}

bb_lr_plan bb_train_lr_plan(const bb_train_options *given, double base_lr) {
    bb_train_options full, *o = &full;
    bb_train_options_default(o);
    if (!given || bb_options_read(o, sizeof full, given, "bb_train_options", NULL) != BB_OK) return (bb_lr_plan){0};
    int64_t warmup = o->warmup_steps >= 0 ? o->warmup_steps : (int64_t)(o->warmup_frac * (double)o->steps);
    return (bb_lr_plan){.schedule = o->lr_schedule,
                        .base_lr = base_lr,
                        .min_factor = o->lr_min_factor,
                        .warmup_steps = bb_min(warmup, o->steps),
                        .total_steps = o->steps,
                        .cooldown_frac = o->cooldown_frac};
}

int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap) {
    double frac = (double)step / (double)(total_steps > 1 ? total_steps : 1);
    int seq_len = frac < 0.2 ? 2048 : frac < 0.5 ? 4096 : 8192;
    return cap > 0 && cap < seq_len ? cap : seq_len;
}
