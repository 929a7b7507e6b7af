// SPDX-License-Identifier: MIT
/* The training loop: micro-batches, clip, update, metrics, validation, checkpoints. */
#include "bitbyte.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/math.h"
#include "data/byte_source.h"
#include "data/dataset.h"
#include "dist/dist.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_write.h"
#include "training/disk_room.h"
#include "training/gradients.h"
#include "training/loss.h"
#include "training/run_data.h"
#include "training/run_dir.h"
#include "training/saver.h"
#include "training/train_options.h"

struct bb_trainer {
    bb_model *model;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler;
    bb_train_options options;
    int64_t warmup_steps;
    bb_training_state state;
    char *resumed_from;   /* the checkpoint's path, NULL: a fresh start */
    int64_t damaged_step; /* checkpoints after resumed_from up to this step are damaged; -1: there are none */
    bb_run_data run_data;
    bb_run_dir run_dir;               /* path NULL: nothing is written */
    bb_saver *saver;                  /* of rank 0 */
    bool from_copy;                   /* it writes from a copy: known to all ranks */
    volatile sig_atomic_t stop, save; /* requests to this rank */
    bb_dist *dist, *alone;            /* alone: opened here, where the caller gave none */
    bb_micro_run run;
    bb_gradients gradients;
    struct rank_report *reports; /* (size): what every rank says after its micro-batches, and their losses */
    size_t report_bytes;         /* of one */
    struct poll *polls;          /* (size): what every rank says between batches of a validation */
    bool stopping, save_asked, save_due, time_is_up; /* decided by all ranks */
    int64_t save_begun, newest_saved;                /* steps, -1: none of this run yet */
    int bad_micros;                                  /* micro-batches of this step whose loss is not finite */
    /* When an error ends the run */
    bb_error failure;     /* of this rank, which the others learn of in the next report */
    bool failed_together; /* all ranks know of the error, and can save together */
    bool updating;        /* in the middle of an update: the weights are those of no step */
    bool save_failed, drifted;
    bb_train_event unlogged; /* step > 0: its line could not be written */
    /* Validation */
    bool validate_first;    /* the step resumed from was not validated */
    bool validation_missed; /* the newest one due was abandoned */
    volatile int abandon;   /* a validation under way */
    int64_t failed_validations;
    double created, last_save, longest_step, longest_save, save_began;
    double gathered; /* seconds, until rank 0 had all weights for the newest save */
    struct waits {   /* seconds */
        double mean, least;
    } logged_waits, all_waits; /* over ranks, step by step: since the last logged one, and of this call of train */
    double waited;             /* this rank in the step before */
    uint8_t *x, *y;            /* (batch_size, longest seq_len) */
    int val_batch;
    bool val_shards_noted; /* that validation scores what models are trained on was said */
    double started, ended, last_log_time;
    int64_t last_log_bytes, first_step;
};

enum { DEFAULT_VAL_SEQ_LEN = 2048, WEIGHT_PARTS = 64 };

/* Once a step, from every rank to all. */
struct rank_report {
    int64_t stop, save, save_due, time_is_up; /* the last two count from rank 0 alone */
    int64_t failed;
    uint64_t weights; /* sum of a part of them */
    double waited;    /* seconds in the step before */
    double losses[];  /* of its micro-batches, as many as the longest run has */
};

struct poll {
    int64_t stop, save, time_is_up, stage; /* the last two count from rank 0 alone */
};
enum { VALIDATING, VALIDATED, ABANDONED }; /* stages */

static int seq_len_of(const bb_train_options *o, int64_t step) {
    return o->seq_len ? o->seq_len : bb_seq_len_for_step(step, o->steps, o->seq_len_cap);
}

/* The curriculum begins at 2048, or at its cap: so this is the same at every step. */
static int val_seq_len_of(const bb_train_options *o) {
    return o->val_seq_len ? o->val_seq_len : (int)bb_min(seq_len_of(o, 0), DEFAULT_VAL_SEQ_LEN);
}

/* The processes, this rank's part of a step, and what sums it. */
static bb_status open_ranks(bb_trainer *t, bb_error *err) {
    if (!t->options.dist) BB_TRY(bb_dist_open_single(&t->alone, err));
    t->dist = t->options.dist ? t->options.dist : t->alone;
    int size = t->dist->size;
    if (size > 1 && !t->model->device->ops->host_memory)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "training in %d processes works where tensors are in the host's memory; device %s has its own", size,
                       t->model->device->ops->name);
    BB_TRY(bb_micro_run_of(&t->options, t->dist->rank, size, &t->run, err));
    size_t longest = (size_t)(t->run.total + size - 1) / (size_t)size;
    t->report_bytes = sizeof *t->reports + longest * sizeof *t->reports->losses;
    t->reports = calloc((size_t)size + 1, t->report_bytes); /* the last is this rank's own, to be sent */
    t->polls = calloc((size_t)size, sizeof *t->polls);
    if (!t->reports || !t->polls)
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the losses of %d micro-batches", t->run.total);
    if (t->optimizer->dist && t->optimizer->dist != t->dist)
        return bb_fail(err, BB_ERR_ARGUMENT, "the optimizer's state is shared out over ranks that are not the trainer's");
    return bb_gradients_open(t->model, t->dist, t->run.count, t->options.reduce, t->optimizer->dist != NULL, &t->gradients,
                             err);
}

