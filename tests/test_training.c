// SPDX-License-Identifier: MIT
/* Training runs: the same bits when repeated, with any number of threads, and across a stop and a resume; bad steps; the 8-bit
 * optimizer. */
#include "support.h"

#include "core/rng.h"
#include "scratch.h"
#include "tiny_model.h"

enum { LAST_STEPS = 50 };

typedef struct run {
    const char *device, *name, *data; /* data NULL: text_path() */
    int threads;
    bb_optimizer_kind kind;
    bool recompute;
    int64_t steps, stop_at;
    const char *resume;
    int seq_len, seq_len_cap, batch_size, grad_accum, val_every, save_every, keep;
    int keep_every, poison_at; /* poison_at: after this step the weights give no finite loss; 0: never */
    double spike_skip;
    bb_model *model;
    bool no_opt_state, allow_overwrite, save_sync, strict_val, val_by_default;
    int val_length;                   /* of the newest validation */
    const char *val_data;             /* NULL: text_path() */
    void (*after_step)(int64_t step); /* may be NULL */
    void (*after_validation)(int64_t step);
    bool (*stops_after)(int64_t step); /* a stop is requested; may be NULL */
    bb_trainer *trainer;
    int64_t failed_validations;
    char notice[1200]; /* the newest */
    bb_save_copy save_copy;
    double lr;
    double last_loss; /* mean of the last LAST_STEPS steps */
    int losses, validations, saves;
    double loss_sum, first_loss; /* first_loss: of the first step of this call */
} run;

static void on_event(void *user, const bb_train_event *e) {
    run *r = user;
    if (e->kind == BB_TRAIN_STEP && !(r->first_loss > 0)) r->first_loss = e->loss;
    if (e->kind == BB_TRAIN_STEP && e->step > e->total_steps - LAST_STEPS) {
        r->loss_sum += e->loss;
        r->last_loss = r->loss_sum / ++r->losses;
    }
    if (e->kind == BB_TRAIN_VALIDATION) {
        assert_true(e->val_bpb > 0 && e->val_bpb < 20);
        r->validations++;
        r->val_length = e->seq_len;
        if (r->after_validation) r->after_validation(e->step);
    }
    if (e->kind == BB_TRAIN_SAVED) r->saves++;
    if (e->kind == BB_TRAIN_NOTICE) snprintf(r->notice, sizeof r->notice, "%s", e->message);
    if (e->kind == BB_TRAIN_STEP && r->after_step) r->after_step(e->step);
    if (e->kind == BB_TRAIN_STEP && r->stops_after && r->stops_after(e->step)) bb_trainer_request_stop(r->trainer);
    if (e->kind == BB_TRAIN_SAVED && r->poison_at && e->step == r->poison_at) {
        float huge[48];
        for (int i = 0; i < 48; i++) huge[i] = 3e38f;
        assert_ok(bb_model_set_tensor(r->model, "norm_f.weight", huge, 48, &test_error));
    }
}

static const char *text_path(void) { return scratch_path("text.txt"); }

/* Lines that are alike and never the same, 150 KB: enough for runs that are compared with each other. */
static int write_text(void **state) {
    if (scratch_create(state) != 0) return -1;
    FILE *f = fopen(text_path(), "wb");
    if (!f) return -1;
    static const char *const nouns[] = {"weight", "byte", "model", "river", "letter", "scale", "garden", "window"};
    static const char *const verbs[] = {"carries", "follows", "rounds", "learns", "opens", "measures", "forgets"};
    for (int i = 0; i < 2500; i++)
        fprintf(f, "%d. The %s %s a %s, and the %s %s what the %s gave.\n", i, nouns[i % 8], verbs[i * 3 % 7], nouns[i * 5 % 8],
                nouns[(i + 3) % 8], verbs[(i + i / 7) % 7], nouns[(i / 3) % 8]);
    return fclose(f);
}

