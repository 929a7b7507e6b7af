// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "training/checkpoint_write.h"

void bb_trainer_on_saved(void *user, int64_t step, const char *path, double paused_seconds, double seconds) {
    bb_trainer *t = user;
    bb_train_event e = bb_trainer_event(t, BB_TRAIN_SAVED);
    t->saved_step = step;
    t->budget_save.seconds = t->clock() - t->budget_save.began;
    e.step = step;
    e.path = path;
    e.pause_seconds = t->gather_seconds + paused_seconds;
    if (seconds > t->max_save_seconds) t->max_save_seconds = seconds;
    bb_trainer_emit(t, &e);
}

bb_status bb_trainer_check_weights(const bb_trainer *t, bb_error *err) {
    bb_error why, ignored;
    char path[4096];
    bb_status status = bb_model_check_finite(t->model, &why);
    if (status == BB_OK) return BB_OK;
    if (status != BB_ERR_NUMERIC) return bb_fail(err, status, "%s", why.message);
    const char *good = t->resumed_from;
    (void)bb_saver_wait(t->saver, &ignored); /* the latest checkpoint may still be being written */
    if (t->options.out_dir && bb_run_latest_checkpoint(t->options.out_dir, path, sizeof path, &ignored) == BB_OK) good = path;
    if (!good)
        return bb_fail(err, BB_ERR_NUMERIC, "after step %lld the weights are not finite: %s. There is no earlier checkpoint",
                       (long long)t->state.step, why.message);
    return bb_fail(err, BB_ERR_NUMERIC,
                   "after step %lld the weights are not finite: %s. The last good checkpoint is %s: resume from it with a "
                   "lower --lr (--resume FILE --out DIR)",
                   (long long)t->state.step, why.message, good);
}

bb_retention bb_trainer_retention(const bb_trainer *t) {
    bb_retention keep = {.newest = t->options.keep, .every = t->options.keep_every};
    if (t->state.skipped_in_a_row > 0) keep.newest = 0; /* only earlier checkpoints may be good */
    return keep;
}

static bb_status begin_save(bb_trainer *t, bb_error *err) {
    BB_DEVICE_SCOPE(t->model->device);
    BB_TRY(bb_trainer_check_weights(t, err));
    BB_TRY(bb_saver_wait(t->saver, err)); /* reports the previous save while the times are still its own */
    t->budget_save.began = t->clock();
    double begin = bb_clock_seconds();
    BB_TRY(bb_optimizer_gather_weights_to_rank_0(t->optimizer, err));
    t->gather_seconds = bb_clock_seconds() - begin;
    if (t->dist->rank > 0)
        return bb_optimizer_dist(t->optimizer) ? bb_checkpoint_contribute(t->optimizer, t->saves_copy, err) : BB_OK;
    bb_retention keep = bb_trainer_retention(t);
    t->state.optimizer_steps = bb_optimizer_steps(t->optimizer);
    t->state.run_config = t->options.checkpoint_config_json;
    t->state.scaler_scale = t->scaler && t->scaler->enabled ? t->scaler->scale : 0;
    t->state.scaler_good_steps = t->scaler ? t->scaler->good_steps : 0;
    t->last_save = bb_clock_seconds();
    return bb_saver_save(t->saver, &t->state, &keep, err);
}

bb_status bb_trainer_save(bb_trainer *t, bb_error *err) {
    t->save_asked = t->save_due = false;
    if (!t->options.out_dir || t->save_started_step == t->state.step) return BB_OK;
    t->save_started_step = t->state.step;
    double begin = t->clock();
    bb_status status = begin_save(t, err);
    t->budget_save.pause = t->clock() - begin;
    t->save_failed = status != BB_OK;
    return status;
}

double bb_trainer_estimated_save_seconds(const bb_trainer *t) {
    static const double bytes_per_second = 200e6;
    return t->saver ? (double)bb_saver_checkpoint_bytes(t->saver) / bytes_per_second : 0;
}

bb_status bb_trainer_save_best(bb_trainer *t, bb_error *err) {
    BB_TRY(bb_trainer_save(t, err));
    if (!t->run_dir.path) return BB_OK;
    /* `best` must not name a checkpoint that does not exist yet */
    bb_retention keep = bb_trainer_retention(t);
    bb_status status = bb_saver_wait(t->saver, err);
    if (status == BB_OK) status = bb_run_dir_set_best(&t->run_dir, t->state.step, &keep, err);
    if (status != BB_OK) t->save_failed = true;
    return status;
}

bb_status bb_trainer_poll_saver(bb_trainer *t, bb_error *err) {
    bb_status status = bb_saver_poll(t->saver, err);
    if (status != BB_OK) t->save_failed = true;
    return status;
}

/* Returns whether this process can save after an error: all ranks know of it, or rank 0 holds all of the state; and neither the
 * weights nor the disk are bad. */
static bool can_save_after(const bb_trainer *t, bb_status status) {
    bool has_all = t->dist->rank == 0 && !bb_optimizer_dist(t->optimizer);
    return (t->failed_together || has_all) && status != BB_ERR_NUMERIC && !t->updating && !t->save_failed && !t->drifted;
}

static void append(bb_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(bb_error *err, const char *fmt, ...) {
    size_t used = strlen(err->message);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message + used, sizeof err->message - used, fmt, args);
    va_end(args);
}

void bb_trainer_save_after_error(bb_trainer *t, bb_status status, bb_error *err) {
    bb_error save_error = {.code = BB_OK}, log_error, unreported = {.code = status};
    if (!err) err = &unreported;
    long long step = (long long)t->state.step;
    bool can_save = can_save_after(t, status) && t->save_started_step != t->state.step;
    if (can_save) save_error.code = bb_trainer_save(t, &save_error);
    if (save_error.code == BB_OK) save_error.code = bb_saver_wait(t->saver, &save_error);
    if (t->dist->rank == 0 && status != BB_ERR_NUMERIC) { /* messages of this kind already name the checkpoint to resume from */
        if (can_save && save_error.code == BB_OK)
            append(err, "; step %lld is saved", step);
        else if (can_save)
            append(err, "; step %lld could not be saved (%.200s)", step, save_error.message);
        if (t->saved_step < step && t->saved_step >= 0)
            append(err, "; the newest checkpoint is of step %lld", (long long)t->saved_step);
        else if (t->saved_step < 0 && t->resumed_from)
            append(err, "; the newest checkpoint is %.400s", t->resumed_from);
        else if (t->saved_step < 0)
            append(err, "; there is no checkpoint");
        if (t->saved_step == step && t->unlogged_event.step == step)
            (void)bb_trainer_log_metrics(t, &t->unlogged_event, &log_error);
    }
    if (t->failed_together) (void)t->dist->engine->broadcast(t->dist, err, sizeof *err, 0, &log_error);
}
