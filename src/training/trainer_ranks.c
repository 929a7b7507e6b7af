// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <math.h>
#include <stdlib.h>

#include "core/clock.h"

enum { WEIGHT_PARTS = 64 };

bb_rank_report *bb_trainer_report_of(const bb_trainer *t, int rank) {
    return (bb_rank_report *)(void *)((unsigned char *)t->reports + (size_t)rank * t->report_bytes);
}

/* Ranks whose weights differ would continue without an error. So each step compares a part of the weights, and WEIGHT_PARTS
 * steps compare all of them. */
static uint64_t weights_checksum(const bb_trainer *t, int part) {
    uint64_t sum = bb_optimizer_weights_checksum(t->optimizer, part, WEIGHT_PARTS);
    return sum ^ (uint64_t)t->state.step << 32 ^ t->state.samples;
}

static bb_status weights_differ_error(const bb_trainer *t, int rank, bb_error *err) {
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "at step %lld the weights of rank %d on %s differ from those of rank 0 on %s: check that every host uses "
                   "the same program, --seed and checkpoint",
                   (long long)t->state.step, rank, bb_dist_host(t->dist, rank), bb_dist_host(t->dist, 0));
}

bb_status bb_trainer_compare_weights(bb_trainer *t, bb_error *err) {
    int size = t->dist->size;
    if (size == 1) return BB_OK;
    uint64_t mine = 0, *all = calloc((size_t)size, sizeof *all);
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    for (int part = 0; part < WEIGHT_PARTS; part++) mine = mine * 31 + weights_checksum(t, part);
    bb_status status = bb_dist_all_gather_u64(t->dist, mine, all, err);
    for (int r = 1; r < size && status == BB_OK; r++)
        if (all[r] != all[0]) status = weights_differ_error(t, r, err);
    free(all);
    return status;
}

bb_status bb_trainer_follow_rank_0(bb_trainer *t, bool *decision, bb_error *err) {
    int64_t value = *decision;
    BB_TRY(bb_dist_max_i64(t->dist, &value, 1, err));
    *decision = value != 0;
    return BB_OK;
}

/* A request that arrives before the requested save has begun is served by that save. */
static bool take_save_request(bb_trainer *t) {
    bool asked = t->save;
    if (asked) t->save = 0;
    return asked;
}

/* Returns whether there is no time left for another step and a save. */
static bool out_of_time(const bb_trainer *t) {
    if (!(t->options.max_minutes > 0)) return false;
    double save = t->max_save_seconds > 0 ? t->max_save_seconds : bb_trainer_estimated_save_seconds(t),
           needed = t->max_step_seconds + fmax(t->max_step_seconds, save);
    return t->clock() - t->created + needed >= 60 * t->options.max_minutes;
}

static void stop_all(bb_trainer *t, int rank) {
    if (t->dist->size > 1 && !t->stopping)
        bb_trainer_notice(t, "rank %d on %s was asked to stop: all finish this step, then rank 0 saves", rank,
                          bb_dist_host(t->dist, rank));
    t->stopping = true;
}

bb_status bb_trainer_poll_ranks(bb_trainer *t, int stage, bb_error *err) {
    bb_rank_poll own = {.stop = t->stop,
                        .save = take_save_request(t),
                        .time_is_up = out_of_time(t),
                        .stage = stage,
                        .is_best = t->is_best,
                        .out_of_patience = t->out_of_patience};
    BB_TRY(t->dist->engine->all_gather(t->dist, &own, t->polls, sizeof own, err));
    for (int r = 0; r < t->dist->size; r++) {
        if (t->polls[r].stop) stop_all(t, r);
        if (t->polls[r].save) t->save_asked = true;
    }
    if (t->polls[0].time_is_up) t->time_is_up = true;
    t->abandon = t->stopping || t->time_is_up;
    return t->save_asked && t->state.skipped_in_a_row == 0 ? bb_trainer_save(t, err) : BB_OK;
}

bb_status bb_trainer_fail_together(bb_trainer *t, bb_error *err) {
    bb_status status = bb_dist_agree(t->dist, t->failure.code, &t->failure);
    t->failed_together = status != BB_OK && status != BB_ERR_PEER;
    return status == BB_OK ? BB_OK : bb_fail(err, status, "%s", t->failure.message);
}

bb_status bb_trainer_exchange_reports(bb_trainer *t, double *loss, bb_error *err) {
    const bb_train_options *o = &t->options;
    int size = t->dist->size, finite = 0;
    double loss_sum = 0, wait_sum = 0, wait_min = INFINITY;
    bb_rank_report *own = bb_trainer_report_of(t, size);
    own->stop = t->stop;
    own->save = take_save_request(t);
    own->save_due = o->save_minutes > 0 && bb_clock_seconds() - t->last_save >= 60 * o->save_minutes;
    own->time_is_up = out_of_time(t);
    own->steps = t->dist->rank == 0 ? bb_trainer_corrected_steps(t) : 0;
    own->failed = t->failure.code != BB_OK;
    own->wait_seconds = t->wait_seconds;
    own->weights = size > 1 ? weights_checksum(t, (int)(t->state.step % WEIGHT_PARTS)) : 0;
    BB_TRY(t->dist->engine->all_gather(t->dist, own, t->reports, t->report_bytes, err));
    int stop_rank = -1;
    bool failed = false;
    t->bad_micro_batches = 0;
    t->spoilt = false;
    for (int r = 0; r < size; r++) {
        const bb_rank_report *report = bb_trainer_report_of(t, r);
        bb_micro_run run;
        BB_TRY(bb_micro_run_for_rank(o, r, size, &run, err));
        if (report->stop && stop_rank < 0) stop_rank = r;
        if (report->save) t->save_asked = true;
        failed = failed || report->failed;
        if (report->weights != bb_trainer_report_of(t, 0)->weights) {
            t->drifted = true;
            return weights_differ_error(t, r, err);
        }
        wait_sum += report->wait_seconds;
        if (report->wait_seconds < wait_min) wait_min = report->wait_seconds;
        for (int i = 0; i < run.count; i++) {
            if (isfinite(report->losses[i])) {
                loss_sum += report->losses[i];
                finite++;
            } else {
                t->bad_micro_batches++;
                t->spoilt = t->spoilt || report->unchecked;
            }
        }
    }
    if (stop_rank >= 0) stop_all(t, stop_rank);
    t->save_due = bb_trainer_report_of(t, 0)->save_due != 0;
    t->time_is_up = bb_trainer_report_of(t, 0)->time_is_up != 0;
    int64_t steps = bb_trainer_report_of(t, 0)->steps;
    if (steps) t->steps_asked = steps; /* asked once, though a step may be done again */
    t->logged_waits.mean += wait_sum / size;
    t->logged_waits.min += wait_min;
    BB_TRY(bb_gradients_finish(&t->gradients, err));
    if (failed) return bb_trainer_fail_together(t, err);
    *loss = finite ? loss_sum / finite : NAN;
    return BB_OK;
}