static bb_status train(run *r, bb_error *err) {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_dataset *data;
    bb_trainer *trainer;
    bb_optimizer_options oo;
    bb_train_options to;
    char out[512];
    assert_ok(bb_device_open(r->device, r->threads, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
    bb_optimizer_options_default(&oo);
    oo.kind = r->kind;
    oo.lr = r->lr > 0 ? r->lr : 3e-3;
    assert_ok(bb_optimizer_create(model, &oo, &optimizer, &test_error));
    assert_true(bb_optimizer_is_8bit(optimizer) == (r->kind == BB_OPTIM_ADAMW8BIT));
    bb_train_options_default(&to);
    snprintf(out, sizeof out, "%s", scratch_path(r->name));
    to.out_dir = out;
    to.steps = r->steps;
    to.stop_at = r->stop_at;
    to.seq_len = r->seq_len;
    to.seq_len_cap = r->seq_len_cap;
    to.batch_size = r->batch_size ? r->batch_size : 2;
    to.grad_accum = r->grad_accum ? r->grad_accum : 2;
    to.recompute = r->recompute;
    to.log_every = 5;
    to.save_every = r->save_every;
    to.keep = r->keep;
    to.keep_every = r->keep_every;
    to.save_sync = r->save_sync || r->poison_at; /* a save is then reported before the next step */
    to.save_copy = r->save_copy;
    to.spike_skip = r->spike_skip;
    r->model = model;
    to.allow_overwrite = r->allow_overwrite;
    to.on_event = on_event;
    to.user = r;
    if (r->val_every) {
        to.val_data = r->val_data ? r->val_data : text_path();
        to.strict_val = r->strict_val;
        to.val_every = r->val_every;
        to.val_batches = 2;
        to.val_seq_len = r->val_by_default ? 0 : 96;
    }
    assert_ok(
        bb_byte_shard_dataset_open(r->data ? r->data : text_path(), r->seq_len ? r->seq_len : 64, 5, 0, 1, &data, &test_error));
    bb_status status = bb_trainer_create(model, optimizer, NULL, &to, &trainer, err);
    if (status == BB_OK && r->resume) status = bb_trainer_resume(trainer, r->resume, !r->no_opt_state, err);
    r->trainer = trainer;
    if (status == BB_OK) status = bb_trainer_train(trainer, data, err);
    if (trainer) r->failed_validations = bb_trainer_failed_validations(trainer);
    bb_trainer_free(trainer);
    bb_dataset_close(data);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
    return status;
}

static void assert_same_checkpoint(const char *a, const char *b, int step) {
    char name[2][256];
    const char *dirs[] = {a, b};
    uint8_t *data[2];
    long size[2];
    for (int i = 0; i < 2; i++) {
        snprintf(name[i], sizeof name[i], "%s/step-%08d.safetensors", dirs[i], step);
        FILE *f = fopen(scratch_path(name[i]), "rb");
        if (!f) print_error("no %s\n", name[i]);
        assert_non_null(f);
        fseek(f, 0, SEEK_END);
        size[i] = ftell(f);
        rewind(f);
        data[i] = malloc((size_t)size[i]);
        assert_int_equal(fread(data[i], 1, (size_t)size[i], f), size[i]);
        fclose(f);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(data[0], data[1], (size_t)size[0]);
    free(data[0]);
    free(data[1]);
}

static const run base = {
    .device = "cpu", .threads = 1, .kind = BB_OPTIM_ADAMW8BIT, .recompute = true, .steps = 12, .seq_len = 64};

static void threads_and_recompute_change_nothing(void **state) {
    (void)state;
    run one = base, two = base, again = base, all = base;
    one.name = "one";
    two.name = "two";
    two.threads = 2;
    again.name = "again";
    again.threads = 3;
    all.name = "all";
    all.recompute = false;
    assert_ok(train(&one, &test_error));
    assert_ok(train(&two, &test_error));
    assert_ok(train(&again, &test_error));
    assert_ok(train(&all, &test_error));
    assert_same_checkpoint("one", "two", 12);
    assert_same_checkpoint("one", "again", 12);
    assert_same_checkpoint("one", "all", 12);
}

/* 30 steps = 12, stop, resume, 18, with validation on. */
static void check_resume(const char *device, bb_optimizer_kind kind, const char *name) {
    char straight[64], parts[64];
    snprintf(straight, sizeof straight, "straight-%s", name);
    snprintf(parts, sizeof parts, "parts-%s", name);
    run a = base;
    a.device = device;
    a.kind = kind;
    a.steps = 30;
    a.val_every = 7;
    a.name = straight;
    run b = a;
    b.name = parts;
    b.stop_at = 12;
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.validations, 5);
    assert_ok(train(&b, &test_error));
    run c = b;
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path(parts));
    c.stop_at = 0;
    c.resume = dir;
    c.threads = 2;
    assert_ok(train(&c, &test_error));
    assert_same_checkpoint(straight, parts, 30);
}

static void a_resumed_run_ends_with_the_same_bits(void **state) {
    (void)state;
    check_resume("cpu", BB_OPTIM_ADAMW8BIT, "cpu8");
    check_resume("cpu", BB_OPTIM_ADAMW, "cpu32");
    check_resume("cpu", BB_OPTIM_MUON, "cpu_muon");
    check_resume("ref", BB_OPTIM_ADAMW8BIT, "ref8");
}

/* The curriculum goes from 2048 to its cap while the run is stopped and resumed around the change. */
static void a_curriculum_resumes(void **state) {
    (void)state;
    run a = base;
    a.seq_len = 0;
    a.seq_len_cap = 2100;
    a.batch_size = a.grad_accum = 1;
    a.steps = 30;
    a.name = "curriculum";
    run b = a;
    b.name = "curriculum-parts";
    b.stop_at = 6;
    assert_ok(train(&a, &test_error));
    assert_ok(train(&b, &test_error));
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("curriculum-parts"));
    run c = b;
    c.stop_at = 12;
    c.resume = dir;
    assert_ok(train(&c, &test_error));
    c.stop_at = 0;
    assert_ok(train(&c, &test_error));
    assert_same_checkpoint("curriculum", "curriculum-parts", 30);
}

