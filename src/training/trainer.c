// SPDX-License-Identifier: MIT
/* Training: the loop over steps, with metrics, checkpoints and validations as they are due. */
#include "training/trainer_state.h"

#include <math.h>

#include "core/clock.h"
#include "training/lr_scheduler.h"

void bb_trainer_request_stop(bb_trainer *t) {
    if (t) t->stop = 1;
}
void bb_trainer_request_save(bb_trainer *t) {
    if (t) t->save = 1;
}
int64_t bb_trainer_failed_validations(const bb_trainer *t) { return t ? t->failed_validations : 0; }
int64_t bb_trainer_step(const bb_trainer *t) { return t ? t->state.step : 0; }
int64_t bb_trainer_total_steps(const bb_trainer *t) { return t ? t->options.steps : 0; }
bool bb_trainer_out_of_patience(const bb_trainer *t) { return t && t->out_of_patience; }
int64_t bb_trainer_best_step(const bb_trainer *t, double *val_bpb) {
    if (!t || t->options.patience == 0 || t->history.best_step < 0) return -1;
    if (val_bpb) *val_bpb = t->history.best_bpb;
    return t->history.best_step;
}
bool bb_trainer_out_of_time(const bb_trainer *t) { return t && t->time_is_up; }

/* Records an error on one rank: with several ranks, the others learn of it in the next step, which then changes nothing. */
static bb_status fail_later(bb_trainer *t, bb_status status, bb_error *err) {
    if (t->dist->size == 1 || status == BB_OK) return status;
    if (t->failure.code == BB_OK) t->failure = *err;
    return BB_OK;
}

static bb_status loop(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    while (s->step < bb_trainer_last_step(o) && !t->stopping && !t->time_is_up && !t->out_of_patience) {
        if (t->failure.code != BB_OK && t->dist->size == 1) break; /* several ranks report it in the next step */
        bb_step_result result;
        double begin = t->clock();
        BB_TRY(bb_trainer_do_step(t, dataset, &result, err));
        if (t->steps_asked) BB_TRY(bb_trainer_set_steps(t, t->steps_asked, err));
        bb_train_event e = bb_trainer_step_event(t, &result);
        t->max_step_seconds = fmax(t->max_step_seconds, t->clock() - begin);
        e.logged = bb_trainer_is_due(s->step, o->log_every) || s->step == o->steps;
        bb_trainer_emit(t, &e);
        /* If a weight is not finite, the loss is not finite, either. */
        if (!isfinite(e.loss)) BB_TRY(bb_trainer_check_weights(t, err));
        if (e.logged) BB_TRY(fail_later(t, bb_trainer_log_step(t, &e, err), err));
        BB_TRY(bb_trainer_check_skipped(t, err));
        if (t->dist->size == 1 && t->stop) t->stopping = true; /* several ranks agree on it in their next reports */
        bool save_now = bb_trainer_is_due(s->step, o->save_every) || t->save_asked || t->save_due;
        double steps_end = t->clock();
        if (s->step == bb_trainer_last_step(o) || (save_now && s->skipped_in_a_row == 0)) BB_TRY(bb_trainer_save(t, err));
        if (bb_trainer_validation_due(t)) {
            t->validation_missed = t->stopping || t->time_is_up;
            if (!t->validation_missed) BB_TRY(bb_trainer_validate(t, err));
        }
        t->other_seconds += t->clock() - steps_end;
        BB_TRY(bb_trainer_poll_saver(t, err));
    }
    return BB_OK;
}

