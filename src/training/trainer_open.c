// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/options.h"
#include "data/byte_source.h"
#include "training/checkpoint_read.h"
#include "training/disk_space.h"
#include "training/train_options.h"

/* Opens the processes, this rank's part of a step, and the sum of its gradients. */
static bb_status open_ranks(bb_trainer *t, bb_error *err) {
    if (!t->options.dist) BB_TRY(bb_dist_open_single(&t->own_dist, err));
    t->dist = t->options.dist ? t->options.dist : t->own_dist;
    int size = t->dist->size;
    BB_TRY(bb_micro_run_for_rank(&t->options, t->dist->rank, size, &t->micro_run, err));
    size_t longest = (size_t)(t->micro_run.total + size - 1) / (size_t)size;
    t->report_bytes = sizeof *t->reports + longest * sizeof t->reports->losses[0];
    t->reports = calloc((size_t)size + 1, t->report_bytes);
    t->polls = calloc((size_t)size, sizeof *t->polls);
    if (!t->reports || !t->polls)
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the losses of %d micro-batches", t->micro_run.total);
    if (bb_optimizer_dist(t->optimizer) && bb_optimizer_dist(t->optimizer) != t->dist)
        return bb_fail(err, BB_ERR_ARGUMENT, "the optimizer's state is shared over ranks other than the trainer's");
    return bb_gradients_open(t->model, t->dist, t->micro_run.count, t->options.reduce, bb_optimizer_parts(t->optimizer),
                             &t->gradients, err);
}

bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler, const bb_train_options *given,
                            bb_trainer **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, optimizer, options", model, optimizer, given);
    BB_OPTIONS_READ(bb_train_options, options, given);
    BB_DEVICE_SCOPE(model->device);
    BB_TRY(bb_train_options_check(options, err));
    if (bb_optimizer_model(optimizer) != model)
        return bb_fail(err, BB_ERR_ARGUMENT, "the optimizer belongs to another model than the trainer");
    bb_status status;
    bb_trainer *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a trainer");
    t->model = model;
    t->optimizer = optimizer;
    t->scaler = scaler;
    t->options = *options;
    t->run_dir.lock_fd = -1;
    t->damaged_step = t->save_started_step = t->saved_step = -1;
    bb_val_history_clear(&t->history);
    t->clock = bb_clock_seconds;
    t->created = bb_clock_seconds();
    t->budget =
        (bb_budget){.seconds = 60 * options->budget_minutes, .begin = t->created, .max_steps = options->budget_max_steps};
    t->lr_plan = bb_train_lr_plan(options, bb_optimizer_lr(optimizer));

    int longest = bb_train_seq_len(options, options->steps - 1); /* the curriculum only grows */
    size_t rows = (size_t)options->batch_size * (size_t)longest;
    int widest = longest;
    if (options->val_data) {
        t->val_batch = (int)(rows / (size_t)bb_trainer_val_seq_len(options));
        if (t->val_batch < 1) t->val_batch = 1;
        widest = (int)bb_max(widest, bb_trainer_val_seq_len(options));
    }
    int batch = (int)((rows + (size_t)widest - 1) / (size_t)widest);
    BB_TRY_GOTO(status, fail, bb_model_reserve(model, batch, widest, true, options->recompute, err));
    BB_TRY_GOTO(status, fail, open_ranks(t, err));
    t->x = calloc(rows,
                  1); /* a rank that cannot read its data computes with stale or zero bytes, so that the others do not wait */
    t->y = calloc(rows, 1);
    if (!t->x || !t->y) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a batch of %zu bytes", rows);
        goto fail;
    }
    *out = t;
    return BB_OK;
fail:
    bb_trainer_free(t);
    return status;
}

void bb_trainer_free(bb_trainer *t) {
    if (!t) return;
    BB_DEVICE_SCOPE(t->model->device);
    bb_gradients_close(&t->gradients);
    bb_dist_close(t->own_dist);
    free(t->reports);
    free(t->polls);
    bb_run_data_free(&t->run_data);
    free(t->resumed_from);
    free(t->corrected.run_config);
    free(t->corrected.checkpoint_config);
    free(t->corrected.steps_before);
    free(t->x);
    free(t->y);
    free(t);
}