/* Replaces `from` by `to`, of the same length, in a small file. */
static void edit_file(const char *path, const char *from, const char *to) {
    static char bytes[1 << 20];
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    size_t size = fread(bytes, 1, sizeof bytes, f);
    char *at = memmem(bytes, size, from, strlen(from));
    if (!at) fail_msg("%s has no %s", path, from);
    assert_int_equal(strlen(from), strlen(to));
    assert_int_equal(fseek(f, at - bytes, SEEK_SET), 0);
    assert_int_equal(fwrite(to, 1, strlen(to), f), strlen(to));
    assert_int_equal(fclose(f), 0);
}

/* A checkpoint from before there were epochs goes on in its order, with replacement, and so do those after it. */
static void old_checkpoints_keep_their_order_of_data(void **state) {
    (void)state;
    enum { T = 64, ROWS = 4 };
    run a = base;
    a.name = "old";
    a.stop_at = 6;
    assert_ok(train(&a, &test_error));
    char path[512], dir[512];
    snprintf(path, sizeof path, "%s", scratch_path("old/step-00000006.safetensors"));
    snprintf(dir, sizeof dir, "%s", scratch_path("old"));
    edit_file(path, "\\\"sampling\\\":\\\"epochs\\\",", "                        ");
    edit_file(path, "\"tensor_xxh3\"", "\"tensor_old3\""); /* that version had no checksums either */

    bb_device *device;
    bb_model *model;
    uint8_t x[ROWS * T], y[ROWS * T];
    static uint8_t text[1 << 18];
    FILE *f = fopen(text_path(), "rb");
    assert_non_null(f);
    size_t size = fread(text, 1, sizeof text, f);
    (void)fclose(f);
    double losses[2];
    assert_ok(bb_device_open("cpu", 1, &device, &test_error));
    for (int pass = 0; pass < 2; pass++) { /* steps 7 and 8 */
        for (uint64_t row = 0; row < ROWS; row++) {
            uint64_t at = bb_rng_below(5, BB_STREAM_DATA, (6 + (uint64_t)pass) * ROWS + row, size - T);
            memcpy(x + row * T, text + at, T);
            memcpy(y + row * T, text + at + 1, T);
        }
        run b = a;
        b.resume = dir;
        b.stop_at = 7 + pass;
        assert_ok(bb_model_load(device, pass ? scratch_path("old/step-00000007.safetensors") : path, &model, &test_error));
        assert_ok(bb_model_loss(model, &(bb_train_batch){x, y, ROWS, T}, &losses[pass], &test_error));
        bb_model_free(model);
        b.first_loss = 0;
        assert_ok(train(&b, &test_error));
        /* attention in training rounds to int8 on some processors, in bb_model_loss nowhere */
        if (fabs(b.first_loss - losses[pass]) > 2e-3) fail_msg("step %d: %g, not %g", 7 + pass, b.first_loss, losses[pass]);
    }
    assert_true(fabs(losses[0] - losses[1]) > 2e-2); /* so other bytes would have been seen */
    bb_device_close(device);
}