static struct rank_report *report_of(const bb_trainer *t, int rank) {
    return (struct rank_report *)(void *)((unsigned char *)t->reports + (size_t)rank * t->report_bytes);
}

bb_status bb_trainer_create(bb_model *model, bb_optimizer *optimizer, bb_loss_scaler *scaler, const bb_train_options *options,
                            bb_trainer **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, optimizer, options", model, optimizer, options);
    BB_DEVICE_SCOPE(model->device);
    BB_TRY(bb_train_options_check(options, err));
    if (optimizer->model != model)
        return bb_fail(err, BB_ERR_ARGUMENT, "the optimizer was made for another model than the trainer's");
    bb_status status;
    bb_trainer *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a trainer");
    t->model = model;
    t->optimizer = optimizer;
    t->scaler = scaler;
    t->options = *options;
    t->run_dir.lock_fd = -1;
    t->damaged_step = t->save_begun = t->newest_saved = -1;
    t->created = bb_clock_seconds();
    t->warmup_steps =
        options->warmup_steps >= 0 ? options->warmup_steps : (int64_t)(options->warmup_frac * (double)options->steps);
    t->warmup_steps = bb_min(t->warmup_steps, options->steps);

    int longest = seq_len_of(options, options->steps - 1); /* the curriculum only grows */
    size_t rows = (size_t)options->batch_size * (size_t)longest;
    int widest = longest;
    if (options->val_data) {
        t->val_batch = (int)(rows / (size_t)val_seq_len_of(options));
        if (t->val_batch < 1) t->val_batch = 1;
        widest = (int)bb_max(widest, val_seq_len_of(options));
    }
    int batch = (int)((rows + (size_t)widest - 1) / (size_t)widest);
    BB_TRY_GOTO(status, fail, bb_model_reserve(model, batch, widest, true, options->recompute, err));
    BB_TRY_GOTO(status, fail, open_ranks(t, err));
    t->x = calloc(rows, 1); /* a rank that cannot read its data computes with what is there, for the others' sake */
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
    bb_dist_close(t->alone);
    free(t->reports);
    free(t->polls);
    bb_run_data_free(&t->run_data);
    free(t->resumed_from);
    free(t->x);
    free(t->y);
    free(t);
}

static double share(double part, double whole) { return part < whole ? part / whole : whole > 0; }

void bb_trainer_request_stop(bb_trainer *t) {
    if (t) t->stop = 1;
}
void bb_trainer_request_save(bb_trainer *t) {
    if (t) t->save = 1;
}
int64_t bb_trainer_failed_validations(const bb_trainer *t) { return t ? t->failed_validations : 0; }
int64_t bb_trainer_step(const bb_trainer *t) { return t ? t->state.step : 0; }
void bb_trainer_wait_shares(const bb_trainer *t, double *wait_share, double *exposed_share) {
    double span = t ? t->ended - t->started : 0;
    if (wait_share) *wait_share = t ? share(t->all_waits.mean + t->logged_waits.mean, span) : 0;
    if (exposed_share) *exposed_share = t ? share(t->all_waits.least + t->logged_waits.least, span) : 0;
}

bool bb_trainer_out_of_time(const bb_trainer *t) { return t && t->time_is_up; }

/* ---- events ---------------------------------------------------------------------------------------------------------- */

static void emit(const bb_trainer *t, const bb_train_event *event) {
    if (t->options.on_event && t->dist->rank == 0) t->options.on_event(t->options.user, event);
}

