// SPDX-License-Identifier: MIT
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "training/trainer_state.h"

/* Until it is measured: what a validation takes of a training step's time for as many bytes. */
static const double validation_share = 0.4;

static double validation_seconds(const bb_trainer *t, double step_seconds) {
    const bb_train_options *o = &t->options;
    if (!o->val_data || t->val_seconds > 0) return t->val_seconds;
    int64_t window = bb_trainer_val_seq_len(o), all = o->val_batches * window * t->val_batch,
            bytes = all > 0 && (t->val_bytes == 0 || all < t->val_bytes) ? all : t->val_bytes,
            step_bytes = (int64_t)t->micro_run.total * o->batch_size * bb_train_seq_len(o, t->state.step);
    return validation_share * step_seconds * (double)bytes / (double)step_bytes;
}

static double save_seconds(const bb_trainer *t) {
    return t->budget_save.seconds > 0 ? t->budget_save.seconds : bb_trainer_estimated_save_seconds(t);
}

int64_t bb_trainer_corrected_steps(bb_trainer *t) {
    const bb_train_options *o = &t->options;
    int64_t step = t->state.step;
    if (!(t->budget.seconds > 0)) return 0;
    const bb_budget_times times = {.now = t->clock(), .other = t->other_seconds};
    double step_seconds = bb_budget_step_seconds(&t->budget, step, &times);
    const bb_budget_costs costs = {.validation = validation_seconds(t, step_seconds),
                                   .save = save_seconds(t),
                                   .pause = t->budget_save.pause,
                                   .val_every = o->val_data ? o->val_every : 0,
                                   .save_every = o->out_dir ? o->save_every : 0};
    int64_t steps = bb_budget_steps(&t->budget, step, o->steps, &times, &costs);
    return steps == o->steps ? 0 : steps;
}

/* Returns a copy of a configuration's text with the steps of these options, as a line; NULL if out of memory, or if the text is
 * not an object. The caller frees it. */
static char *with_steps(const char *text, const bb_train_options *o, size_t flags) {
    json_t *object = json_loads(text, 0, NULL);
    char *changed = NULL, *line = NULL;
    if (json_is_object(object) && json_object_set_new(object, "steps", json_integer((json_int_t)o->steps)) == 0 &&
        json_object_set_new(object, "warmup_steps", json_integer((json_int_t)o->warmup_steps)) == 0 &&
        json_object_set_new(object, "steps_before", json_string(o->steps_before)) == 0)
        changed = bb_json_text(object, flags);
    json_decref(object);
    if (changed && asprintf(&line, "%s\n", changed) < 0) line = NULL;
    free(changed);
    return line;
}

static bb_status rewrite(const char **text, char **memory, const bb_train_options *o, size_t flags, bb_error *err) {
    if (!*text) return BB_OK;
    char *changed = with_steps(*text, o, flags);
    if (!changed)
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the configuration with %lld steps", (long long)o->steps);
    free(*memory);
    *text = *memory = changed;
    return BB_OK;
}

bb_status bb_trainer_write_config(const bb_trainer *t, bb_error *err) {
    const bb_train_options *o = &t->options;
    if (!o->run_config_json) return BB_OK;
    char *path = bb_file_join(o->out_dir, "config.json");
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_file_replace(path, o->run_config_json, strlen(o->run_config_json), err);
    free(path);
    return status;
}

/* Adds to options.steps_before that the run had so many steps until the present one. */
static bb_status record_change(bb_trainer *t, int64_t before, bb_error *err) {
    bb_train_options *o = &t->options;
    char *text;
    bool first = !o->steps_before || !o->steps_before[0];
    if (asprintf(&text, "%s%s%lld@%lld", first ? "" : o->steps_before, first ? "" : ",", (long long)before,
                 (long long)t->state.step) < 0)
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the numbers of steps");
    free(t->corrected.steps_before);
    o->steps_before = t->corrected.steps_before = text;
    return BB_OK;
}

bb_status bb_trainer_set_steps(bb_trainer *t, int64_t steps, bb_error *err) {
    bb_train_options *o = &t->options;
    int64_t before = o->steps;
    t->steps_asked = 0;
    if (o->warmup_steps < 0) o->warmup_steps = t->lr_plan.warmup_steps; /* it goes on as it began */
    BB_TRY(record_change(t, before, err));
    o->steps = steps;
    t->lr_plan = bb_train_lr_plan(o, bb_optimizer_lr(t->optimizer));
    BB_TRY(rewrite(&o->checkpoint_config_json, &t->corrected.checkpoint_config, o, JSON_COMPACT, err));
    BB_TRY(rewrite(&o->run_config_json, &t->corrected.run_config, o, JSON_INDENT(2), err));
    if (t->dist->rank != 0) return BB_OK;
    bb_trainer_notice(t, "the run has %lld steps instead of %lld, at the speed measured up to step %lld", (long long)steps,
                      (long long)before, (long long)t->state.step);
    return o->out_dir ? bb_trainer_write_config(t, err) : BB_OK;
}