static void a_run_resumes_without_moments(void **state) {
    (void)state;
    run a = base, b = base;
    char file[512];
    a.name = "moments";
    assert_ok(train(&a, &test_error));
    snprintf(file, sizeof file, "%s/step-00000012.safetensors", scratch_path("moments"));
    b.name = "other-optimizer";
    b.kind = BB_OPTIM_ADAMW;
    b.steps = 20;
    b.resume = file;
    assert_fails(train(&b, &test_error), BB_ERR_ARGUMENT, "'adamw8bit', this run's is 'adamw'");
    b.no_opt_state = true;
    assert_ok(train(&b, &test_error));
    assert_int_equal(scratch_count_entries(scratch_path("other-optimizer")), 3); /* metrics, latest, step 20 */
}

static void a_run_directory_keeps_what_it_should(void **state) {
    (void)state;
    char path[4096], dir[512];
    run a = base;
    a.name = "kept";
    a.save_every = 2;
    a.keep = 3;
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.saves, 6);
    snprintf(dir, sizeof dir, "%s", scratch_path("kept"));
    assert_int_equal(scratch_count_entries(dir), 5); /* three checkpoints, latest, metrics.jsonl */
    assert_true(scratch_holds(scratch_path("kept/latest"), "step-00000012.safetensors\n", 26));
    assert_ok(bb_run_latest_checkpoint(dir, path, sizeof path, &test_error));
    assert_non_null(strstr(path, "/step-00000012.safetensors"));
    assert_fails(bb_run_latest_checkpoint(scratch_path("nowhere"), path, sizeof path, &test_error), BB_ERR_IO, "nowhere");

    run b = a;
    assert_fails(train(&b, &test_error), BB_ERR_ARGUMENT, "holds checkpoints of another run");
    /* going on from an older checkpoint would overwrite the newer ones */
    snprintf(path, sizeof path, "%s/step-00000008.safetensors", dir);
    b.resume = path;
    assert_fails(train(&b, &test_error), BB_ERR_ARGUMENT, "up to step 12, later than step 8");
    b.allow_overwrite = true;
    b.stop_at = 10;
    assert_ok(train(&b, &test_error));
    assert_true(scratch_holds(scratch_path("kept/latest"), "step-00000010.safetensors\n", 26));
    run c = a;
    c.allow_overwrite = true;
    c.saves = 0;
    assert_ok(train(&c, &test_error));
    assert_int_equal(c.saves, 6);

    /* written while training goes on, without a copy, they are the same */
    run e = a;
    e.name = "read";
    e.save_copy = BB_SAVE_COPY_NO;
    assert_ok(train(&e, &test_error));
    assert_same_checkpoint("kept", "read", 12);

    /* steps 4 and 8 stay for ever; written while training waits, they are the same */
    run d = a;
    d.name = "every";
    d.keep = 1;
    d.keep_every = 4;
    d.save_sync = true;
    assert_ok(train(&d, &test_error));
    assert_int_equal(scratch_count_entries(scratch_path("every")), 5); /* 4, 8, 12, latest, metrics.jsonl */
    assert_int_equal(access(scratch_path("every/step-00000004.safetensors"), F_OK), 0);
    assert_int_equal(access(scratch_path("every/step-00000008.safetensors"), F_OK), 0);
    assert_same_checkpoint("kept", "every", 12);
}

