// SPDX-License-Identifier: MIT
#include "training/train_options.h"

#include "core/options.h"
#include "training/lr_scheduler.h"

BB_OPTIONS_DEFAULTS(bb_train_options, .steps = 200000, .warmup_steps = -1, .warmup_frac = 0.03, .lr_min_factor = 0.1,
                    .cooldown_frac = 0.4, .grad_clip = 1.0, .batch_size = 1, .grad_accum = 8, .recompute = true,
                    .log_every = 50, .save_every = 2000, .val_batches = 16);

bb_status bb_train_options_check(const bb_train_options *o, bb_error *err) {
    const struct {
        const char *name;
        int64_t value, min;
    } counts[] = {{"steps", o->steps, 1},
                  {"batch_size", o->batch_size, 1},
                  {"grad_accum", o->grad_accum, 1},
                  {"global_batch", o->global_batch, 0},
                  {"seq_len", o->seq_len, 0},
                  {"seq_len_cap", o->seq_len_cap, 0},
                  {"log_every", o->log_every, 0},
                  {"save_every", o->save_every, 0},
                  {"keep", o->keep, 0},
                  {"keep_every", o->keep_every, 0},
                  {"stop_at", o->stop_at, 0},
                  {"val_every", o->val_every, 0},
                  {"val_batches", o->val_batches, 0},
                  {"val_seq_len", o->val_seq_len, 0},
                  {"patience", o->patience, 0},
                  {"budget_max_steps", o->budget_max_steps, 0},
                  {"warmup_steps", o->warmup_steps, -1}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < counts[i].min)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s %lld must be at least %lld", counts[i].name, (long long)counts[i].value,
                           (long long)counts[i].min);
    if (!(o->warmup_frac >= 0 && o->warmup_frac <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "warmup_frac %g must be from 0 to 1", o->warmup_frac);
    if (!(o->lr_min_factor >= 0 && o->lr_min_factor <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "lr_min_factor %g must be from 0 to 1", o->lr_min_factor);
    if (!(o->cooldown_frac >= 0 && o->cooldown_frac <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "cooldown_frac %g must be from 0 to 1", o->cooldown_frac);
    if (!(o->spike_skip >= 0)) return bb_fail(err, BB_ERR_ARGUMENT, "spike_skip %g must not be negative", o->spike_skip);
    if (!(o->save_minutes >= 0) || !(o->max_minutes >= 0) || !(o->budget_minutes >= 0))
        return bb_fail(err, BB_ERR_ARGUMENT, "save_minutes %g, max_minutes %g and budget_minutes %g must not be negative",
                       o->save_minutes, o->max_minutes, o->budget_minutes);
    if (o->lr_schedule != BB_LR_COSINE && o->lr_schedule != BB_LR_CONSTANT && o->lr_schedule != BB_LR_LINEAR)
        return bb_fail(err, BB_ERR_ARGUMENT, "unknown lr_schedule %d", (int)o->lr_schedule);
    if (o->reduce != BB_REDUCE_FAST && o->reduce != BB_REDUCE_EXACT)
        return bb_fail(err, BB_ERR_ARGUMENT, "unknown reduce %d", (int)o->reduce);
    if (o->save_copy != BB_SAVE_COPY_AUTO && o->save_copy != BB_SAVE_COPY_YES && o->save_copy != BB_SAVE_COPY_NO)
        return bb_fail(err, BB_ERR_ARGUMENT, "save_copy %d is not known", (int)o->save_copy);
    if ((o->budget_minutes > 0 || (o->steps_before && o->steps_before[0])) && o->seq_len == 0)
        return bb_fail(
            err, BB_ERR_ARGUMENT,
            "seq_len is missing: budget_minutes and steps_before change the number of steps, which the curriculum depends on");
    if (o->budget_minutes > 0 && o->steps_before && o->steps_before[0])
        return bb_fail(err, BB_ERR_ARGUMENT, "steps_before is what budget_minutes recorded in another run: give one of them");
    bb_lr_plan ignored;
    BB_TRY(bb_lr_read_changes(&ignored, o->steps_before, err));
    if (!(o->grad_clip >= 0)) return bb_fail(err, BB_ERR_ARGUMENT, "grad_clip %g must not be negative", o->grad_clip);
    return BB_OK;
}
