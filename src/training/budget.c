// SPDX-License-Identifier: MIT
#include "training/budget.h"

#include <math.h>

#include "core/math.h"

/* Corrections, when this part of the time or of the steps is over: of the steps, because a machine that becomes much faster would
 * else be at its end before the time for the next correction. After the last one, a machine that becomes twice as slow takes 5% too long. */
static const double points[] = {0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95};
enum { POINTS = sizeof points / sizeof *points, UNTIMED_STEPS = 2, MIN_TIMED_STEPS = 5 };
/* Fewer steps than that are enough where they take this part of the time. */
static const double long_enough = 0.03;
/* What is left for the program's own end. */
static const double used = 0.995;

void bb_budget_begin(bb_budget *b, int64_t first_step) {
    b->first_step = first_step + UNTIMED_STEPS;
    b->measuring = false;
}

static void measure_from(bb_budget *b, int64_t step, const bb_budget_times *t) {
    b->measuring = true;
    b->measured_step = step;
    b->measured_from = t->now - t->other;
}

double bb_budget_step_seconds(const bb_budget *b, int64_t step, const bb_budget_times *t) {
    return b->measuring && step > b->measured_step ? (t->now - t->other - b->measured_from) / (double)(step - b->measured_step)
                                                   : 0;
}

int64_t bb_budget_steps(bb_budget *b, int64_t step, int64_t steps, const bb_budget_times *t, const bb_budget_costs *costs) {
    if (!(b->seconds > 0) || b->points_passed == POINTS || step < b->first_step) return 0;
    double elapsed = t->now - b->begin, step_seconds = bb_budget_step_seconds(b, step, t);
    double progress = fmax(elapsed / b->seconds, (double)step / (double)steps);
    if (!b->measuring) {
        measure_from(b, step, t);
        return 0;
    }
    int64_t timed = step - b->measured_step;
    bool enough = timed >= MIN_TIMED_STEPS || (double)timed * step_seconds >= long_enough * b->seconds;
    if (progress < points[b->points_passed] || !enough || !(step_seconds > 0)) return 0;
    while (b->points_passed < POINTS && progress >= points[b->points_passed]) b->points_passed++;
    measure_from(b, step, t);
    if (costs->val_every > 0) step_seconds += costs->validation / costs->val_every;
    if (costs->save_every > 0) step_seconds += costs->pause / costs->save_every;
    double left = used * b->seconds - elapsed - costs->validation - costs->save;
    steps = step + (left > 0 ? (int64_t)(left / step_seconds) : 0);
    if (b->max_steps > 0) steps = bb_min(steps, b->max_steps);
    return bb_max(steps, step + 1);
}
