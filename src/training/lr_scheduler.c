// SPDX-License-Identifier: MIT
/* Learning rate and sequence length as functions of the step. */
#include "training/lr_scheduler.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/math.h"
#include "core/options.h"

int64_t bb_lr_first_steps(const bb_lr_plan *p) { return p->changes > 0 ? p->before[0].steps : p->total_steps; }

/* Of a step, in steps of the schedule as it was before any change. */
static double position(const bb_lr_plan *p, int64_t step) {
    double first = (double)bb_lr_first_steps(p), at = 0; /* the position of step `from` */
    int64_t from = 0;
    for (int i = 0;; i++) {
        bool last = i == p->changes;
        int64_t steps = last ? p->total_steps : p->before[i].steps;
        int64_t to = last || step < p->before[i].until ? step : p->before[i].until;
        at += (double)(to - from) * ((first - at) / (double)bb_max(steps - from, 1));
        if (to == step) return at;
        from = to;
    }
}

double bb_lr_for_step(const bb_lr_plan *p, int64_t step) {
    if (!p) return (double)NAN;
    double at = p->changes > 0 ? position(p, step) : (double)step, warmup = (double)p->warmup_steps;
    int64_t total = bb_lr_first_steps(p);
    if (at < 0) at = 0;
    if (at < warmup) return p->base_lr * fmin((at + 1) / warmup, 1);
    int64_t begin = p->warmup_steps; /* of the way down */
    if (p->schedule == BB_LR_LINEAR) begin = bb_max(begin, total - (int64_t)(p->cooldown_frac * (double)total));
    if (p->schedule == BB_LR_CONSTANT || at < (double)begin) return p->base_lr;
    double t = (at - (double)begin) / (double)bb_max(total - begin, 1);
    if (t > 1) t = 1;
    double left = p->schedule == BB_LR_LINEAR ? 1 - t : 0.5 * (1 + cos(3.14159265358979323846 * t));
    return p->base_lr * (p->min_factor + (1 - p->min_factor) * left);
}

bb_lr_plan bb_train_lr_plan(const bb_train_options *given, double base_lr) {
    bb_train_options full, *o = &full;
    bb_train_options_default(o);
    if (!given || bb_options_read(o, sizeof full, given, "bb_train_options", NULL) != BB_OK) return (bb_lr_plan){0};
    bb_lr_plan plan = {.schedule = o->lr_schedule,
                       .base_lr = base_lr,
                       .min_factor = o->lr_min_factor,
                       .total_steps = o->steps,
                       .cooldown_frac = o->cooldown_frac};
    if (bb_lr_read_changes(&plan, o->steps_before, NULL) != BB_OK) return (bb_lr_plan){0};
    int64_t first = bb_lr_first_steps(&plan);
    int64_t warmup = o->warmup_steps >= 0 ? o->warmup_steps : (int64_t)(o->warmup_frac * (double)first);
    plan.warmup_steps = bb_min(warmup, first);
    return plan;
}

bb_status bb_lr_read_changes(bb_lr_plan *p, const char *text, bb_error *err) {
    int64_t from = 0;
    p->changes = 0;
    for (const char *at = text; at && *at;) {
        bb_steps_before change = {0};
        int length = 0;
        bool read = sscanf(at, "%" SCNd64 "@%" SCNd64 "%n", &change.steps, &change.until, &length) == 2 && length > 0 &&
                    (at[length] == 0 || (at[length] == ',' && at[length + 1]));
        if (!read || change.until <= from || change.steps < change.until || p->changes == BB_STEPS_CHANGES)
            return bb_fail(
                err, BB_ERR_ARGUMENT,
                "steps_before '%.100s': expected at most %d times STEPS@UNTIL, e.g. 1800@97,1810@480: each UNTIL after "
                "the one before, and no more than STEPS",
                text, BB_STEPS_CHANGES);
        from = change.until;
        p->before[p->changes++] = change;
        at += length + (at[length] == ',');
    }
    return BB_OK;
}

int bb_seq_len_for_step(int64_t step, int64_t total_steps, int cap) {
    double frac = (double)step / (double)(total_steps > 1 ? total_steps : 1);
    int seq_len = frac < 0.2 ? 2048 : frac < 0.5 ? 4096 : 8192;
    return cap > 0 && cap < seq_len ? cap : seq_len;
}
