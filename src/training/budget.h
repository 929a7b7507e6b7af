// SPDX-License-Identifier: MIT
/* How many steps fit in a given time. The speed is measured over and over until shortly before the end, because that of a shared
 * machine changes. The caller tells the time, so that nothing here depends on a clock. */
#ifndef BB_TRAINING_BUDGET_H
#define BB_TRAINING_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

/* What a run does besides steps. The end of a run takes one of each. */
typedef struct bb_budget_costs {
    double validation, save;   /* seconds of one; 0: there are none */
    double pause;              /* seconds that training waits for a save before the end, which goes on beside it */
    int val_every, save_every; /* steps; 0: only at the end */
} bb_budget_costs;

/* In seconds. */
typedef struct bb_budget_times {
    double now, other; /* other: spent by this process on anything but steps */
} bb_budget_times;

typedef struct bb_budget {
    double seconds;     /* of the whole run; 0: no budget */
    double begin;       /* when the run began */
    int64_t max_steps;  /* 0: no limit */
    int64_t first_step; /* from here on steps are timed: the first ones of a process are slower */
    int corrections;
    double corrected_at; /* seconds since `begin`, of the latest correction */
    int64_t corrected_step;
    bool measuring;
    double measured_from; /* seconds spent on steps when the present measurement began, at measured_step */
    int64_t measured_step;
} bb_budget;

/* first_step: of this process */
void bb_budget_begin(bb_budget *b, int64_t first_step);
/* Seconds of a step, as measured since the latest correction; 0: not known yet. */
double bb_budget_step_seconds(const bb_budget *b, int64_t step, const bb_budget_times *times);
/* Called at the same place in every step, of a run that has so many steps by now. The number of steps that fits in the budget, where it
 * is time to correct it; else 0. */
int64_t bb_budget_steps(bb_budget *b, int64_t step, int64_t steps, const bb_budget_times *times, const bb_budget_costs *costs);

#endif