/* A loss that is not finite is counted, and the step changes nothing. */
static void bad_steps_are_skipped(void **state) {
    (void)state;
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_optimizer_options oo;
    uint8_t x[32] = "a loss that is not finite", y[32] = "counts for nothing";
    double loss, norm;
    bool applied;
    float before[48], after[48], big[48];
    assert_ok(bb_device_open("cpu", 1, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 1, &model, &test_error));
    bb_optimizer_options_default(&oo);
    assert_ok(bb_optimizer_create(model, &oo, &optimizer, &test_error));
    for (int i = 0; i < 48; i++) big[i] = 3e38f;
    assert_ok(bb_model_set_tensor(model, "norm_f.weight", big, 48, &test_error));
    assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, y, 1, 32}, 1, &loss, &test_error));
    assert_true(!isfinite(loss));
    assert_ok(bb_model_get_gradient(model, "norm_f.weight", after, 48, &test_error));
    for (int i = 0; i < 48; i++) assert_true(after[i] == 0.0f);

    /* finite, but its gradient is not */
    for (int i = 0; i < 48; i++) big[i] = 1.0f;
    assert_ok(bb_model_set_tensor(model, "norm_f.weight", big, 48, &test_error));
    assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, y, 1, 32}, 1e300, &loss, &test_error));
    assert_true(isfinite(loss));
    assert_ok(bb_model_get_tensor(model, "blocks.0.n1.weight", before, 48, &test_error));
    assert_ok(bb_optimizer_step(optimizer, 1e-3, 1, 1, &norm, &applied, &test_error));
    assert_false(applied);
    assert_ok(bb_model_get_tensor(model, "blocks.0.n1.weight", after, 48, &test_error));
    assert_memory_equal(before, after, sizeof before);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

static int64_t skipped_of(const char *name, int step) {
    char path[512], *text;
    snprintf(path, sizeof path, "%s/step-%08d.safetensors", scratch_path(name), step);
    assert_ok(bb_describe_file(path, NULL, &text, &test_error));
    const char *at = strstr(text, "\"skipped_steps\": ");
    assert_non_null(at);
    int64_t n = strtoll(at + strlen("\"skipped_steps\": "), NULL, 10);
    bb_string_free(text);
    return n;
}

/* Noise in a text makes spikes. They are left out, as many over a stop and a resume, to the same bits; without the option, or
 * with a great one, none is. */
static void spikes_are_skipped(void **state) {
    (void)state;
    char text[512];
    snprintf(text, sizeof text, "%s", scratch_path("noisy.txt"));
    FILE *f = fopen(text, "wb");
    assert_non_null(f);
    for (int i = 0; i < 4000; i++) {
        if (i % 100 == 7)
            for (unsigned j = 0; j < 200; j++) fputc((int)((j * j * 2654435761u + (unsigned)i * 40503u) >> 24), f);
        fprintf(f, "a line of text that is always the same, all of it\n");
    }
    assert_int_equal(fclose(f), 0);
    run a = base, b, c;
    a.data = text;
    a.batch_size = 1;
    a.grad_accum = 1;
    a.steps = 260;
    a.spike_skip = 4;
    a.name = "spikes";
    assert_ok(train(&a, &test_error));
    int64_t skipped = skipped_of("spikes", 260);
    print_message("%lld of 260 steps were spikes\n", (long long)skipped);
    assert_in_range(skipped, 1, 40);
    b = a;
    b.name = "spikes-parts";
    b.stop_at = 131;
    assert_ok(train(&b, &test_error));
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("spikes-parts"));
    b.resume = dir;
    b.stop_at = 0;
    assert_ok(train(&b, &test_error));
    assert_same_checkpoint("spikes", "spikes-parts", 260);
    c = a;
    c.spike_skip = 1e9;
    c.name = "no-spikes";
    assert_ok(train(&c, &test_error));
    assert_int_equal(skipped_of("no-spikes", 260), 0);
}

