// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/host.h"

void bb_trainer_emit(const bb_trainer *t, const bb_train_event *event) {
    if (t->options.on_event && t->dist->rank == 0) t->options.on_event(t->options.user, event);
}

bb_train_event bb_trainer_event(const bb_trainer *t, bb_train_event_kind kind) {
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
                            .grad_norm = NAN,
                            .best_step = -1,
                            .patience_left = -1,
                            .loss_scale = t->scaler && t->scaler->enabled ? t->scaler->scale : 0};
}

void bb_trainer_notice(const bb_trainer *t, const char *fmt, ...) {
    char message[1200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    bb_train_event e = bb_trainer_event(t, BB_TRAIN_NOTICE);
    e.message = message;
    bb_trainer_emit(t, &e);
}

static double fraction(double part, double whole) { return part < whole ? part / whole : whole > 0; }

void bb_trainer_wait_shares(const bb_trainer *t, double *wait_share, double *exposed_share) {
    double span = t ? t->ended - t->started : 0;
    if (wait_share) *wait_share = t ? fraction(t->all_waits.mean + t->logged_waits.mean, span) : 0;
    if (exposed_share) *exposed_share = t ? fraction(t->all_waits.min + t->logged_waits.min, span) : 0;
}

bb_train_event bb_trainer_step_event(const bb_trainer *t, const bb_step_result *r) {
    const bb_training_state *s = &t->state;
    bb_train_event e = bb_trainer_event(t, BB_TRAIN_STEP);
    double span = t->started + e.elapsed_seconds - t->last_log_time;
    e.seq_len = r->seq_len;
    e.loss = r->loss;
    e.bpb = bb_bits_per_byte(r->loss);
    e.lr = r->lr;
    e.grad_norm = r->grad_norm;
    /* up to the previous step: this step's waiting is reported in the next one */
    e.wait_share = fraction(t->logged_waits.mean, span);
    e.exposed_share = fraction(t->logged_waits.min, span);
    e.bytes_per_second = span > 0 ? (double)(s->bytes_seen - t->last_log_bytes) / span : 0;
    e.eta_seconds = e.elapsed_seconds / (double)(s->step - t->first_step) * (double)(t->options.steps - s->step);
    return e;
}

/* Returns null if v is not finite, because JSON has no NaN. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

bb_status bb_trainer_log_metrics(const bb_trainer *t, const bb_train_event *e, bb_error *err) {
    if (!t->run_dir.path) return BB_OK;
    json_t *line =
        e->kind == BB_TRAIN_VALIDATION
            ? json_pack("{s:I, s:o, s:o*, s:o*}", "step", (json_int_t)e->step, "val_bpb", number(e->val_bpb), "best_step",
                        e->best_step < 0 ? NULL : json_integer(e->best_step), "patience_left",
                        e->patience_left < 0 ? NULL : json_integer(e->patience_left))
            : json_pack("{s:I, s:o, s:o, s:f, s:i, s:o, s:I, s:f, s:f, s:I, s:I, s:o*, s:o*, s:o*}", "step",
                        (json_int_t)e->step, "loss", number(e->loss), "bpb", number(e->bpb), "lr", e->lr, "seq_len", e->seq_len,
                        "grad_norm", number(e->grad_norm), "bytes", (json_int_t)e->bytes_seen, "bytes_per_s",
                        e->bytes_per_second, "memory_mb", 1e-6 * (double)bb_host_resident(), "skipped",
                        (json_int_t)e->skipped_steps, "skipped_micro", (json_int_t)e->skipped_micro_batches, "wait_share",
                        t->dist->size > 1 ? json_real(e->wait_share) : NULL, "exposed_share",
                        t->dist->size > 1 ? json_real(e->exposed_share) : NULL, "loss_scale",
                        e->loss_scale > 0 ? json_real(e->loss_scale) : NULL);
    return bb_run_metrics_append(&t->run_dir, line, err);
}

bb_status bb_trainer_log_sample(bb_trainer *t, const char *prompt, const char *sample, bb_error *err) {
    BB_REQUIRE("trainer, prompt, sample", t, prompt, sample);
    if (!t->run_dir.path) return BB_OK;
    json_t *prompt_json = json_string(prompt), *sample_json = json_string(sample);
    if (prompt_json && sample_json)
        return bb_run_metrics_append(
            &t->run_dir,
            json_pack("{s:I, s:o, s:o}", "step", (json_int_t)t->state.step, "prompt", prompt_json, "sample", sample_json), err);
    bool valid = prompt_json && !sample_json;
    json_decref(prompt_json);
    json_decref(sample_json);
    return bb_fail(err, BB_ERR_ARGUMENT, "bb_trainer_log_sample: the %s is not UTF-8", valid ? "sample" : "prompt");
}

bb_status bb_trainer_log_step(bb_trainer *t, const bb_train_event *e, bb_error *err) {
    bb_status status = bb_trainer_log_metrics(t, e, err);
    if (status != BB_OK) t->unlogged_event = *e;
    t->last_log_time = bb_clock_seconds();
    t->last_log_bytes = t->state.bytes_seen;
    t->all_waits.mean += t->logged_waits.mean;
    t->all_waits.min += t->logged_waits.min;
    t->logged_waits = (bb_rank_waits){0};
    return status;
}
