// SPDX-License-Identifier: MIT
/* Training for a given time, by clocks of the test's own: a run ends in time whatever the machine's speed does, its learning rate does not
 * jump, and what is recorded repeats it. */
#include "support.h"

#include <jansson.h>
#include <string.h>

#include "core/file.h"
#include "scratch.h"
#include "tiny_model.h"
#include "training/budget.h"
#include "training/lr_scheduler.h"
#include "training/trainer_state.h"

/* ---- the number of steps, on machines of every kind ---------------------------------------------------------------------- */

/* Seconds of a step that begins so far into the run's time. */
typedef double step_time(double part);

static double steady(double part) {
    (void)part;
    return 0.1;
}
static double slower_at_once(double part) { return part < 0.3 ? 0.05 : 0.2; }
static double faster_at_once(double part) { return part < 0.45 ? 0.3 : 0.06; }
static double much_faster_soon(double part) { return part < 0.06 ? 1 : 0.02; }
static double ever_slower(double part) { return 0.05 * (1 + 3 * part); }
static double up_and_down(double part) { return (int)(part * 7) % 2 ? 0.2 : 0.1; }
static double slower_near_the_end(double part) { return part < 0.9 ? 0.1 : 0.2; }
static double erratic(double part) { /* five times as fast for a twentieth of the time, now and then */
    return (int)(part * 20) % 6 == 3 ? 0.05 : 0.25;
}
static double long_steps(double part) { return part < 0.5 ? 2.1 : 3.5; }

typedef struct simulated {
    double seconds; /* that the run took */
    int64_t steps;
    int corrections;
} simulated;

static simulated simulate(step_time *speed, double seconds, int64_t planned, int64_t max_steps, bb_budget_costs costs) {
    bb_budget b = {.seconds = seconds, .begin = 1000, .max_steps = max_steps};
    simulated s = {.steps = planned};
    double now = b.begin + 1, other = 0;
    bb_budget_begin(&b, 0);
    for (int64_t step = 0; step < s.steps;) {
        now += speed((now - b.begin) / seconds);
        int64_t steps = bb_budget_steps(&b, step, s.steps, &(bb_budget_times){now, other}, &costs);
        assert_true(steps == 0 || steps > step);
        if (steps) {
            s.corrections++;
            s.steps = steps;
        }
        step++;
        bool end = step == s.steps;
        double pause = end || (costs.val_every && step % costs.val_every == 0) ? costs.validation : 0;
        if (end)
            pause += costs.save;
        else if (costs.save_every && step % costs.save_every == 0)
            pause += costs.pause;
        now += pause;
        other += pause;
    }
    s.seconds = now - b.begin;
    return s;
}

static void runs_end_in_time(void **state) {
    (void)state;
    step_time *const machines[] = {steady,           slower_at_once, faster_at_once,
                                   ever_slower,      up_and_down,    slower_near_the_end,
                                   much_faster_soon, erratic,        long_steps};
    static const bb_budget_costs costs[] = {
        {0}, {.validation = 6, .save = 1}, {.validation = 2, .save = 3, .pause = 1, .val_every = 37, .save_every = 100}};
    for (size_t m = 0; m < sizeof machines / sizeof *machines; m++)
        for (size_t c = 0; c < sizeof costs / sizeof *costs; c++)
            for (int64_t planned = 200; planned <= 5000; planned *= 5) { /* the plan may be far off */
                if (planned < 1000 && machines[m] != long_steps) continue;
                simulated s = simulate(machines[m], 180, planned, 0, costs[c]);
                if (!(fabs(s.seconds - 180) <= 18) || s.corrections < 3) {
                    print_error("machine %zu, costs %zu, %lld steps planned: %lld steps in %g s with %d corrections\n", m, c,
                                (long long)planned, (long long)s.steps, s.seconds, s.corrections);
                    fail();
                }
            }
}

static void a_limit_of_steps_holds(void **state) {
    (void)state;
    simulated s = simulate(steady, 180, 500, 900, (bb_budget_costs){0});
    assert_int_equal(s.steps, 900);
    s = simulate(slower_at_once, 180, 2000, 2000, (bb_budget_costs){0}); /* but not where the time ends before it does */
    assert_true(s.steps < 2000 && fabs(s.seconds - 180) <= 18);
    assert_int_equal(simulate(steady, 0, 500, 0, (bb_budget_costs){0}).corrections, 0);
}

/* ---- a schedule whose number of steps changes ---------------------------------------------------------------------------- */

static bb_lr_plan plan_of(int64_t steps, const char *before, bb_lr_schedule schedule) {
    bb_train_options o;
    bb_train_options_default(&o);
    o.steps = steps;
    o.seq_len = 16;
    o.warmup_frac = 0.1;
    o.lr_min_factor = 0;
    o.lr_schedule = schedule;
    o.steps_before = before;
    return bb_train_lr_plan(&o, 1);
}