/* Weights that give nothing finite, from step 5 on: ten steps are skipped, then the run ends; what was good stays, alone. */
static void ten_skipped_steps_in_a_row_end_the_run(void **state) {
    (void)state;
    run a = base;
    a.name = "hopeless";
    a.steps = 40;
    a.save_every = 1;
    a.keep = 1;
    a.poison_at = 5;
    assert_fails(train(&a, &test_error), BB_ERR_NUMERIC, "10 steps in a row were skipped, up to step 15");
    assert_message(test_error, "lower --lr");
    assert_true(scratch_holds(scratch_path("hopeless/latest"), "step-00000005.safetensors\n", 26));
    assert_int_equal(scratch_count_entries(scratch_path("hopeless")), 3); /* the checkpoint, latest, metrics.jsonl */
    assert_int_equal(a.saves, 5);
    /* stopped on the way there: saved, and the good one stays beside it; resumed, it counts on */
    run b = a;
    b.name = "stopped";
    b.saves = 0;
    b.stop_at = 9;
    assert_ok(train(&b, &test_error));
    assert_int_equal(b.saves, 6);
    assert_int_equal(scratch_count_entries(scratch_path("stopped")), 4);
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("stopped"));
    b.resume = dir;
    b.stop_at = 0;
    b.poison_at = 0;
    assert_fails(train(&b, &test_error), BB_ERR_NUMERIC, "up to step 15");
}

/* ---- what a run has learned is saved before an error ends it ---------------------------------------------------------- */

enum { FAULT_STEP = 5 };