static bb_train_event event_of(const bb_trainer *t, bb_train_event_kind kind) {
    return (bb_train_event){.kind = kind,
                            .step = t->state.step,
                            .total_steps = t->options.steps,
                            .bytes_seen = t->state.bytes_seen,
                            .skipped_steps = t->state.skipped_steps,
                            .skipped_micro_batches = t->state.skipped_micro_batches,
                            .elapsed_seconds = bb_clock_seconds() - t->started,
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
            : json_pack("{s:I, s:o, s:o, s:f, s:i, s:o, s:I, s:f, s:I, s:I, s:o*, s:o*}", "step", (json_int_t)e->step, "loss",
                        number(e->loss), "bpb", number(e->bpb), "lr", e->lr, "seq_len", e->seq_len, "grad_norm",
                        number(e->grad_norm), "bytes", (json_int_t)e->bytes_seen, "bytes_per_s", e->bytes_per_second, "skipped",
                        (json_int_t)e->skipped_steps, "skipped_micro", (json_int_t)e->skipped_micro_batches, "wait_share",
                        t->dist->size > 1 ? json_real(e->wait_share) : NULL, "exposed_share",
                        t->dist->size > 1 ? json_real(e->exposed_share) : NULL);
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
    BB_TRY(bb_run_data_load(&t->run_data, path, err));
    char *copy = strdup(path);
    if (!copy) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    free(t->resumed_from);
    t->resumed_from = copy;
    t->state = state;
    if (state.moments_widened)
        notice(t, "%s is of version 0.1.0: the embedding's moments were in 8 bits, and are in f32 from here on", path);
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
    BB_REQUIRE("trainer, path", t, path);
    resume_request request = {.trainer = t, .load_opt_state = load_opt_state};
    struct stat st;
    t->damaged_step = -1;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return bb_run_newest_good(path, resume_from, on_damaged, &request, err);
    return resume_from(&request, path, err);
}

const char *bb_trainer_resumed_from(const bb_trainer *t) { return t ? t->resumed_from : NULL; }
bb_sampling bb_trainer_sampling(const bb_trainer *t) { return t ? t->state.sampling : (bb_sampling)0; }

/* ---- parts of a step ------------------------------------------------------------------------------------------------- */

/* Ranks that have drifted apart, or never were the same, would go on without a sign of it: each step compares a part of the
 * weights, and WEIGHT_PARTS steps all of them. */
static uint64_t weights_sum(const bb_trainer *t, int part) {
    uint64_t sum = bb_weight_exchange_sum(&t->optimizer->exchange, part, WEIGHT_PARTS);
    return sum ^ (uint64_t)t->state.step << 32 ^ t->state.samples;
}

static bb_status ranks_differ(const bb_trainer *t, int rank, bb_error *err) {
    return bb_fail(
        err, BB_ERR_ARGUMENT,
        "at step %lld rank %d on %s has not the weights of rank 0 on %s: the same program, --seed, and checkpoint on "
        "every host?",
        (long long)t->state.step, rank, bb_dist_host(t->dist, rank), bb_dist_host(t->dist, 0));
}

static bb_status same_everywhere(bb_trainer *t, bb_error *err) {
    int size = t->dist->size;
    if (size == 1) return BB_OK;
    uint64_t mine = 0, *all = calloc((size_t)size, sizeof *all);
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    for (int part = 0; part < WEIGHT_PARTS; part++) mine = mine * 31 + weights_sum(t, part);
    bb_status status = bb_dist_all_gather_u64(t->dist, mine, all, err);
    for (int r = 1; r < size && status == BB_OK; r++)
        if (all[r] != all[0]) status = ranks_differ(t, r, err);
    free(all);
    return status;
}

static void on_saved(void *user, int64_t step, const char *path, double paused_seconds, double seconds) {
    bb_trainer *t = user;
    bb_train_event e = event_of(t, BB_TRAIN_SAVED);
    t->newest_saved = step;
    e.step = step;
    e.path = path;
    e.pause_seconds = t->gathered + paused_seconds;
    if (seconds > t->longest_save) t->longest_save = seconds;
    emit(t, &e);
}

/* All that is saved has passed this, so the newest checkpoint is good. Ranks have the same weights, and find the same. */
static bb_status check_weights(const bb_trainer *t, bb_error *err) {
    bb_error why, ignored;
    char path[4096];
    bb_status status = bb_model_check_finite(t->model, &why);
    if (status == BB_OK) return BB_OK;
    if (status != BB_ERR_NUMERIC) return bb_fail(err, status, "%s", why.message);
    const char *good = t->resumed_from;
    (void)bb_saver_wait(t->saver, &ignored); /* it may be on its way to its name */
    if (t->options.out_dir && bb_run_latest_checkpoint(t->options.out_dir, path, sizeof path, &ignored) == BB_OK) good = path;
    if (!good)
        return bb_fail(err, BB_ERR_NUMERIC,
                       "after step %lld the weights are not finite: %s. There is no checkpoint from before",
                       (long long)t->state.step, why.message);
    return bb_fail(err, BB_ERR_NUMERIC,
                   "after step %lld the weights are not finite: %s. The last good checkpoint is %s: go on from it with a lower "
                   "--lr (--resume FILE --out DIR)",
                   (long long)t->state.step, why.message, good);
}

static bb_status begin_save(bb_trainer *t, bb_error *err) {
    BB_DEVICE_SCOPE(t->model->device);
    BB_TRY(check_weights(t, err));
    BB_TRY(bb_saver_wait(t->saver, err)); /* and says what it took, before this save's times are taken */
    double begin = bb_clock_seconds();
    if (t->optimizer->dist) BB_TRY(bb_weight_exchange_f32_to_rank_0(&t->optimizer->exchange, err));
    t->gathered = bb_clock_seconds() - begin;
    if (t->dist->rank > 0) return t->optimizer->dist ? bb_checkpoint_contribute(t->optimizer, t->from_copy, err) : BB_OK;
    bb_keep keep = {.newest = t->options.keep, .every = t->options.keep_every};
    if (t->state.skipped_in_a_row > 0) keep.newest = 0; /* those before it may be all that is good */
    t->state.optimizer_steps = t->optimizer->steps;
    t->state.run_config = t->options.checkpoint_config_json;
    t->state.scaler_scale = t->scaler && t->scaler->enabled ? t->scaler->scale : 0;
    t->state.scaler_good_steps = t->scaler ? t->scaler->good_steps : 0;
    t->last_save = bb_clock_seconds();
    return bb_saver_save(t->saver, &t->state, &keep, err);
}

/* The step that was just done, unless it is saved already. */
static bb_status save(bb_trainer *t, bb_error *err) {
    t->save_asked = t->save_due = false;
    if (!t->options.out_dir || t->save_begun == t->state.step) return BB_OK;
    t->save_begun = t->state.step;
    bb_status status = begin_save(t, err);
    t->save_failed = status != BB_OK;
    return status;
}

static bb_status poll_saver(bb_trainer *t, bb_error *err) {
    bb_status status = bb_saver_poll(t->saver, err);
    if (status != BB_OK) t->save_failed = true;
    return status;
}

/* A request that comes while the one before it is served is served by the same save. */
static bool take_save_request(bb_trainer *t) {
    bool asked = t->save;
    if (asked) t->save = 0;
    return asked;
}

/* Whether there is no time left for one more step and a save. */
static bool out_of_time(const bb_trainer *t) {
    double needed = t->longest_step + (t->longest_step > t->longest_save ? t->longest_step : t->longest_save);
    return t->options.max_minutes > 0 && bb_clock_seconds() - t->created + needed >= 60 * t->options.max_minutes;
}

static void stop_all(bb_trainer *t, int rank) {
    if (t->dist->size > 1 && !t->stopping)
        notice(t, "rank %d on %s was asked to stop: all finish this step, then rank 0 saves", rank,
               bb_dist_host(t->dist, rank));
    t->stopping = true;
}

/* ---- validation ------------------------------------------------------------------------------------------------------ */

static bool every(int64_t step, int n) { return n > 0 && step % n == 0; }

static bool validation_due(const bb_trainer *t) {
    const bb_train_options *o = &t->options;
    return o->val_data && t->state.step > 0 && (every(t->state.step, o->val_every) || t->state.step == o->steps);
}

/* All ranks, between batches and once at the end: whether to stop, and whether to save meanwhile. */
static bb_status poll_ranks(bb_trainer *t, int stage, bb_error *err) {
    struct poll own = {.stop = t->stop, .save = take_save_request(t), .time_is_up = out_of_time(t), .stage = stage};
    BB_TRY(t->dist->engine->all_gather(t->dist, &own, t->polls, sizeof own, err));
    for (int r = 0; r < t->dist->size; r++) {
        if (t->polls[r].stop) stop_all(t, r);
        if (t->polls[r].save) t->save_asked = true;
    }
    if (t->polls[0].time_is_up) t->time_is_up = true;
    t->abandon = t->stopping || t->time_is_up;
    return t->save_asked && t->state.skipped_in_a_row == 0 ? save(t, err) : BB_OK;
}

static void on_validation_batch(void *user, int64_t bytes_done, int64_t bytes_total, double bpb) {
    bb_trainer *t = user;
    (void)bytes_done;
    (void)bytes_total;
    (void)bpb;
    if (t->failure.code == BB_OK) poll_saver(t, &t->failure);
    if (t->failure.code == BB_OK) poll_ranks(t, VALIDATING, &t->failure);
    if (t->failure.code != BB_OK) t->abandon = 1;
}

static bb_status report_validation(bb_trainer *t, bb_status status, const bb_eval_result *r, const bb_error *failure,
                                   bb_error *err) {
    long long step = (long long)t->state.step;
    if (status == BB_ERR_INTERRUPTED) {
        notice(t, "the validation at step %lld was abandoned; resuming the run repeats it", step);
        return BB_OK;
    }
    if (status != BB_OK) {
        t->failed_validations++;
        if (t->options.strict_val) return bb_fail(err, status, "validation at step %lld: %.800s", step, failure->message);
        notice(t, "the validation at step %lld failed (%lld so far), training goes on: %.800s", step,
               (long long)t->failed_validations, failure->message);
        return BB_OK;
    }
    if (!t->val_shards_noted && r->pattern && strcmp(r->pattern, "shard_*.bin") == 0) {
        t->val_shards_noted = true;
        notice(t,
               "the directory of val_data holds no val_*.bin: its shard_*.bin are scored, which is what models are trained on");
    }
    bb_train_event e = event_of(t, BB_TRAIN_VALIDATION);
    e.seq_len = val_seq_len_of(&t->options);
    e.val_bpb = r->bpb;
    emit(t, &e);
    return log_metrics(t, &e, err);
}

static bb_status validate_on_rank_0(bb_trainer *t, bb_error *err) {
    bb_eval_options o;
    bb_eval_options_default(&o);
    o.seq_len = val_seq_len_of(&t->options);
    o.batch_size = t->val_batch;
    o.max_batches = t->options.val_batches;
    o.on_progress = on_validation_batch;
    o.user = t;
    o.stop = &t->abandon;
    bb_eval_result r;
    bb_error failure;
    bb_status status = bb_evaluate(t->model, t->options.val_data, &o, &r, &failure);
    if (t->failure.code != BB_OK) return bb_fail(err, t->failure.code, "%s", t->failure.message); /* saving, or the ranks */
    t->failure.code = report_validation(t, status, &r, &failure, &t->failure);
    return poll_ranks(t, status == BB_ERR_INTERRUPTED ? ABANDONED : VALIDATED, err);
}

/* Rank 0 validates; the others wait for it, and say whether they were asked to stop or to save. */
static bb_status validate(bb_trainer *t, bb_error *err) {
    double waited_before = bb_dist_wait_seconds(t->dist);
    t->abandon = 0;
    if (t->dist->rank == 0)
        BB_TRY(validate_on_rank_0(t, err));
    else
        do BB_TRY(poll_ranks(t, VALIDATING, err));
        while (t->polls[0].stage == VALIDATING);
    t->validation_missed = t->polls[0].stage == ABANDONED;
    t->waited += bb_dist_wait_seconds(t->dist) - waited_before;
    return BB_OK;
}

/* All ranks know that at least one has failed: the error of the lowest, on all. */
static bb_status fail_together(bb_trainer *t, bb_error *err) {
    bb_status status = bb_dist_agree(t->dist, t->failure.code, &t->failure);
    t->failed_together = status != BB_OK && status != BB_ERR_PEER;
    return status == BB_OK ? BB_OK : bb_fail(err, status, "%s", t->failure.message);
}

/* Every rank's report to all, and what follows from them: the loss, in the order of the micro-batches, NaN when none was
 * finite; what to do after this step. */
static bb_status exchange_reports(bb_trainer *t, double *loss, bb_error *err) {
    const bb_train_options *o = &t->options;
    int size = t->dist->size, finite = 0;
    double sum = 0, waited = 0, least = INFINITY;
    struct rank_report *own = report_of(t, size);
    own->stop = t->stop;
    own->save = take_save_request(t);
    own->save_due = o->save_minutes > 0 && bb_clock_seconds() - t->last_save >= 60 * o->save_minutes;
    own->time_is_up = out_of_time(t);
    own->failed = t->failure.code != BB_OK;
    own->waited = t->waited;
    own->weights = size > 1 ? weights_sum(t, (int)(t->state.step % WEIGHT_PARTS)) : 0;
    BB_TRY(t->dist->engine->all_gather(t->dist, own, t->reports, t->report_bytes, err));
    int stop_rank = -1;
    bool failed = false;
    t->bad_micros = 0;
    for (int r = 0; r < size; r++) {
        const struct rank_report *report = report_of(t, r);
        bb_micro_run run;
        BB_TRY(bb_micro_run_of(o, r, size, &run, err));
        if (report->stop && stop_rank < 0) stop_rank = r;
        if (report->save) t->save_asked = true;
        failed = failed || report->failed;
        if (report->weights != report_of(t, 0)->weights) {
            t->drifted = true;
            return ranks_differ(t, r, err);
        }
        waited += report->waited;
        least = report->waited < least ? report->waited : least;
        for (int i = 0; i < run.count; i++) {
            if (isfinite(report->losses[i])) {
                sum += report->losses[i];
                finite++;
            } else {
                t->bad_micros++;
            }
        }
    }
    if (stop_rank >= 0) stop_all(t, stop_rank);
    t->save_due = report_of(t, 0)->save_due != 0;
    t->time_is_up = report_of(t, 0)->time_is_up != 0;
    t->logged_waits.mean += waited / size;
    t->logged_waits.least += least;
    BB_TRY(bb_gradients_finish(&t->gradients, err));
    if (failed) return fail_together(t, err);
    *loss = finite ? sum / finite : NAN;
    return BB_OK;
}

/* A rank that failed takes part with whatever bytes it has, so that the others need not wait for it; what comes out is not used.
 * Gradients of one step, the sum over all ranks. *loss: the mean over the finite micro-batches, NaN when there was none. */
static bb_status accumulate(bb_trainer *t, bb_dataset *dataset, int seq_len, double *loss, bb_error *err) {
    int batch_size = t->options.batch_size;
    double scale = (t->scaler ? bb_loss_scaler_scale(t->scaler) : 1) / t->run.total;
    bb_batch batch = {.x = t->x, .y = t->y, .batch_size = batch_size, .seq_len = seq_len};
    struct rank_report *own = report_of(t, t->dist->size);
    BB_TRY(bb_gradients_begin(&t->gradients, err));
    for (int i = 0; i < t->run.count; i++) {
        if (t->failure.code == BB_OK)
            bb_dataset_batch(dataset, batch_size, t->run.total, t->run.first + i, t->x, t->y, &t->failure);
        if (t->failure.code != BB_OK && t->dist->size == 1) return bb_fail(err, t->failure.code, "%s", t->failure.message);
        BB_TRY(bb_gradients_micro(&t->gradients, &batch, scale, &own->losses[i], err));
    }
    return exchange_reports(t, loss, err);
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
    BB_DEVICE_SCOPE(t->model->device);
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    int seq_len = seq_len_of(o, s->step);
    if (t->failure.code == BB_OK && bb_dataset_seq_len(dataset) != seq_len)
        bb_dataset_set_seq_len(dataset, seq_len, &t->failure);

    double loss = NAN, grad_norm = NAN, begin = bb_clock_seconds(), waited_before = bb_dist_wait_seconds(t->dist);
    double lr = bb_lr_for_step(s->step, t->warmup_steps, o->steps, t->optimizer->options.lr, o->lr_schedule, o->lr_min_factor);
    bool applied = false;
    BB_TRY(accumulate(t, dataset, seq_len, &loss, err));
    double loss_scale = t->scaler ? bb_loss_scaler_scale(t->scaler) : 1;
    double loss_limit = bb_spike_limit(s->spikes.loss, s->spikes.count, o->spike_skip);
    t->optimizer->norm_limit = bb_spike_limit(s->spikes.grad_norm, s->spikes.count, o->spike_skip);
    bb_saver_wait_snapshot(t->saver);
    t->updating = true;
    if (isfinite(loss) && loss <= loss_limit)
        BB_TRY(bb_optimizer_step(t->optimizer, lr, o->grad_clip, loss_scale, &grad_norm, &applied, err));
    t->waited = bb_dist_wait_seconds(t->dist) - waited_before;
    if (t->scaler) bb_loss_scaler_update(t->scaler, !applied);
    bb_dataset_next_step(dataset, o->batch_size, t->run.total);
    s->bytes_seen += (int64_t)(bb_dataset_position(dataset) - s->samples) * seq_len;
    s->samples = bb_dataset_position(dataset);
    s->step++;
    s->skipped_micro_batches += t->bad_micros;
    if (seq_len > s->trained_length) t->model->trained_length = s->trained_length = seq_len;
    t->updating = false;
    judged(t, applied, loss, grad_norm, loss_limit);

    *e = event_of(t, BB_TRAIN_STEP);
    e->seq_len = seq_len;
    e->loss = loss;
    e->bpb = bb_bits_per_byte(loss);
    e->lr = lr;
    e->grad_norm = grad_norm;
    double step_seconds = bb_clock_seconds() - begin, span = t->started + e->elapsed_seconds - t->last_log_time;
    if (step_seconds > t->longest_step) t->longest_step = step_seconds;
    e->wait_share = share(t->logged_waits.mean, span); /* a step's waiting is known in the next one */
    e->exposed_share = share(t->logged_waits.least, span);
    e->bytes_per_second = span > 0 ? (double)(s->bytes_seen - t->last_log_bytes) / span : 0;
    e->eta_seconds = e->elapsed_seconds / (double)(s->step - t->first_step) * (double)(o->steps - s->step);
    return BB_OK;
}

/* ---- the loop -------------------------------------------------------------------------------------------------------- */

static int64_t end_of(const bb_train_options *o) { return o->stop_at > 0 && o->stop_at < o->steps ? o->stop_at : o->steps; }

static bb_status check_disk(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    char warning[1000];
    bb_save_plan plan = {.first_step = t->state.step,
                         .end = end_of(o),
                         .save_every = o->save_every,
                         .also_by_time = o->save_minutes > 0,
                         .keep = {.newest = o->keep, .every = o->keep_every}};
    if (plan.first_step >= plan.end) return BB_OK;
    BB_TRY(bb_run_dir_count(&t->run_dir, &plan.existing, err));
    BB_TRY(bb_disk_room_check(o->out_dir, bb_saver_checkpoint_bytes(t->saver), bb_save_plan_peak(&plan), warning,
                              sizeof warning, err));
    if (warning[0]) notice(t, "%s", warning);
    return BB_OK;
}

static bb_status open_run_dir(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    if (!o->out_dir || t->dist->rank != 0) return BB_OK;
    bool own = false;
    if (t->resumed_from) BB_TRY(bb_run_dir_contains(o->out_dir, t->resumed_from, &own, err));
    BB_TRY(bb_run_dir_open(o->out_dir, own ? t->state.step : -1, own ? t->damaged_step : -1, o->allow_overwrite, &t->run_dir,
                           err));
    BB_TRY(bb_run_dir_rewind_metrics(&t->run_dir, own ? t->state.step : -1, err));
    bool shared_out = t->optimizer->dist != NULL;
    uint64_t state = bb_optimizer_state_bytes(t->optimizer) * (shared_out ? (uint64_t)t->dist->size : 1);
    uint64_t bytes = (uint64_t)t->model->table.total * sizeof(float) + state;
    const bb_saver_options saving = {.mode = bb_saver_mode_for(o, bytes, shared_out), .on_saved = on_saved, .user = t};
    BB_TRY(bb_saver_create(t->model, t->optimizer, &t->run_dir, &saving, &t->saver, err));
    bb_saver_mode mode = bb_saver_mode_used(t->saver);
    t->from_copy = mode == BB_SAVER_SNAPSHOT;
    BB_TRY(check_disk(t, err));
    if (saving.mode == BB_SAVER_SNAPSHOT && mode != BB_SAVER_SNAPSHOT)
        notice(t, "there is no memory for a copy to save from: an update will wait until all is written");
    if (!o->run_config_json) return BB_OK;
    char *path = bb_file_join(o->out_dir, "config.json");
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_file_replace(path, o->run_config_json, strlen(o->run_config_json), err);
    free(path);
    return status;
}

/* By rank 0: the data is what it was when the checkpoint was written, or it is said what changed. */
static bb_status check_data(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    char changes[900];
    if (t->dist->rank != 0 || !(o->out_dir || t->run_data.before)) return BB_OK;
    BB_TRY(bb_run_data_check(&t->run_data, dataset, changes, sizeof changes, err));
    t->state.data = t->run_data.text;
    if (!changes[0]) return BB_OK;
    if (o->require_same_data)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%.200s is not the data that this run was trained on: %s. To train on other data, resume from a "
                       "checkpoint file (--resume FILE --out DIR)",
                       dataset->name, changes);
    notice(t,
           "warning: the data is not what it was when this run was saved: %s. From here on the run differs from one that was "
           "not interrupted",
           changes);
    return BB_OK;
}