static void close_to(double a, double b) {
    if (!(fabs(a - b) <= 1e-12)) {
        print_error("%.17g is not %.17g\n", a, b);
        fail();
    }
}

static void schedules_stretch_and_shrink(void **state) {
    (void)state;
    bb_lr_plan first = plan_of(1000, NULL, BB_LR_COSINE), longer = plan_of(2200, "1000@200", BB_LR_COSINE),
               twice = plan_of(1200, "1000@200,2200@700", BB_LR_COSINE);
    for (int64_t step = 0; step <= 200; step++) assert_true(bb_lr_for_step(&longer, step) == bb_lr_for_step(&first, step));
    for (int64_t step = 0; step <= 800; step += 2) /* 2000 steps for what 800 were for */
        close_to(bb_lr_for_step(&longer, 200 + step / 2 * 5), bb_lr_for_step(&first, 200 + step));
    close_to(bb_lr_for_step(&longer, 1200), bb_lr_for_step(&first, 600));
    close_to(bb_lr_for_step(&longer, 2200), 0);
    for (int64_t step = 0; step <= 700; step++) assert_true(bb_lr_for_step(&twice, step) == bb_lr_for_step(&longer, step));
    close_to(bb_lr_for_step(&twice, 950), bb_lr_for_step(&longer, 1450)); /* half of the rest */
    close_to(bb_lr_for_step(&twice, 1200), 0);
    close_to(bb_lr_for_step(&twice, 5000), 0);
    /* the warm-up and the cooldown move with it */
    bb_lr_plan early = plan_of(1950, "1000@50", BB_LR_LINEAR), linear = plan_of(1000, NULL, BB_LR_LINEAR);
    assert_int_equal(early.warmup_steps, 100);
    close_to(bb_lr_for_step(&early, 50), bb_lr_for_step(&linear, 50));
    close_to(bb_lr_for_step(&early, 50 + 2 * 25), bb_lr_for_step(&linear, 75));
    close_to(bb_lr_for_step(&early, 50 + 2 * 500), 1);
    close_to(bb_lr_for_step(&early, 50 + 2 * 750), bb_lr_for_step(&linear, 800));
    double last = 0;
    for (int64_t step = 0; step < 1950; step++) { /* no jump: not even at the end of the warm-up, between two positions */
        double lr = bb_lr_for_step(&early, step);
        assert_true(lr <= 1 && fabs(lr - last) <= 0.0101);
        last = lr;
    }
}

static void what_is_no_list_of_steps_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "x",          "10",
        "10@",        "10@5,",
        "10@5,,20@7", "10@5;20@7",
        "10@5,20@5",  "10@0",
        "10@11",      "-3@-5",
        "10@5x",      "99@1,99@2,99@3,99@4,99@5,99@6,99@7,99@8,99@9,99@10,99@11,99@12,99@13,99@14,99@15,99@16,99@17"};
    bb_lr_plan plan = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(bb_lr_read_changes(&plan, wrong[i], &test_error), BB_ERR_ARGUMENT, "steps_before '");
    assert_ok(bb_lr_read_changes(&plan, "10@5,20@7", &test_error));
    assert_int_equal(plan.changes, 2);
    assert_true(plan.before[1].steps == 20 && plan.before[1].until == 7);
    assert_ok(bb_lr_read_changes(&plan, "", &test_error));
    assert_int_equal(plan.changes, 0);
}

/* ---- a run --------------------------------------------------------------------------------------------------------------- */

enum { MAX_STEPS = 2000 };
typedef struct recorded {
    double lr[MAX_STEPS], loss[MAX_STEPS];
    int64_t steps;
    int64_t config_steps, warmup_steps; /* of config.json at the end of the run */
    char steps_before[400];
} recorded;

static double fake_now;
static double fake_clock(void) { return fake_now; }

/* A machine that is a little slower soon, and three times slower from the middle of the time on. */
static void on_event(void *user, const bb_train_event *e) {
    recorded *r = user;
    if (e->kind != BB_TRAIN_STEP) return;
    fake_now += fake_now < 8 ? 0.08 : fake_now < 30 ? 0.1 : 0.3;
    assert_true(e->step <= MAX_STEPS);
    r->lr[e->step - 1] = e->lr;
    r->loss[e->step - 1] = e->loss;
    r->steps = e->step;
}

static bb_train_options options_for(const char *out, recorded *run) {
    bb_train_options o;
    bb_train_options_default(&o);
    o.steps = 800;
    o.warmup_frac = 0.03;
    o.lr_min_factor = 0;
    o.seq_len = 8;
    o.batch_size = 1;
    o.grad_accum = 1;
    o.log_every = 0;
    o.save_every = 40;
    o.save_sync = true; /* so that no clock but the test's matters */
    o.out_dir = scratch_path(out);
    o.run_config_json = o.checkpoint_config_json = "{\"steps\": 800}";
    o.on_event = on_event;
    o.user = run;
    return o;
}

