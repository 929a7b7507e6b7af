/* The training loop: micro-batches, clip, update, metrics, validation, checkpoints.
 * SPDX-License-Identifier: MIT */
#include "bitbyte.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "core/file.h"
#include "training/checkpoint.h"
#include "training/loss.h"
#include "training/run_dir.h"
#include "training/saver.h"

struct bb_trainer {
    bb_model *model;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler;
    bb_train_options options;
    int64_t warmup_steps;
    bb_training_state state;
    char *resumed_from;   /* the checkpoint's path, NULL: a fresh start */
    int64_t damaged_step; /* checkpoints after resumed_from up to this step are damaged; -1: there are none */
    bb_run_dir run_dir;   /* path NULL: nothing is written */
    bb_saver *saver;
    volatile sig_atomic_t stop;
    uint8_t *x, *y; /* (batch_size, longest seq_len) */
    int val_batch;
    double started, last_log_time;
    int64_t last_log_bytes, first_step;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void bb_train_options_default(bb_train_options *o) {
    *o = (bb_train_options){.steps = 200000,
                            .warmup_steps = -1,
                            .warmup_frac = 0.03,
                            .lr_min_factor = 0.1,
                            .grad_clip = 1.0,
                            .batch_size = 1,
                            .grad_accum = 8,
                            .recompute = true,
                            .log_every = 50,
                            .save_every = 2000,
                            .val_batches = 16,
                            .val_seq_len = 2048};
}

static bb_status check_options(const bb_train_options *o, bb_error *err) {
    const struct {
        const char *name;
        int64_t value, least;
    } counts[] = {{"steps", o->steps, 1},
                  {"batch_size", o->batch_size, 1},
                  {"grad_accum", o->grad_accum, 1},
                  {"seq_len", o->seq_len, 0},
                  {"seq_len_cap", o->seq_len_cap, 0},
                  {"log_every", o->log_every, 0},
                  {"save_every", o->save_every, 0},
                  {"keep", o->keep, 0},
                  {"keep_every", o->keep_every, 0},
                  {"stop_at", o->stop_at, 0},
                  {"val_every", o->val_every, 0},
                  {"val_batches", o->val_batches, 0},
                  {"val_seq_len", o->val_seq_len, 1},
                  {"warmup_steps", o->warmup_steps, -1}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < counts[i].least)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s %lld must be at least %lld", counts[i].name, (long long)counts[i].value,
                           (long long)counts[i].least);
    if (!(o->warmup_frac >= 0 && o->warmup_frac <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "warmup_frac %g must be from 0 to 1", o->warmup_frac);
    if (!(o->lr_min_factor >= 0 && o->lr_min_factor <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "lr_min_factor %g must be from 0 to 1", o->lr_min_factor);
    if (!(o->spike_skip >= 0)) return bb_fail(err, BB_ERR_ARGUMENT, "spike_skip %g must not be negative", o->spike_skip);
    if (!(o->grad_clip >= 0)) return bb_fail(err, BB_ERR_ARGUMENT, "grad_clip %g must not be negative", o->grad_clip);
    return BB_OK;
}

static int seq_len_of(const bb_train_options *o, int64_t step) {
    return o->seq_len ? o->seq_len : bb_seq_len_for_step(step, o->steps, o->seq_len_cap);
}

bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler, const bb_train_options *options,
                            bb_trainer **out, bb_error *err) {
    *out = NULL;
    BB_TRY(check_options(options, err));
    bb_status status;
    bb_trainer *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a trainer");
    t->model = model;
    t->optimizer = optimizer;
    t->scaler = scaler;
    t->options = *options;
    t->run_dir.lock_fd = -1;
    t->damaged_step = -1;
    t->warmup_steps =
        options->warmup_steps >= 0 ? options->warmup_steps : (int64_t)(options->warmup_frac * (double)options->steps);

    int longest = seq_len_of(options, options->steps - 1); /* the curriculum only grows */
    size_t rows = (size_t)options->batch_size * (size_t)longest;
    int widest = longest;
    if (options->val_data) {
        t->val_batch = (int)(rows / (size_t)options->val_seq_len);
        if (t->val_batch < 1) t->val_batch = 1;
        if (options->val_seq_len > widest) widest = options->val_seq_len;
    }
    int batch = (int)((rows + (size_t)widest - 1) / (size_t)widest);
    BB_TRY_GOTO(status, fail, bb_model_reserve(model, batch, widest, true, options->recompute, err));
    t->x = malloc(rows);
    t->y = malloc(rows);
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
    free(t->resumed_from);
    free(t->x);
    free(t->y);
    free(t);
}

void bb_trainer_request_stop(bb_trainer *t) { t->stop = 1; }
int64_t bb_trainer_step(const bb_trainer *t) { return t->state.step; }

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static void emit(const bb_trainer *t, const bb_train_event *event) {
    if (t->options.on_event) t->options.on_event(t->options.user, event);
}

static bb_train_event event_of(const bb_trainer *t, bb_train_event_kind kind) {
    return (bb_train_event){.kind = kind,
                            .step = t->state.step,
                            .total_steps = t->options.steps,
                            .bytes_seen = t->state.bytes_seen,
                            .skipped_steps = t->state.skipped_steps,
                            .skipped_micro_batches = t->state.skipped_micro_batches,
                            .elapsed_seconds = now() - t->started,
                            .loss = NAN,
                            .bpb = NAN,
                            .val_bpb = NAN,
                            .grad_norm = NAN};
}

static void notice(const bb_trainer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void notice(const bb_trainer *t, const char *fmt, ...) {
    char message[1200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    bb_train_event e = event_of(t, BB_TRAIN_NOTICE);
    e.message = message;
    emit(t, &e);
}

/* A number, or null where it is not finite: JSON knows no NaN. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static bb_status log_metrics(const bb_trainer *t, const bb_train_event *e, bb_error *err) {
    if (!t->run_dir.path) return BB_OK;
    json_t *line =
        e->kind == BB_TRAIN_VALIDATION
            ? json_pack("{s:I, s:o}", "step", (json_int_t)e->step, "val_bpb", number(e->val_bpb))
            : json_pack("{s:I, s:o, s:o, s:f, s:i, s:o, s:I, s:f, s:I, s:I}", "step", (json_int_t)e->step, "loss",
                        number(e->loss), "bpb", number(e->bpb), "lr", e->lr, "seq_len", e->seq_len, "grad_norm",
                        number(e->grad_norm), "bytes", (json_int_t)e->bytes_seen, "bytes_per_s", e->bytes_per_second, "skipped",
                        (json_int_t)e->skipped_steps, "skipped_micro", (json_int_t)e->skipped_micro_batches);
    return bb_run_dir_append_metrics(&t->run_dir, line, err);
}

/* ---- going on -------------------------------------------------------------------------------------------------------- */

typedef struct resume_request {
    bb_trainer *trainer;
    bool load_opt_state;
} resume_request;

static bb_status resume_from(void *user, const char *path, bb_error *err) {
    const resume_request *request = user;
    bb_trainer *t = request->trainer;
    bb_training_state state;
    BB_TRY(bb_checkpoint_load(path, t->model, request->load_opt_state ? t->optimizer : NULL, &state, err));
    char *copy = strdup(path);
    if (!copy) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    free(t->resumed_from);
    t->resumed_from = copy;
    t->state = state;
    if (t->scaler && state.scaler_scale > 0) {
        t->scaler->scale = state.scaler_scale;
        t->scaler->good_steps = state.scaler_good_steps;
    }
    return BB_OK;
}

static void on_damaged(void *user, const char *path, const char *reason) {
    bb_trainer *t = ((const resume_request *)user)->trainer;
    if (t->damaged_step < 0) t->damaged_step = bb_run_dir_step_of(path);
    notice(t, "a damaged checkpoint is passed over for the one before it: %s", reason);
}

bb_status bb_trainer_resume(bb_trainer *t, const char *path, bool load_opt_state, bb_error *err) {
    resume_request request = {.trainer = t, .load_opt_state = load_opt_state};
    struct stat st;
    t->damaged_step = -1;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return bb_run_newest_good(path, resume_from, on_damaged, &request, err);
    return resume_from(&request, path, err);
}

const char *bb_trainer_resumed_from(const bb_trainer *t) { return t->resumed_from; }

/* ---- parts of a step ------------------------------------------------------------------------------------------------- */

static void on_saved(void *user, int64_t step, const char *path, double paused_seconds) {
    const bb_trainer *t = user;
    bb_train_event e = event_of(t, BB_TRAIN_SAVED);
    e.step = step;
    e.path = path;
    e.pause_seconds = paused_seconds;
    emit(t, &e);
}

static bb_status save(bb_trainer *t, bb_error *err) {
    if (!t->run_dir.path) return BB_OK;
    bb_keep keep = {.newest = t->options.keep, .every = t->options.keep_every};
    if (t->state.skipped_in_a_row > 0) keep.newest = 0; /* those before it may be all that is good */
    t->state.optimizer_steps = t->optimizer->steps;
    t->state.scaler_scale = t->scaler && t->scaler->enabled ? t->scaler->scale : 0;
    t->state.scaler_good_steps = t->scaler ? t->scaler->good_steps : 0;
    return bb_saver_save(t->saver, &t->state, &keep, err);
}

static bb_status validate(bb_trainer *t, bb_error *err) {
    bb_eval_options o;
    bb_eval_options_default(&o);
    o.seq_len = t->options.val_seq_len;
    o.batch_size = t->val_batch;
    o.max_batches = t->options.val_batches;
    bb_eval_result r;
    BB_TRY(bb_evaluate(t->model, t->options.val_data, &o, &r, err));
    bb_train_event e = event_of(t, BB_TRAIN_VALIDATION);
    e.val_bpb = r.bpb;
    emit(t, &e);
    return log_metrics(t, &e, err);
}

/* Gradients of one step. *loss: the mean over the finite micro-batches, NaN when there was none. */
static bb_status accumulate(bb_trainer *t, bb_dataset *dataset, int seq_len, double *loss, bb_error *err) {
    const bb_train_options *o = &t->options;
    double scale = (t->scaler ? bb_loss_scaler_scale(t->scaler) : 1) / o->grad_accum, sum = 0;
    int finite = 0;
    BB_TRY(bb_model_zero_gradients(t->model, err));
    for (int micro = 0; micro < o->grad_accum; micro++) {
        double micro_loss;
        BB_TRY(bb_dataset_batch(dataset, o->batch_size, o->grad_accum, micro, t->x, t->y, err));
        BB_TRY(bb_model_loss_backward(t->model, t->x, t->y, o->batch_size, seq_len, scale, &micro_loss, err));
        if (isfinite(micro_loss)) {
            sum += micro_loss;
            finite++;
        } else {
            t->state.skipped_micro_batches++;
        }
    }
    *loss = finite ? sum / finite : NAN;
    return BB_OK;
}

/* What a step that was applied, or not, leaves in the state. */
static void judged(bb_trainer *t, bool applied, double loss, double grad_norm, double loss_limit) {
    bb_training_state *s = &t->state;
    if (applied) {
        s->skipped_in_a_row = 0;
        if (t->options.spike_skip > 0)
            bb_spike_add(&s->spikes, loss, grad_norm);
        else
            s->spikes.count = 0;
        return;
    }
    const char *what = isfinite(loss) && loss <= loss_limit ? "the gradient norm" : "the loss";
    double value = isfinite(loss) && loss <= loss_limit ? grad_norm : loss;
    double limit = isfinite(loss) && loss <= loss_limit ? t->optimizer->norm_limit : loss_limit;
    s->skipped_steps++;
    if (!(t->scaler && t->scaler->enabled)) s->skipped_in_a_row++; /* to look for its scale, a scaler skips many */
    if (isfinite(value))
        notice(t, "step %lld was skipped: %s %.4g is a spike, over %.4g (%lld skipped so far)", (long long)s->step, what, value,
               limit, (long long)s->skipped_steps);
    else
        notice(t, "step %lld was skipped: %s is not finite (%lld skipped so far)", (long long)s->step, what,
               (long long)s->skipped_steps);
}

static bb_status too_many_skipped(const bb_trainer *t, bb_error *err) {
    return bb_fail(
        err, BB_ERR_NUMERIC,
        "%d steps in a row were skipped, up to step %lld: training does not recover from this by itself. Nothing was "
        "saved since; take a checkpoint from before (--resume FILE --out DIR) with a lower --lr, a longer warm-up, a "
        "smaller --grad_clip%s",
        BB_SKIPPED_IN_A_ROW, (long long)t->state.step,
        t->options.spike_skip > 0 ? ", or a larger --spike_skip" : ", or --spike_skip 6");
}

static bb_status train_step(bb_trainer *t, bb_dataset *dataset, bb_train_event *e, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    int seq_len = seq_len_of(o, s->step);
    if (bb_dataset_seq_len(dataset) != seq_len) BB_TRY(bb_dataset_set_seq_len(dataset, seq_len, err));
    if (seq_len > s->trained_length) t->model->trained_length = s->trained_length = seq_len;

    double loss, grad_norm = NAN;
    double lr = bb_lr_for_step(s->step, t->warmup_steps, o->steps, t->optimizer->options.lr, o->lr_schedule, o->lr_min_factor);
    bool applied = false;
    BB_TRY(accumulate(t, dataset, seq_len, &loss, err));
    double loss_scale = t->scaler ? bb_loss_scaler_scale(t->scaler) : 1;
    double loss_limit = bb_spike_limit(s->spikes.loss, s->spikes.count, o->spike_skip);
    t->optimizer->norm_limit = bb_spike_limit(s->spikes.grad_norm, s->spikes.count, o->spike_skip);
    if (isfinite(loss) && loss <= loss_limit)
        BB_TRY(bb_optimizer_step(t->optimizer, lr, o->grad_clip, loss_scale, &grad_norm, &applied, err));
    if (t->scaler) bb_loss_scaler_update(t->scaler, !applied);
    bb_dataset_next_step(dataset, o->batch_size, o->grad_accum);
    s->bytes_seen += (int64_t)(bb_dataset_position(dataset) - s->samples) * seq_len;
    s->samples = bb_dataset_position(dataset);
    s->step++;
    judged(t, applied, loss, grad_norm, loss_limit);

    *e = event_of(t, BB_TRAIN_STEP);
    e->seq_len = seq_len;
    e->loss = loss;
    e->bpb = bb_bits_per_byte(loss);
    e->lr = lr;
    e->grad_norm = grad_norm;
    double span = t->started + e->elapsed_seconds - t->last_log_time;
    e->bytes_per_second = span > 0 ? (double)(s->bytes_seen - t->last_log_bytes) / span : 0;
    e->eta_seconds = e->elapsed_seconds / (double)(s->step - t->first_step) * (double)(o->steps - s->step);
    return BB_OK;
}

static bool every(int64_t step, int n) { return n > 0 && step % n == 0; }

/* ---- the loop -------------------------------------------------------------------------------------------------------- */

static bb_status open_run_dir(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    if (!o->out_dir) return BB_OK;
    bool own = false;
    if (t->resumed_from) BB_TRY(bb_run_dir_contains(o->out_dir, t->resumed_from, &own, err));
    BB_TRY(bb_run_dir_open(o->out_dir, own ? t->state.step : -1, own ? t->damaged_step : -1, o->allow_overwrite, &t->run_dir,
                           err));
    BB_TRY(bb_run_dir_rewind_metrics(&t->run_dir, own ? t->state.step : -1, err));
    bool background = !o->save_sync;
    BB_TRY(bb_saver_create(t->model, t->optimizer, &t->run_dir, &background, on_saved, t, &t->saver, err));
    if (!background && !o->save_sync)
        notice(t, "there is no memory for a copy to save from: training will wait while a checkpoint is written");
    if (!o->run_config_json) return BB_OK;
    char *path = bb_file_join(o->out_dir, "config.json");
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_file_replace(path, o->run_config_json, strlen(o->run_config_json), err);
    free(path);
    return status;
}

static bb_status run(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    int64_t end = o->stop_at > 0 && o->stop_at < o->steps ? o->stop_at : o->steps;
    bb_dataset_set_position(dataset, s->samples);
    t->started = t->last_log_time = now();
    t->last_log_bytes = s->bytes_seen;
    t->first_step = s->step;

    int64_t saved_step = -1;
    while (s->step < end && !t->stop) {
        bb_train_event e;
        BB_TRY(train_step(t, dataset, &e, err));
        e.logged = every(s->step, o->log_every) || s->step == o->steps;
        emit(t, &e);
        if (e.logged) {
            BB_TRY(log_metrics(t, &e, err));
            t->last_log_time = now();
            t->last_log_bytes = s->bytes_seen;
        }
        if (o->val_data && (every(s->step, o->val_every) || s->step == o->steps)) BB_TRY(validate(t, err));
        if (s->skipped_in_a_row >= BB_SKIPPED_IN_A_ROW) return too_many_skipped(t, err);
        if (every(s->step, o->save_every) && s->skipped_in_a_row == 0) {
            BB_TRY(save(t, err));
            saved_step = s->step;
        }
        BB_TRY(bb_saver_poll(t->saver, err));
    }
    if (saved_step != s->step && s->step > t->first_step) BB_TRY(save(t, err));
    if (t->stop && s->step < end)
        return bb_fail(err, BB_ERR_INTERRUPTED, "stopped at step %lld of %lld", (long long)s->step, (long long)o->steps);
    return BB_OK;
}

bb_status bb_trainer_train(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const char *warning = bb_dataset_get_info(dataset).warning;
    if (warning) notice(t, "%s", warning);
    if (t->state.step >= t->options.steps) {
        notice(t, "nothing to do: %lld steps are done already", (long long)t->state.step);
        return BB_OK;
    }
    bb_error unsaved;
    bb_status status = open_run_dir(t, err);
    if (status == BB_OK) status = run(t, dataset, err);
    /* The last checkpoint is on disk, or known not to be, before this returns. What ended the run is said first. */
    bb_status last = bb_saver_wait(t->saver, &unsaved);
    if (last != BB_OK && (status == BB_OK || status == BB_ERR_INTERRUPTED)) status = bb_fail(err, last, "%s", unsaved.message);
    bb_saver_free(t->saver);
    t->saver = NULL;
    bb_run_dir_close(&t->run_dir);
    return status;
}
