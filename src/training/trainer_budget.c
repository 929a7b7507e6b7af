// SPDX-License-Identifier: MIT
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"
#include "training/trainer_state.h"

/* The speed is taken after this part of the time, and this many steps, without the first ones. */
static const double corrected_after = 0.05;
enum { MIN_TIMED_STEPS = 5, UNTIMED_STEPS = 2 };
/* What is left for the last checkpoint and validation. */
static const double used_for_steps = 0.99;

int64_t bb_trainer_corrected_steps(bb_trainer *t) {
    const bb_train_options *o = &t->options;
    bb_budget *b = &t->budget;
    int64_t step = t->state.step;
    double now = bb_clock_seconds(), seconds = 60 * o->budget_minutes;
    if (!(seconds > 0) || b->corrected || step < t->first_step + UNTIMED_STEPS) return 0;
    if (b->first_timed_step < 0) {
        b->first_timed_step = step;
        b->first_time = now;
        return 0;
    }
    int64_t timed = step - b->first_timed_step;
    if (now - t->created < corrected_after * seconds || timed < MIN_TIMED_STEPS) return 0;
    b->corrected = true;
    double left = used_for_steps * seconds - (now - t->created), per_step = (now - b->first_time) / (double)timed;
    int64_t steps = step + (int64_t)(left / per_step);
    return bb_max(steps, step + 1);
}

/* A copy of a configuration's text with the steps of these options, as a line; NULL: out of memory, or the text is no object. free()
 * it. */
static char *with_steps(const char *text, const bb_train_options *o, size_t flags) {
    json_t *object = json_loads(text, 0, NULL);
    char *changed = NULL, *line = NULL;
    if (json_is_object(object) && json_object_set_new(object, "steps", json_integer((json_int_t)o->steps)) == 0 &&
        json_object_set_new(object, "warmup_steps", json_integer((json_int_t)o->warmup_steps)) == 0)
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

bb_status bb_trainer_set_steps(bb_trainer *t, int64_t steps, bb_error *err) {
    bb_train_options *o = &t->options;
    int64_t before = o->steps;
    t->steps_asked = 0;
    t->budget.corrected = true;
    if (o->warmup_steps < 0) o->warmup_steps = t->lr_plan.warmup_steps; /* it goes on as it began */
    o->steps = steps;
    t->lr_plan = bb_train_lr_plan(o, bb_optimizer_lr(t->optimizer));
    BB_TRY(rewrite(&o->checkpoint_config_json, &t->budget.checkpoint_config, o, JSON_COMPACT, err));
    BB_TRY(rewrite(&o->run_config_json, &t->budget.run_config, o, JSON_INDENT(2), err));
    if (t->dist->rank != 0) return BB_OK;
    bb_trainer_notice(t, "the run has %lld steps instead of %lld, at the speed of its first %lld steps", (long long)steps,
                      (long long)before, (long long)t->state.step);
    return o->out_dir ? bb_trainer_write_config(t, err) : BB_OK;
}