/* ---- resuming --------------------------------------------------------------------------------------------------------- */

typedef struct resume_request {
    bb_trainer *trainer;
    bool load_opt_state;
} resume_request;

static bb_status resume_from(void *user, const char *path, bb_error *err) {
    const resume_request *request = user;
    bb_trainer *t = request->trainer;
    bb_training_state state;
    BB_TRY(bb_checkpoint_load(path, t->model, request->load_opt_state ? t->optimizer : NULL, &state, err));
    BB_TRY(bb_run_data_load(&t->run_data, path, err));
    char *copy = strdup(path);
    if (!copy) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    free(t->resumed_from);
    t->resumed_from = copy;
    t->state = state;
    if (state.moments_widened)
        bb_trainer_notice(t, "%s is of version 0.1.0: the embedding's moments were in 8 bits and are converted to f32", path);
    if (t->scaler && state.scaler_scale > 0) {
        t->scaler->scale = state.scaler_scale;
        t->scaler->good_steps = state.scaler_good_steps;
    }
    return BB_OK;
}

static void on_damaged(void *user, const char *path, const char *reason) {
    bb_trainer *t = ((const resume_request *)user)->trainer;
    if (t->damaged_step < 0) t->damaged_step = bb_run_dir_step_of(path);
    bb_trainer_notice(t, "damaged checkpoint, trying the previous one: %s", reason);
}