static void copy_text(const char *name) {
    char to[512];
    snprintf(to, sizeof to, "%s", scratch_path(name));
    FILE *in = fopen(text_path(), "rb");
    assert_non_null(in);
    FILE *out = fopen(to, "wb");
    assert_non_null(out);
    for (int c; (c = fgetc(in)) != EOF;) fputc(c, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void remove_copy(int64_t step) {
    if (step == FAULT_STEP) assert_int_equal(unlink(scratch_path("copy.txt")), 0);
}

static void block_metrics(int64_t step) {
    if (step != FAULT_STEP) return;
    assert_int_equal(rename(scratch_path("faulty/metrics.jsonl"), scratch_path("metrics-before")), 0);
    assert_int_equal(mkdir(scratch_path("faulty/metrics.jsonl"), 0777), 0);
}

static void block_checkpoint(int64_t step) {
    if (step == FAULT_STEP) assert_int_equal(mkdir(scratch_path("faulty/step-00000006.safetensors"), 0777), 0);
}

static bool stop_at_fault(int64_t step) { return step == FAULT_STEP; }
static bool stop_at_end(int64_t step) { return step == 12; }

/* Saves nothing by itself before the last step. */
static run faulty(void) {
    run r = base;
    r.name = "faulty";
    r.allow_overwrite = true;
    copy_text("copy.txt");
    return r;
}

static bool has_checkpoint(int step) {
    char name[64];
    snprintf(name, sizeof name, "faulty/step-%08d.safetensors", step);
    return access(scratch_path(name), F_OK) == 0;
}

static int metrics_lines(const char *text) {
    char line[1024];
    int count = 0;
    FILE *f = fopen(scratch_path("faulty/metrics.jsonl"), "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) count += strstr(line, text) != NULL;
    fclose(f);
    return count;
}

static void errors_save_first(void **state) {
    (void)state;
    char copy[512], dir[512];
    snprintf(copy, sizeof copy, "%s", scratch_path("copy.txt"));
    snprintf(dir, sizeof dir, "%s", scratch_path("faulty"));
    run good = base;
    good.name = "faultless";
    assert_ok(train(&good, &test_error));
    good.name = "faultless-copy"; /* checkpoints name their data */
    good.data = copy;
    copy_text("copy.txt");
    assert_ok(train(&good, &test_error));

    run a = faulty();
    a.data = copy;
    a.after_step = remove_copy;
    assert_fails(train(&a, &test_error), BB_ERR_DATA, "copy.txt");
    assert_message(test_error, "; step 5 is saved");
    assert_true(has_checkpoint(5));
    a = faulty();
    a.allow_overwrite = false;
    a.data = copy;
    a.resume = dir;
    assert_ok(train(&a, &test_error));
    assert_same_checkpoint("faultless-copy", "faulty", 12);

    run b = faulty();
    b.after_step = block_metrics;
    assert_fails(train(&b, &test_error), BB_ERR_IO, "metrics.jsonl");
    assert_message(test_error, "; step 5 is saved");
    assert_true(has_checkpoint(5));
    assert_int_equal(rmdir(scratch_path("faulty/metrics.jsonl")), 0);

    /* the disk itself: the newest checkpoint stands */
    run c = faulty();
    c.save_every = 2;
    c.after_step = block_checkpoint;
    assert_fails(train(&c, &test_error), BB_ERR_IO, "step-00000006");
    assert_message(test_error, "; the newest checkpoint is of step 4");
    assert_true(has_checkpoint(4));
    assert_int_equal(rmdir(scratch_path("faulty/step-00000006.safetensors")), 0);

    /* and so does the one that the run was resumed from */
    run d = faulty();
    char from[600], expected[700];
    snprintf(from, sizeof from, "%s/step-00000004.safetensors", dir);
    snprintf(expected, sizeof expected, "; the newest checkpoint is %s", from);
    d.allow_overwrite = false;
    d.resume = from;
    d.save_every = 2;
    d.after_step = block_checkpoint;
    assert_fails(train(&d, &test_error), BB_ERR_IO, "step-00000006");
    assert_message(test_error, expected);
    assert_int_equal(rmdir(scratch_path("faulty/step-00000006.safetensors")), 0);
}

static void a_failed_validation_does_not_end_the_run(void **state) {
    (void)state;
    char copy[512], dir[512];
    snprintf(copy, sizeof copy, "%s", scratch_path("copy.txt"));
    snprintf(dir, sizeof dir, "%s", scratch_path("faulty"));
    run a = faulty();
    a.val_data = copy;
    a.val_every = 4;
    a.after_step = remove_copy;
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.validations, 1);
    assert_int_equal(a.failed_validations, 2); /* steps 8 and 12 */
    assert_non_null(strstr(a.notice, "the validation at step 12 failed (2 so far), training continues: "));
    assert_non_null(strstr(a.notice, "copy.txt"));
    assert_true(has_checkpoint(12));

    run b = faulty();
    b.val_data = copy;
    b.val_every = 4;
    b.after_step = remove_copy;
    b.strict_val = true;
    assert_fails(train(&b, &test_error), BB_ERR_DATA, "validation at step 8: ");
    assert_message(test_error, "; step 8 is saved");
    assert_true(has_checkpoint(8));
    /* what is missing is found before the first step, not at the first validation */
    b.resume = dir;
    assert_fails(train(&b, &test_error), BB_ERR_DATA, "copy.txt");
    b.val_data = "-";
    assert_fails(train(&b, &test_error), BB_ERR_ARGUMENT, "standard input");
    /* the validation that failed is made up for */
    b = faulty();
    b.val_data = copy;
    b.val_every = 4;
    b.resume = dir;
    assert_ok(train(&b, &test_error));
    assert_int_equal(b.validations, 2);
    assert_int_equal(metrics_lines("\"step\":8,\"val_bpb\""), 1);
    assert_int_equal(metrics_lines("val_bpb"), 3);
}

static void check_saved(int64_t step) { assert_true(has_checkpoint((int)step)); }

/* So that what kills the process during a long validation costs no step. */
static void a_step_is_saved_before_it_is_validated(void **state) {
    (void)state;
    run a = faulty();
    a.save_sync = true;
    a.save_every = a.val_every = 4;
    a.after_validation = check_saved;
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.validations, 3);
}

/* Windows of a validation are as long as what is trained on, up to a limit. */
static void validation_windows_have_the_trained_length(void **state) {
    (void)state;
    const struct { int seq_len, cap, expected; } cases[] = {{64, 0, 64}, {0, 100, 100}, {2500, 0, 2048}, {0, 2500, 2048}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run a = faulty();
        a.seq_len = cases[i].seq_len;
        a.seq_len_cap = cases[i].cap;
        a.batch_size = a.grad_accum = 1;
        a.steps = 1;
        a.val_every = 1;
        a.val_by_default = true;
        assert_ok(train(&a, &test_error));
        assert_int_equal(a.validations, 1);
        assert_int_equal(a.val_length, cases[i].expected);
    }
}

static void a_stop_comes_before_a_validation(void **state) {
    (void)state;
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("faulty"));
    run a = faulty();
    a.val_every = FAULT_STEP;
    a.stops_after = stop_at_fault;
    assert_fails(train(&a, &test_error), BB_ERR_INTERRUPTED, "step 5 of 12");
    assert_int_equal(a.validations, 0);
    assert_true(has_checkpoint(5));
    a.resume = dir;
    a.stops_after = stop_at_end;
    assert_fails(train(&a, &test_error), BB_ERR_INTERRUPTED, "step 12 of 12");
    assert_int_equal(a.validations, 2); /* of steps 5 and 10 */
    a.stops_after = NULL;
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.validations, 3);
    assert_ok(train(&a, &test_error));
    assert_int_equal(a.validations, 3);
    assert_non_null(strstr(a.notice, "nothing to do"));
}