/* Reads what a configuration has of steps, and returns how many changes it records. */
static int read_config(const char *text, recorded *r) {
    json_t *config = json_loads(text, 0, NULL);
    const char *before = json_string_value(json_object_get(config, "steps_before"));
    r->config_steps = json_integer_value(json_object_get(config, "steps"));
    r->warmup_steps = json_integer_value(json_object_get(config, "warmup_steps"));
    assert_true(snprintf(r->steps_before, sizeof r->steps_before, "%s", before ? before : "") < (int)sizeof r->steps_before);
    json_decref(config);
    int changes = 0;
    for (const char *at = r->steps_before; *at; at++) changes += *at == '@';
    return changes;
}

typedef struct job {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_trainer *trainer;
    bb_dataset *dataset;
} job;

static job open_job(const bb_train_options *o) {
    job j;
    char text[3000];
    bb_optimizer_options optimizer_options;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i * i % 23 % 7);
    assert_true(scratch_write(scratch_path("text"), text, sizeof text));
    bb_optimizer_options_default(&optimizer_options);
    optimizer_options.lr = 0.01;
    assert_ok(bb_device_open("cpu", 1, &j.device, &test_error));
    assert_ok(bb_model_create(j.device, &tiny, 3, &j.model, &test_error));
    assert_ok(bb_optimizer_create(j.model, &optimizer_options, &j.optimizer, &test_error));
    assert_ok(bb_trainer_create(j.model, j.optimizer, NULL, o, &j.trainer, &test_error));
    assert_ok(bb_byte_shard_dataset_open(scratch_path("text"), 8, 1, 0, 1, &j.dataset, &test_error));
    fake_now = 0;
    j.trainer->clock = fake_clock;
    j.trainer->created = j.trainer->budget.begin = 0;
    return j;
}

static void close_job(job *j) {
    bb_dataset_close(j->dataset);
    bb_trainer_free(j->trainer);
    bb_optimizer_free(j->optimizer);
    bb_model_free(j->model);
    bb_device_close(j->device);
}

/* resume: a checkpoint, or NULL */
static void train(const bb_train_options *o, const char *resume) {
    job j = open_job(o);
    if (resume) assert_ok(bb_trainer_resume(j.trainer, resume, true, &test_error));
    assert_ok(bb_trainer_train(j.trainer, j.dataset, &test_error));
    close_job(&j);
}

static void same_steps(const recorded *a, const recorded *b, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
        if (!(a->lr[i] == b->lr[i] && a->loss[i] == b->loss[i])) {
            print_error("step %lld: lr %.17g, loss %.17g; should be %.17g, %.17g\n", (long long)i + 1, a->lr[i], a->loss[i],
                        b->lr[i], b->loss[i]);
            fail();
        }
}

static void a_run_keeps_to_its_time_and_can_be_repeated(void **state) {
    (void)state;
    char path[600];
    static recorded run, repeated, resumed, continued;
    uint8_t *config;
    size_t size;
    bb_train_options o = options_for("run", &run);
    o.budget_minutes = 1;
    train(&o, NULL);
    assert_true(fabs(fake_now - 60) <= 6);
    assert_true(run.steps > 300 && run.steps < 500); /* 320 in the first half of the time, 100 in the second */
    snprintf(path, sizeof path, "%s/config.json", o.out_dir);
    assert_ok(bb_file_read_all(path, 1 << 20, &config, &size, &test_error));
    assert_true(read_config((const char *)config, &run) >= 4);
    free(config);
    assert_int_equal(run.config_steps, run.steps);
    for (int64_t i = 1; i < run.steps; i++) assert_true(fabs(run.lr[i] - run.lr[i - 1]) <= 0.01 / 20);
    assert_true(run.lr[run.steps - 1] < 1e-5);

    /* the recorded options alone give the same run on any machine */
    bb_train_options again = options_for("repeated", &repeated);
    again.steps = run.config_steps;
    again.warmup_steps = run.warmup_steps;
    again.steps_before = run.steps_before;
    train(&again, NULL);
    assert_int_equal(repeated.steps, run.steps);
    same_steps(&repeated, &run, 0, run.steps);

    /* killed at the end and resumed from a checkpoint between two corrections: the later ones happen again at the same steps */
    again = options_for("resumed", &resumed);
    again.steps = run.config_steps;
    again.warmup_steps = run.warmup_steps;
    again.steps_before = run.steps_before;
    snprintf(path, sizeof path, "%s/step-00000240.safetensors", scratch_path("run"));
    train(&again, path);
    assert_int_equal(resumed.steps, run.steps);
    same_steps(&resumed, &run, 240, run.steps);

    /* that checkpoint's own configuration knows the corrections before it, and leads to their end */
    char *of_checkpoint;
    assert_ok(bb_checkpoint_config(path, &of_checkpoint, &test_error));
    assert_int_equal(read_config(of_checkpoint, &continued), 2);
    bb_string_free(of_checkpoint);
    again = options_for("continued", &continued);
    again.steps = continued.config_steps;
    again.warmup_steps = continued.warmup_steps;
    again.steps_before = continued.steps_before;
    train(&again, path);
    assert_int_equal(continued.steps, continued.config_steps);
    same_steps(&continued, &run, 240, 300); /* the next correction of the run was later */
    assert_true(continued.lr[continued.steps - 1] < 1e-5);
}

