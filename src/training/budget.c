// SPDX-License-Identifier: MIT
#include "training/budget.h"

#include "bitbyte.h"
#include "core/math.h"

/* The first correction, as a part of the time or of the steps; then one whenever such a part of what was left is over. Of the steps,
 * too, because a machine that becomes much faster would else be at its end before the next correction. */
static const double first_part = 0.05, next_part = 0.3;
/* With less than this part of the time left there is no other: a machine that becomes twice as slow then takes so much longer. */
static const double last_part = 0.05;
enum { MAX_CORRECTIONS = BB_STEPS_CHANGES - 1, UNTIMED_STEPS = 2, MIN_TIMED_STEPS = 5 };
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

/* Whether a part of what was left is over, of the time or of the steps. */
static bool is_due(const bb_budget *b, int64_t step, int64_t steps, double elapsed) {
    double part = b->corrections == 0 ? first_part : next_part;
    return elapsed - b->corrected_at >= part * (b->seconds - b->corrected_at) ||
           (double)(step - b->corrected_step) >= part * (double)(steps - b->corrected_step);
}

int64_t bb_budget_steps(bb_budget *b, int64_t step, int64_t steps, const bb_budget_times *t, const bb_budget_costs *costs) {
    if (!(b->seconds > 0) || b->corrections == MAX_CORRECTIONS || step < b->first_step) return 0;
    if (!b->measuring) {
        measure_from(b, step, t);
        return 0;
    }
    double elapsed = t->now - b->begin, step_seconds = bb_budget_step_seconds(b, step, t);
    int64_t timed = step - b->measured_step;
    bool enough = timed >= MIN_TIMED_STEPS || (double)timed * step_seconds >= long_enough * b->seconds;
    bool ends = b->corrections > 0 && b->seconds - b->corrected_at < last_part * b->seconds;
    if (ends || !is_due(b, step, steps, elapsed) || !enough || !(step_seconds > 0)) return 0;
    b->corrections++;
    b->corrected_at = elapsed;
    b->corrected_step = step;
    measure_from(b, step, t);
    if (costs->val_every > 0) step_seconds += costs->validation / costs->val_every;
    if (costs->save_every > 0) step_seconds += costs->pause / costs->save_every;
    double left = used * b->seconds - elapsed - costs->validation - costs->save;
    steps = step + (left > 0 ? (int64_t)(left / step_seconds) : 0);
    if (b->max_steps > 0) steps = bb_min(steps, b->max_steps);
    return bb_max(steps, step + 1);
}
