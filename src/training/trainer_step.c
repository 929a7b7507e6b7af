// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <math.h>

/* Starts the sum of one step's gradients over all ranks. A rank that failed takes part with whatever bytes it has, so that the others
 * do not wait for it; the result is not used. checked: as in bb_gradients_begin. */
static bb_status micro_batches(bb_trainer *t, bb_dataset *dataset, int seq_len, bool *checked, bb_error *err) {
    int batch_size = t->options.batch_size;
    double scale = (t->scaler ? bb_loss_scaler_scale(t->scaler) : 1) / t->micro_run.total;
    bb_train_batch batch = {.x = t->x, .y = t->y, .batch_size = batch_size, .seq_len = seq_len};
    bb_rank_report *own = bb_trainer_report_of(t, t->dist->size);
    BB_TRY(bb_gradients_begin(&t->gradients, checked, err));
    for (int i = 0; i < t->micro_run.count; i++) {
        if (t->failure.code == BB_OK)
            bb_dataset_batch(dataset, batch_size, t->micro_run.total, t->micro_run.first + i, t->x, t->y, &t->failure);
        if (t->failure.code != BB_OK && t->dist->size == 1) return bb_fail(err, t->failure.code, "%s", t->failure.message);
        BB_TRY(bb_gradients_micro(&t->gradients, &batch, scale, err));
    }
    return bb_gradients_losses(&t->gradients, own->losses, err);
}

/* The gradients of one step, summed over all ranks. *loss: as in bb_trainer_exchange_reports. A device is first given all micro-batches of the
 * step without a look at their losses, so that it never waits for the host. If one of them, which is rare, is not finite, all is done
 * again without it. */
static bb_status accumulate(bb_trainer *t, bb_dataset *dataset, int seq_len, double *loss, bb_error *err) {
    bool checked = false;
    BB_TRY(micro_batches(t, dataset, seq_len, &checked, err));
    bb_trainer_report_of(t, t->dist->size)->unchecked = !checked;
    BB_TRY(bb_trainer_exchange_reports(t, loss, err));
    if (!t->spoilt || !isfinite(*loss)) return BB_OK;
    checked = true;
    BB_TRY(micro_batches(t, dataset, seq_len, &checked, err));
    return bb_gradients_finish(&t->gradients, err);
}

static bool loss_is_good(const bb_step_result *r) { return isfinite(r->loss) && r->loss <= r->loss_limit; }

/* Whether the step's gradients are not finite, or would not be: then a smaller loss scale may help. */
static bool overflowed(const bb_step_result *r) { return !isfinite(r->loss) || (loss_is_good(r) && !isfinite(r->grad_norm)); }

static void skip_step(bb_trainer *t, const bb_step_result *r) {
    bb_training_state *s = &t->state;
    bool loss_ok = loss_is_good(r), scaled = t->scaler && t->scaler->enabled;
    const char *what = loss_ok ? "the gradient norm" : "the loss";
    double value = loss_ok ? r->grad_norm : r->loss, limit = loss_ok ? r->norm_limit : r->loss_limit;
    s->skipped_steps++;
    /* A loss scaler skips many steps while it searches its scale. */
    if (!(scaled && overflowed(r) && t->scaler->scale > 1)) s->skipped_in_a_row++;
    if (isfinite(value))
        bb_trainer_notice(t, "step %lld was skipped: %s %.4g is a spike, over %.4g (%lld skipped so far)", (long long)s->step,
                          what, value, limit, (long long)s->skipped_steps);
    else if (scaled)
        bb_trainer_notice(t, "step %lld was skipped: %s is not finite; the loss scale is now %g (%lld skipped so far)",
                          (long long)s->step, what, t->scaler->scale, (long long)s->skipped_steps);
    else
        bb_trainer_notice(t, "step %lld was skipped: %s is not finite (%lld skipped so far)", (long long)s->step, what,
                          (long long)s->skipped_steps);
}

static void record_step_outcome(bb_trainer *t, const bb_step_result *r) {
    bb_training_state *s = &t->state;
    if (!r->applied) {
        skip_step(t, r);
        return;
    }
    s->skipped_in_a_row = 0;
    if (t->options.spike_skip > 0)
        bb_spike_add(&s->spikes, r->loss, r->grad_norm);
    else
        s->spikes.count = 0;
}

bb_status bb_trainer_check_skipped(const bb_trainer *t, bb_error *err) {
    if (t->state.skipped_in_a_row < BB_SKIPPED_IN_A_ROW) return BB_OK;
    return bb_fail(
        err, BB_ERR_NUMERIC,
        "%d steps in a row were skipped, up to step %lld: training will not recover by itself. Nothing was saved "
        "meanwhile; resume from an earlier checkpoint (--resume FILE --out DIR) with a lower --lr, a longer warm-up, a "
        "smaller --grad_clip%s%s",
        BB_SKIPPED_IN_A_ROW, (long long)t->state.step,
        t->options.spike_skip > 0 ? ", or a larger --spike_skip" : ", or --spike_skip 6",
        t->scaler && t->scaler->enabled ? ", or with --dtype bf16, where numbers may be larger" : "");
}

/* Advances the data and the training state to the next step. */
static void advance(bb_trainer *t, bb_dataset *dataset, int seq_len) {
    bb_training_state *s = &t->state;
    bb_dataset_next_step(dataset, t->options.batch_size, t->micro_run.total);
    s->bytes_seen += (int64_t)(bb_dataset_position(dataset) - s->samples) * seq_len;
    s->samples = bb_dataset_position(dataset);
    s->step++;
    s->skipped_micro_batches += t->bad_micro_batches;
    if (seq_len > s->trained_length) t->model->trained_length = s->trained_length = seq_len;
}

bb_status bb_trainer_do_step(bb_trainer *t, bb_dataset *dataset, bb_step_result *r, bb_error *err) {
    BB_DEVICE_SCOPE(t->model->device);
    const bb_train_options *o = &t->options;
    const bb_training_state *s = &t->state;
    double waited_before = bb_dist_wait_seconds(t->dist);
    *r = (bb_step_result){
        .seq_len = bb_train_seq_len(o, s->step), .lr = bb_lr_for_step(&t->lr_plan, s->step), .loss = NAN, .grad_norm = NAN};
    if (t->failure.code == BB_OK && bb_dataset_seq_len(dataset) != r->seq_len)
        bb_dataset_set_seq_len(dataset, r->seq_len, &t->failure);
    BB_TRY(accumulate(t, dataset, r->seq_len, &r->loss, err));

    double loss_scale = t->scaler ? bb_loss_scaler_scale(t->scaler) : 1;
    r->loss_limit = bb_spike_limit(s->spikes.loss, s->spikes.count, o->spike_skip);
    r->norm_limit = bb_spike_limit(s->spikes.grad_norm, s->spikes.count, o->spike_skip);
    bb_optimizer_set_norm_limit(t->optimizer, r->norm_limit);
    bb_saver_wait_snapshot(t->saver);
    t->updating = true;
    if (loss_is_good(r))
        BB_TRY(bb_optimizer_step(t->optimizer, r->lr, o->grad_clip, loss_scale, &r->grad_norm, &r->applied, err));
    t->wait_seconds = bb_dist_wait_seconds(t->dist) - waited_before;
    /* If the loss is a spike, the gradients were not checked. */
    if (r->applied || overflowed(r) || isfinite(r->grad_norm)) bb_loss_scaler_update(t->scaler, overflowed(r));
    advance(t, dataset, r->seq_len);
    t->updating = false;
    record_step_outcome(t, r);
    return BB_OK;
}