/* ---- saves --------------------------------------------------------------------------------------------------------------- */

/* Steps take no time, but after the fifth there is less of it left than for the first save, of more than 200 bytes. */
static void nearly_late(void *user, const bb_train_event *e) {
    if (e->kind != BB_TRAIN_STEP) return;
    *(int64_t *)user = e->step;
    if (e->step == 5) fake_now = 60 - 200 / 200e6;
}

static void there_is_time_for_the_first_save(void **state) {
    (void)state;
    int64_t steps = 0;
    bb_train_options o = options_for("limited", NULL);
    o.steps = 20;
    o.max_minutes = 1;
    o.on_event = nearly_late;
    o.user = &steps;
    train(&o, NULL);
    assert_int_equal(steps, 6);
}

typedef struct timed_saves {
    const bb_trainer *trainer;
    double seconds[3]; /* by step */
} timed_saves;

static void note_seconds(void *user, const bb_train_event *e) {
    timed_saves *s = user;
    if (e->kind == BB_TRAIN_SAVED) s->seconds[e->step] = s->trainer->budget_save.seconds;
}

/* A save that the next one waits for took the time since its own beginning. */
static void a_save_that_is_waited_for_is_timed(void **state) {
    (void)state;
    timed_saves saves = {0};
    bb_train_options o = options_for("timed", NULL);
    o.save_sync = false;
    o.save_copy = BB_SAVE_COPY_YES;
    o.on_event = note_seconds;
    o.user = &saves;
    job j = open_job(&o);
    bb_trainer *t = j.trainer;
    saves.trainer = t;
    assert_ok(bb_trainer_open_run_dir(t, &test_error));
    for (t->state.step = 1; t->state.step <= 2; t->state.step++) {
        assert_ok(bb_trainer_save(t, &test_error));
        fake_now += t->state.step == 1 ? 5 : 3;
    }
    assert_ok(bb_saver_wait(t->saver, &test_error));
    assert_true(saves.seconds[1] == 5 && saves.seconds[2] == 3);
    bb_saver_free(t->saver);
    bb_run_dir_close(&t->run_dir);
    close_job(&j);
}

static void the_curriculum_is_refused(void **state) {
    (void)state;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_device *device;
    bb_optimizer_options optimizer_options;
    bb_trainer *trainer;
    bb_train_options o = options_for("none", NULL);
    o.seq_len = 0;
    o.seq_len_cap = 8;
    o.budget_minutes = 1;
    bb_optimizer_options_default(&optimizer_options);
    assert_ok(bb_device_open("cpu", 1, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
    assert_ok(bb_optimizer_create(model, &optimizer_options, &optimizer, &test_error));
    assert_fails(bb_trainer_create(model, optimizer, NULL, &o, &trainer, &test_error), BB_ERR_ARGUMENT, "seq_len is missing");
    o.budget_minutes = 0;
    o.steps_before = "900@5";
    assert_fails(bb_trainer_create(model, optimizer, NULL, &o, &trainer, &test_error), BB_ERR_ARGUMENT, "seq_len is missing");
    o.seq_len = 8;
    o.budget_minutes = 1;
    assert_fails(bb_trainer_create(model, optimizer, NULL, &o, &trainer, &test_error), BB_ERR_ARGUMENT, "give one of them");
    o.budget_minutes = 0;
    o.steps_before = "900";
    assert_fails(bb_trainer_create(model, optimizer, NULL, &o, &trainer, &test_error), BB_ERR_ARGUMENT, "steps_before '900'");
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_end_in_time),
                                       cmocka_unit_test(a_limit_of_steps_holds),
                                       cmocka_unit_test(schedules_stretch_and_shrink),
                                       cmocka_unit_test(what_is_no_list_of_steps_is_refused),
                                       cmocka_unit_test(a_run_keeps_to_its_time_and_can_be_repeated),
                                       cmocka_unit_test(there_is_time_for_the_first_save),
                                       cmocka_unit_test(a_save_that_is_waited_for_is_timed),
                                       cmocka_unit_test(the_curriculum_is_refused)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