bb_status bb_trainer_resume(bb_trainer *t, const char *path, bool load_opt_state, bb_error *err) {
    BB_REQUIRE("trainer, path", t, path);
    resume_request request = {.trainer = t, .load_opt_state = load_opt_state};
    struct stat st;
    t->damaged_step = -1;
    if (stat(path, &st) != 0) return bb_fail(err, BB_ERR_IO, "%s: cannot look it up: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return bb_run_latest_valid(path, resume_from, on_damaged, &request, err);
    return resume_from(&request, path, err);
}

const char *bb_trainer_resumed_from(const bb_trainer *t) { return t ? t->resumed_from : NULL; }
bb_sampling bb_trainer_sampling(const bb_trainer *t) { return t ? t->state.sampling : (bb_sampling)0; }

/* ---- before the first step --------------------------------------------------------------------------------------------- */

static bb_status check_disk(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    char warning[1000];
    bb_save_plan plan = {.first_step = t->state.step,
                         .end = bb_trainer_last_step(o),
                         .save_every = o->save_every,
                         .saves_by_time = o->save_minutes > 0,
                         .best_every = o->val_data && o->patience > 0 ? o->val_every : 0,
                         .keep = {.newest = o->keep, .every = o->keep_every}};
    if (plan.first_step >= plan.end) return BB_OK;
    BB_TRY(bb_run_dir_count(&t->run_dir, &plan.existing, err));
    BB_TRY(bb_disk_space_check(o->out_dir, bb_saver_checkpoint_bytes(t->saver), bb_save_plan_peak(&plan), warning,
                               sizeof warning, err));
    if (warning[0]) bb_trainer_notice(t, "%s", warning);
    return BB_OK;
}

/* Needed if a run was killed before it wrote `best`, or had no patience before. */
static bb_status catch_up_with_best(bb_trainer *t, bb_error *err) {
    int64_t best = t->history.best_step;
    bb_retention keep = bb_trainer_retention(t);
    if (t->options.patience == 0 || best < 0) return BB_OK;
    if (bb_run_dir_has_checkpoint(t->run_dir.path, best)) return bb_run_dir_set_best(&t->run_dir, best, &keep, err);
    bb_trainer_notice(t, "the best validation so far, bpb %.4f at step %lld, has no checkpoint", t->history.best_bpb,
                      (long long)best);
    return BB_OK;
}

bb_status bb_trainer_open_run_dir(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    if (!o->out_dir || t->dist->rank != 0) return BB_OK;
    bool own = false;
    if (t->resumed_from) BB_TRY(bb_run_dir_contains(o->out_dir, t->resumed_from, &own, err));
    const bb_run_dir_use use = {.resume_step = own ? t->state.step : -1,
                                .damaged_step = own ? t->damaged_step : -1,
                                .allow_overwrite = o->allow_overwrite,
                                .config_json = o->run_config_json,
                                .names_best = o->val_data && o->patience > 0};
    BB_TRY(bb_run_dir_open(o->out_dir, &use, &t->run_dir, err));
    BB_TRY(bb_run_metrics_rewind(&t->run_dir, own ? t->state.step : -1, err));
    BB_TRY(catch_up_with_best(t, err));
    bool shared_out = bb_optimizer_dist(t->optimizer) != NULL;
    uint64_t state = bb_optimizer_state_bytes(t->optimizer) * (shared_out ? (uint64_t)t->dist->size : 1);
    uint64_t bytes = (uint64_t)t->model->table.total * sizeof(float) + state;
    const bb_saver_options saving = {
        .mode = bb_saver_mode_for(o, bytes, shared_out), .on_saved = bb_trainer_on_saved, .user = t};
    BB_TRY(bb_saver_create(t->model, t->optimizer, &t->run_dir, &saving, &t->saver, err));
    bb_saver_mode mode = bb_saver_mode_used(t->saver);
    t->saves_copy = mode == BB_SAVER_SNAPSHOT;
    BB_TRY(check_disk(t, err));
    if (saving.mode == BB_SAVER_SNAPSHOT && mode != BB_SAVER_SNAPSHOT)
        bb_trainer_notice(t, "there is no memory for a copy to save from: an update will wait until all is written");
    return bb_trainer_write_config(t, err);
}

bb_status bb_trainer_check_data(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    char changes[900];
    if (t->dist->rank != 0 || !(o->out_dir || t->run_data.before)) return BB_OK;
    BB_TRY(bb_run_data_check(&t->run_data, dataset, changes, sizeof changes, err));
    t->state.data = t->run_data.text;
    if (!changes[0]) return BB_OK;
    if (o->require_same_data)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%.200s differs from the data that this run was trained on: %s. To train on other data, resume from a "
                       "checkpoint file (--resume FILE --out DIR)",
                       dataset->name, changes);
    bb_trainer_notice(
        t, "warning: the data has changed since this run was saved: %s. From here on the run differs from an uninterrupted one",
        changes);
    return BB_OK;
}

bb_status bb_trainer_check_validation(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    t->validate_first = t->out_of_patience = t->best_is_late = false;
    if (!o->val_data || t->dist->rank != 0) return BB_OK;
    struct stat st;
    bool pipe = strcmp(o->val_data, "-") == 0 || (stat(o->val_data, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
    if (pipe)
        return bb_fail(err, BB_ERR_ARGUMENT, "val_data %s: standard input or a pipe can be read only once: give a file",
                       o->val_data);
    bool own = false;
    if (o->out_dir && t->resumed_from) BB_TRY(bb_run_dir_contains(o->out_dir, t->resumed_from, &own, err));
    if (own) BB_TRY(bb_run_metrics_history(o->out_dir, t->state.step, &t->history, err));
    bool validated = !own || !bb_trainer_validation_due(t) || t->history.last_step == t->state.step;
    t->validate_first = !validated;
    t->out_of_patience = validated && o->patience > 0 && t->history.since_best >= o->patience;
    t->best_is_late = own && o->patience > 0 && bb_run_dir_best_is_late(o->out_dir, t->history.best_step);
    if (t->state.step >= o->steps && validated) return BB_OK;
    bb_byte_source source;
    BB_TRY(bb_byte_source_open(o->val_data, BB_BYTES_HELD_OUT, &source, err));
    t->val_bytes = source.total_bytes;
    bb_status status = bb_byte_source_check_to_score(&source, o->val_data, err);
    bb_byte_source_close(&source);
    return status;
}
