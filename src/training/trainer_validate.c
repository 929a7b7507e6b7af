// SPDX-License-Identifier: MIT
#include "training/trainer_state.h"

#include <string.h>

bool bb_trainer_validation_due(const bb_trainer *t) {
    const bb_train_options *o = &t->options;
    return o->val_data && t->state.step > 0 && (bb_trainer_is_due(t->state.step, o->val_every) || t->state.step == o->steps);
}

static void on_validation_batch(void *user, int64_t bytes_done, int64_t bytes_total, double bpb) {
    bb_trainer *t = user;
    (void)bytes_done;
    (void)bytes_total;
    (void)bpb;
    if (t->failure.code == BB_OK) bb_trainer_poll_saver(t, &t->failure);
    if (t->failure.code == BB_OK) bb_trainer_poll_ranks(t, BB_VALIDATING, &t->failure);
    if (t->failure.code != BB_OK) t->abandon = 1;
}

/* If validations have not improved for too long, the run ends after this one. */
static void count_patience(bb_trainer *t, bb_train_event *e) {
    bb_val_history *h = &t->history;
    int patience = t->options.patience;
    bool best = bb_val_history_add(h, e->step, e->val_bpb);
    if (patience == 0) return;
    t->is_best = best;
    t->out_of_patience = h->since_best >= patience;
    e->best_step = h->best_step;
    e->patience_left = bb_max(patience - h->since_best, 0);
}

static bb_status report_validation(bb_trainer *t, bb_status status, const bb_eval_result *r, const bb_error *failure,
                                   bb_error *err) {
    long long step = (long long)t->state.step;
    if (status == BB_ERR_INTERRUPTED) {
        bb_trainer_notice(t, "the validation at step %lld was abandoned; resuming the run repeats it", step);
        return BB_OK;
    }
    if (status != BB_OK) {
        t->failed_validations++;
        if (t->options.strict_val) return bb_fail(err, status, "validation at step %lld: %.800s", step, failure->message);
        bb_trainer_notice(t, "the validation at step %lld failed (%lld so far), training continues: %.800s", step,
                          (long long)t->failed_validations, failure->message);
        return BB_OK;
    }
    if (!t->val_shards_noted && r->pattern && strcmp(r->pattern, "shard_*.bin") == 0) {
        t->val_shards_noted = true;
        bb_trainer_notice(
            t,
            "the directory of val_data holds no val_*.bin: its shard_*.bin are scored instead, which may be the training data");
    }
    bb_train_event e = bb_trainer_event(t, BB_TRAIN_VALIDATION);
    e.seq_len = bb_trainer_val_seq_len(&t->options);
    e.val_bpb = r->bpb;
    count_patience(t, &e);
    bb_trainer_emit(t, &e);
    return bb_trainer_log_metrics(t, &e, err);
}

static bb_status validate_on_rank_0(bb_trainer *t, bb_error *err) {
    bb_eval_options o;
    bb_eval_options_default(&o);
    o.seq_len = bb_trainer_val_seq_len(&t->options);
    o.batch_size = t->val_batch;
    o.max_batches = t->options.val_batches;
    o.on_progress = on_validation_batch;
    o.user = t;
    o.stop = &t->abandon;
    bb_eval_result r;
    bb_error failure;
    bb_status status = bb_evaluate(t->model, t->options.val_data, &o, &r, &failure);
    if (t->failure.code != BB_OK)
        return bb_fail(err, t->failure.code, "%s", t->failure.message); /* error of saving, or of the ranks */
    t->failure.code = report_validation(t, status, &r, &failure, &t->failure);
    return bb_trainer_poll_ranks(t, status == BB_ERR_INTERRUPTED ? BB_VALIDATION_ABANDONED : BB_VALIDATED, err);
}

bb_status bb_trainer_validate(bb_trainer *t, bb_error *err) {
    double waited_before = bb_dist_wait_seconds(t->dist), begin = t->clock();
    t->abandon = 0;
    t->is_best = t->out_of_patience = false;
    if (t->dist->rank == 0)
        BB_TRY(validate_on_rank_0(t, err));
    else
        do BB_TRY(bb_trainer_poll_ranks(t, BB_VALIDATING, err));
        while (t->polls[0].stage == BB_VALIDATING);
    t->validation_missed = t->polls[0].stage == BB_VALIDATION_ABANDONED;
    t->out_of_patience = t->polls[0].out_of_patience;
    t->val_seconds = t->clock() - begin;
    if (t->polls[0].is_best) BB_TRY(bb_trainer_save_best(t, err));
    t->wait_seconds += bb_dist_wait_seconds(t->dist) - waited_before;
    return BB_OK;
}