/* 300 steps of real text: the 8-bit optimizer ends within 1% of the f32 one, and both have learned. */
static void moments_in_8_bits_follow_f32(void **state) {
    (void)state;
    char text[512], command[1024];
    snprintf(text, sizeof text, "%s", scratch_path("genesis.txt"));
    snprintf(command, sizeof command, "bible -f 'gen1:1-deu34:12' < /dev/null > '%s' 2> /dev/null", text);
    if (system(command) != 0) { /* NOLINT(cert-env33-c): a fixed command of Debian's bible-kjv */
        print_message("SKIPPED: no text (package bible-kjv)\n");
        skip();
    }
    run a = base;
    a.data = text;
    a.steps = 300;
    a.batch_size = 8;
    a.grad_accum = 1;
    a.seq_len = 128;
    a.threads = 0;
    a.recompute = false;
    a.name = "f32";
    a.kind = BB_OPTIM_ADAMW;
    run b = a;
    b.name = "8bit";
    b.kind = BB_OPTIM_ADAMW8BIT;
    assert_ok(train(&a, &test_error));
    assert_ok(train(&b, &test_error));
    print_message("last %d of 300 losses: adamw %.4f, adamw8bit %.4f (%+.2f%%)\n", LAST_STEPS, a.last_loss, b.last_loss,
                  100 * (b.last_loss / a.last_loss - 1));
    assert_true(a.last_loss < 2.6);
    assert_true(fabs(b.last_loss / a.last_loss - 1) < 0.01);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_and_recompute_change_nothing),
                                       cmocka_unit_test(a_resumed_run_ends_with_the_same_bits),
                                       cmocka_unit_test(a_curriculum_resumes),
                                       cmocka_unit_test(old_checkpoints_keep_their_order_of_data),
                                       cmocka_unit_test(a_run_resumes_without_moments),
                                       cmocka_unit_test(a_run_directory_keeps_what_it_should),
                                       cmocka_unit_test(bad_steps_are_skipped),
                                       cmocka_unit_test(spikes_are_skipped),
                                       cmocka_unit_test(ten_skipped_steps_in_a_row_end_the_run),
                                       cmocka_unit_test(errors_save_first),
                                       cmocka_unit_test(a_failed_validation_does_not_end_the_run),
                                       cmocka_unit_test(a_step_is_saved_before_it_is_validated),
                                       cmocka_unit_test(a_stop_comes_before_a_validation),
                                       cmocka_unit_test(validation_windows_have_the_trained_length),
                                       cmocka_unit_test(moments_in_8_bits_follow_f32)};
    return cmocka_run_group_tests(tests, write_text, scratch_remove);
}