static bb_status run(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    bb_dataset_set_sampling(dataset, s->sampling);
    bb_dataset_set_position(dataset, s->samples);
    t->started = t->last_log_time = bb_clock_seconds();
    bb_budget_begin(&t->budget, s->step);
    t->last_log_bytes = s->bytes_seen;
    t->first_step = s->step;
    t->last_save = t->started;
    t->wait_seconds = t->ended = t->other_seconds = 0;
    t->logged_waits = t->all_waits = (bb_rank_waits){0};
    t->stopping = t->dist->size == 1 && t->stop;
    t->save_started_step = s->step; /* there is nothing to save before the first step */

    t->validation_missed = t->validate_first;
    if (t->validate_first && !t->stopping) BB_TRY(bb_trainer_validate(t, err));
    BB_TRY(loop(t, dataset, err));
    BB_TRY(bb_trainer_fail_together(t, err));
    BB_TRY(bb_trainer_save(t, err));
    BB_TRY(bb_optimizer_gather_weights(t->optimizer, err)); /* makes the model complete after training */
    bool done = (s->step >= bb_trainer_last_step(o) || t->out_of_patience) && !t->validation_missed;
    if (done) t->time_is_up = false;
    if (t->stopping && !done)
        return bb_fail(err, BB_ERR_INTERRUPTED, "stopped at step %lld of %lld", (long long)s->step, (long long)o->steps);
    return BB_OK;
}

bb_status bb_trainer_train(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    BB_REQUIRE("trainer, dataset", t, dataset);
    const char *warning = bb_dataset_get_info(dataset).warning;
    if (warning) bb_trainer_notice(t, "%s", warning);
    if (t->dist->size > 1 && dataset->world_size != 1)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "the dataset was opened as rank %d of %d: a trainer with ranks divides the data itself and needs a "
                       "dataset opened as rank 0 of 1",
                       dataset->rank, dataset->world_size);
    bb_error save_error;
    bb_status status = bb_dist_agree(t->dist, bb_trainer_check_validation(t, err), err);
    if (status == BB_OK) status = bb_trainer_follow_rank_0(t, &t->validate_first, err);
    if (status == BB_OK) status = bb_trainer_follow_rank_0(t, &t->out_of_patience, err);
    if (status == BB_OK) status = bb_trainer_follow_rank_0(t, &t->best_is_late, err);
    if (status != BB_OK) return status;
    bool unfinished = t->validate_first || t->best_is_late;
    if (t->state.step >= t->options.steps && !unfinished) {
        bb_trainer_notice(t, "nothing to do: all %lld steps are done", (long long)t->state.step);
        return BB_OK;
    }
    if (t->out_of_patience && !unfinished) {
        bb_trainer_notice(t,
                          "nothing to do: the run ended at step %lld, %lld validations after the best one (bpb %.4f at step "
                          "%lld); a larger --patience continues it",
                          (long long)t->state.step, (long long)t->history.since_best, t->history.best_bpb,
                          (long long)t->history.best_step);
        return BB_OK;
    }
    if (t->lr_plan.warmup_steps >= bb_lr_first_steps(&t->lr_plan))
        bb_trainer_notice(t, "the warm-up takes all %lld steps: the learning rate rises to the end and never falls%s",
                          (long long)t->options.steps,
                          t->options.warmup_steps > t->options.steps ? " (warmup_steps is limited to steps)" : "");
    status = bb_trainer_check_data(t, dataset, err);
    if (status == BB_OK) status = bb_trainer_open_run_dir(t, err);
    status = bb_dist_agree(t->dist, status, err);
    if (status == BB_OK) status = bb_trainer_follow_rank_0(t, &t->saves_copy, err);
    if (status == BB_OK) status = bb_trainer_compare_weights(t, err);
    if (status == BB_OK) {
        status = run(t, dataset, err);
        if (status != BB_OK && status != BB_ERR_INTERRUPTED && t->options.out_dir) bb_trainer_save_after_error(t, status, err);
    }
    /* Before this returns, the last checkpoint is on disk or has failed. The error that ended the run takes precedence. */
    bb_status last = bb_saver_wait(t->saver, &save_error);
    if (last != BB_OK && (status == BB_OK || status == BB_ERR_INTERRUPTED))
        status = bb_fail(err, last, "%s", save_error.message);
    t->ended = bb_clock_seconds();
    bb_saver_free(t->saver);
    t->saver = NULL;
    bb_run_dir_close(&t->run_dir);
    return status;
}