/* What rank 0 decided; false on the others. */
static bb_status learn_from_rank_0(bb_trainer *t, bool *decision, bb_error *err) {
    int64_t value = *decision;
    BB_TRY(bb_dist_max_i64(t->dist, &value, 1, err));
    *decision = value != 0;
    return BB_OK;
}

/* By rank 0: that there is something to validate with, as it would be too late to hear that after some hours; and whether the
 * validation of the step resumed from is missing, as it was abandoned or failed. */
static bb_status check_validation(bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    t->validate_first = false;
    if (!o->val_data || t->dist->rank != 0) return BB_OK;
    struct stat st;
    bool pipe = strcmp(o->val_data, "-") == 0 || (stat(o->val_data, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
    if (pipe)
        return bb_fail(err, BB_ERR_ARGUMENT, "val_data %s: standard input or a pipe can be read only once: give a file",
                       o->val_data);
    bool own = false, validated = true;
    if (o->out_dir && t->resumed_from) BB_TRY(bb_run_dir_contains(o->out_dir, t->resumed_from, &own, err));
    if (own && validation_due(t)) BB_TRY(bb_run_dir_was_validated(o->out_dir, t->state.step, &validated, err));
    t->validate_first = !validated;
    if (t->state.step >= o->steps && validated) return BB_OK;
    bb_byte_source source;
    BB_TRY(bb_byte_source_open(o->val_data, BB_BYTES_HELD_OUT, &source, err));
    bb_byte_source_close(&source);
    return BB_OK;
}

static bb_status log_step(bb_trainer *t, const bb_train_event *e, bb_error *err) {
    bb_status status = log_metrics(t, e, err);
    if (status != BB_OK) t->unlogged = *e;
    t->last_log_time = bb_clock_seconds();
    t->last_log_bytes = t->state.bytes_seen;
    t->all_waits.mean += t->logged_waits.mean;
    t->all_waits.least += t->logged_waits.least;
    t->logged_waits = (struct waits){0};
    return status;
}

/* A failure of rank 0 alone: with several ranks the others learn of it in the next step, which then changes nothing. */
static bb_status fail_later(bb_trainer *t, bb_status status, bb_error *err) {
    if (t->dist->size == 1 || status == BB_OK) return status;
    if (t->failure.code == BB_OK) t->failure = *err;
    return BB_OK;
}

static bb_status loop(bb_trainer *t, bb_dataset *dataset, int64_t end, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    while (s->step < end && !t->stopping && !t->time_is_up) {
        if (t->failure.code != BB_OK && t->dist->size == 1) break; /* several ranks say so in the next step */
        bb_train_event e;
        BB_TRY(train_step(t, dataset, &e, err));
        e.logged = every(s->step, o->log_every) || s->step == o->steps;
        emit(t, &e);
        /* A weight that is not finite leaves no loss that is. */
        if (!isfinite(e.loss)) BB_TRY(check_weights(t, err));
        if (e.logged) BB_TRY(fail_later(t, log_step(t, &e, err), err));
        if (s->skipped_in_a_row >= BB_SKIPPED_IN_A_ROW) return too_many_skipped(t, err);
        if (t->dist->size == 1 && t->stop) t->stopping = true; /* nobody else need know */
        bool save_now = every(s->step, o->save_every) || t->save_asked || t->save_due;
        if (s->step == end || (save_now && s->skipped_in_a_row == 0)) BB_TRY(save(t, err));
        if (validation_due(t)) {
            t->validation_missed = t->stopping || t->time_is_up;
            if (!t->validation_missed) BB_TRY(validate(t, err));
        }
        BB_TRY(poll_saver(t, err));
    }
    return BB_OK;
}

static bb_status run(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    const bb_train_options *o = &t->options;
    bb_training_state *s = &t->state;
    int64_t end = end_of(o);
    bb_dataset_set_sampling(dataset, s->sampling);
    bb_dataset_set_position(dataset, s->samples);
    t->started = t->last_log_time = bb_clock_seconds();
    t->last_log_bytes = s->bytes_seen;
    t->first_step = s->step;
    t->last_save = t->started;
    t->waited = t->ended = 0;
    t->logged_waits = t->all_waits = (struct waits){0};
    t->stopping = t->dist->size == 1 && t->stop;
    t->save_begun = s->step; /* nothing to save before the first step */

    t->validation_missed = t->validate_first;
    if (t->validate_first && !t->stopping) BB_TRY(validate(t, err));
    BB_TRY(loop(t, dataset, end, err));
    BB_TRY(fail_together(t, err));
    BB_TRY(save(t, err));
    if (t->optimizer->dist)
        BB_TRY(bb_weight_exchange_f32(&t->optimizer->exchange, err)); /* the model is whole after training */
    bool done = s->step >= end && !t->validation_missed;
    if (done) t->time_is_up = false;
    if (t->stopping && !done)
        return bb_fail(err, BB_ERR_INTERRUPTED, "stopped at step %lld of %lld", (long long)s->step, (long long)o->steps);
    return BB_OK;
}

/* ---- when an error ends the run -------------------------------------------------------------------------------------- */

/* All ranks, or rank 0 where it holds all of the state, is not amid an update, and the error does not say that the numbers or
 * the disk are bad. */
static bool can_save_after(const bb_trainer *t, bb_status status) {
    bool alone = t->dist->rank == 0 && !t->optimizer->dist;
    return (t->failed_together || alone) && status != BB_ERR_NUMERIC && !t->updating && !t->save_failed && !t->drifted;
}

static void append(bb_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(bb_error *err, const char *fmt, ...) {
    size_t used = strlen(err->message);
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message + used, sizeof err->message - used, fmt, args);
    va_end(args);
}

/* An error ended the run: saves the last good step, and says in err which one is saved. */
static void save_last_good_step(bb_trainer *t, bb_status status, bb_error *err) {
    bb_error unsaved = {.code = BB_OK}, unsaid, unheard = {.code = status};
    if (!err) err = &unheard;
    long long step = (long long)t->state.step;
    bool saves = can_save_after(t, status) && t->save_begun != t->state.step;
    if (saves) unsaved.code = save(t, &unsaved);
    if (unsaved.code == BB_OK) unsaved.code = bb_saver_wait(t->saver, &unsaved);
    if (t->dist->rank == 0 && status != BB_ERR_NUMERIC) { /* those say what to go on from */
        if (saves && unsaved.code == BB_OK)
            append(err, "; step %lld is saved", step);
        else if (saves)
            append(err, "; step %lld could not be saved (%.200s)", step, unsaved.message);
        if (t->newest_saved < step && t->newest_saved >= 0)
            append(err, "; the newest checkpoint is of step %lld", (long long)t->newest_saved);
        else if (t->newest_saved < 0)
            append(err, "; there is no checkpoint");
        if (t->newest_saved == step && t->unlogged.step == step) (void)log_metrics(t, &t->unlogged, &unsaid);
    }
    if (t->failed_together) (void)t->dist->engine->broadcast(t->dist, err, sizeof *err, 0, &unsaid);
}

bb_status bb_trainer_train(bb_trainer *t, bb_dataset *dataset, bb_error *err) {
    BB_REQUIRE("trainer, dataset", t, dataset);
    const char *warning = bb_dataset_get_info(dataset).warning;
    if (warning) notice(t, "%s", warning);
    if (t->dist->size > 1 && dataset->world_size != 1)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "the data set was opened as rank %d of %d: a trainer with ranks takes their parts itself, of a data set "
                       "opened as rank 0 of 1",
                       dataset->rank, dataset->world_size);
    bb_error unsaved;
    bb_status status = bb_dist_agree(t->dist, check_validation(t, err), err);
    if (status == BB_OK) status = learn_from_rank_0(t, &t->validate_first, err);
    if (status != BB_OK) return status;
    if (t->state.step >= t->options.steps && !t->validate_first) {
        notice(t, "nothing to do: %lld steps are done already", (long long)t->state.step);
        return BB_OK;
    }
    if (t->warmup_steps >= t->options.steps)
        notice(t, "the warm-up takes all %lld steps: the learning rate rises to the end and never falls%s",
               (long long)t->options.steps,
               t->options.warmup_steps > t->options.steps ? " (warmup_steps is cut to steps)" : "");
    status = check_data(t, dataset, err);
    if (status == BB_OK) status = open_run_dir(t, err);
    status = bb_dist_agree(t->dist, status, err);
    if (status == BB_OK) status = learn_from_rank_0(t, &t->from_copy, err);
    if (status == BB_OK) status = same_everywhere(t, err);
    if (status == BB_OK) {
        status = run(t, dataset, err);
        if (status != BB_OK && status != BB_ERR_INTERRUPTED && t->options.out_dir) save_last_good_step(t, status, err);
    }
    /* The last checkpoint is on disk, or known not to be, before this returns. What ended the run is said first. */
    bb_status last = bb_saver_wait(t->saver, &unsaved);
    if (last != BB_OK && (status == BB_OK || status == BB_ERR_INTERRUPTED)) status = bb_fail(err, last, "%s", unsaved.message);
    t->ended = bb_clock_seconds();
    bb_saver_free(t->saver);
    t->saver = NULL;
    bb_run_dir_close(&t->run_dir);
    return status;
}
