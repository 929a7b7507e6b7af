// SPDX-License-Identifier: MIT
/* Every system call of the library, and every allocation, fails once, or from some call on: for any n, a run ends with success
 * or an error that says what was wrong, never with a crash, and its directory resumes to exactly the checkpoint of a run
 * without faults; a failed allocation is BB_ERR_MEMORY. */
#include <fcntl.h>

#include "faults.h"
#include "scratch.h"
#include "support.h"

/* Two kinds of runs: one that saves after each step, and a short one for allocations, of which there are thousands. */
static int steps = 4, val_every = 2;
static bb_save_copy save_copy = BB_SAVE_COPY_YES;

static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 1,
                               .d_model = 16,
                               .n_head = 2,
                               .n_kv_head = 1,
                               .d_ff = 20,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

/* All that a program does to train. Goes on from the directory's checkpoints where it has any. */
static bb_status train(const char *device_name, const char *dir, bb_error *err) {
    bb_device *device = NULL;
    bb_model *model = NULL;
    bb_optimizer *optimizer = NULL;
    bb_dataset *data = NULL;
    bb_trainer *trainer = NULL;
    bb_optimizer_options oo;
    bb_train_options to;
    char text[512], latest[4096];
    snprintf(text, sizeof text, "%s", scratch_path("text"));
    bb_optimizer_options_default(&oo);
    bb_train_options_default(&to);
    to.out_dir = dir;
    to.run_config_json = "{}\n";
    to.steps = steps;
    to.seq_len = 16;
    to.grad_accum = 1;
    to.log_every = 1;
    to.save_every = 1;
    to.keep = 2;
    to.save_copy = save_copy;
    to.val_data = text;
    to.val_every = val_every;
    to.val_seq_len = 16;
    to.val_batches = 1;
    to.strict_val = true;
    to.patience = steps; /* never ends the run, and names the best */
    bb_status status = bb_device_open(device_name, 1, &device, err);
    if (status == BB_OK) status = bb_model_create(device, &tiny, 3, &model, err);
    if (status == BB_OK) status = bb_optimizer_create(model, &oo, &optimizer, err);
    if (status == BB_OK) status = bb_byte_shard_dataset_open(text, 16, 3, 0, 1, &data, err);
    if (status == BB_OK) status = bb_trainer_create(model, optimizer, NULL, &to, &trainer, err);
    if (status == BB_OK && __real_access(dir, F_OK) == 0) {
        status = bb_run_latest_checkpoint(dir, latest, sizeof latest, err);
        if (status == BB_OK)
            status = bb_trainer_resume(trainer, dir, true, err);
        else if (strstr(err->message, "no checkpoint"))
            status = BB_OK; /* a run that saved nothing begins again */
    }
    if (status == BB_OK) status = bb_trainer_train(trainer, data, err);
    bb_trainer_free(trainer);
    bb_dataset_close(data);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
    return status;
}

/* Every n, or with BB_TEST_QUICK=1 (as in ctest) every one of the first 100, then every thirteenth. */
static long next_place(long n) {
    const char *quick = getenv("BB_TEST_QUICK");
    return n < 100 || !quick || *quick != '1' ? n + 1 : n + 13;
}

static void remove_tree(const char *path) {
    (void)nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void read_file(const char *path, uint8_t **bytes, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) print_error("no %s\n", path);
    assert_non_null(f);
    *bytes = malloc(1 << 20);
    assert_non_null(*bytes);
    *size = fread(*bytes, 1, 1 << 20, f);
    fclose(f);
}

typedef struct expected {
    uint8_t *bytes;
    size_t size;
    uint8_t *best; /* the text of `best` */
    size_t best_size;
} expected;

/* The last checkpoint is the expected one; every step has its one line of metrics. */
static void check_result(const char *dir, const expected *good) {
    char path[600];
    uint8_t *bytes;
    size_t size;
    int lines = 0;
    snprintf(path, sizeof path, "%s/step-%08d.safetensors", dir, steps);
    read_file(path, &bytes, &size);
    assert_int_equal(size, good->size);
    assert_memory_equal(bytes, good->bytes, size);
    free(bytes);
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    read_file(path, &bytes, &size);
    for (size_t i = 0; i < size; i++) lines += bytes[i] == '\n';
    free(bytes);
    assert_int_equal(lines, steps + steps / val_every);
    /* `latest` may be one checkpoint late, where the fault came before it was written and there was nothing more to do. */
    snprintf(path, sizeof path, "%s/latest", dir);
    read_file(path, &bytes, &size);
    snprintf(path, sizeof path, "%s/%.*s", dir, (int)size - 1, (const char *)bytes);
    free(bytes);
    assert_int_equal(access(path, R_OK), 0);
    snprintf(path, sizeof path, "%s/best", dir);
    read_file(path, &bytes, &size);
    assert_int_equal(size, good->best_size);
    assert_memory_equal(bytes, good->best, size);
    snprintf(path, sizeof path, "%s/%.*s", dir, (int)size - 1, (const char *)bytes);
    free(bytes);
    assert_int_equal(access(path, R_OK), 0);
}

static void check_failure(fault_kind kind, long n, bb_status status, const bb_error *err) {
    bool good =
        status == BB_OK || (kind == FAULT_ALLOC ? status == BB_ERR_MEMORY
                                                : status == BB_ERR_IO || status == BB_ERR_MEMORY || status == BB_ERR_DATA);
    if (status != BB_OK && (err->message[0] == 0 || err->code != status)) good = false;
    if (!good) print_error("%s %ld: %s: '%s'\n", fault_names[kind], n, bb_status_name(status), err->message);
    assert_true(good);
}

static void train_through(const char *device, fault_kind kind, bool for_good, const expected *good) {
    char dir[512];
    snprintf(dir, sizeof dir, "%s", scratch_path("run"));
    long n = 1, failed = 0;
    save_copy = for_good ? BB_SAVE_COPY_NO : BB_SAVE_COPY_YES; /* both ways of saving */
    for (bool struck = true; struck; n = next_place(n)) {
        bb_error err = {0};
        remove_tree(dir);
        fault_arm(kind, n, for_good);
        bb_status status = train(device, dir, &err);
        struck = fault_disarm();
        check_failure(kind, n, status, &err);
        if (status != BB_OK) {
            failed++;
            status = train(device, dir, &err);
            if (status != BB_OK) print_error("after %s %ld: %s\n", fault_names[kind], n, err.message);
            assert_int_equal(status, BB_OK);
        }
        check_result(dir, good);
    }
    print_message("%s, %s, %s: %ld calls, %ld of them end the run\n", device, fault_names[kind],
                  for_good ? "from there on" : "once", n - 1, failed);
    assert_true(n > 2);
}

/* Resuming meets faults as well: from a directory that holds half of a run. */
static void resume_through(fault_kind kind, const expected *good) {
    char dir[512], path[600];
    snprintf(dir, sizeof dir, "%s", scratch_path("run"));
    bb_error err = {0};
    long n = 1;
    for (bool struck = true; struck; n = next_place(n)) {
        remove_tree(dir);
        assert_ok(train("ref", dir, &test_error));
        snprintf(path, sizeof path, "%s/step-%08d.safetensors", dir, steps);
        assert_int_equal(unlink(path), 0); /* the one before is the newest now, and `latest` wrong */
        fault_arm(kind, n, false);
        bb_status status = train("ref", dir, &err);
        struck = fault_disarm();
        check_failure(kind, n, status, &err);
        if (status != BB_OK) status = train("ref", dir, &err);
        if (status != BB_OK) print_error("after %s %ld: %s\n", fault_names[kind], n, err.message);
        assert_int_equal(status, BB_OK);
        check_result(dir, good);
    }
    print_message("resuming, %s, once: %ld calls\n", fault_names[kind], n - 1);
}

static expected straight(void) {
    char dir[512], path[600];
    expected good;
    snprintf(dir, sizeof dir, "%s", scratch_path("run"));
    snprintf(path, sizeof path, "%s/step-%08d.safetensors", dir, steps);
    remove_tree(dir);
    assert_ok(train("ref", dir, &test_error));
    read_file(path, &good.bytes, &good.size);
    snprintf(path, sizeof path, "%s/best", dir);
    read_file(path, &good.best, &good.best_size);
    return good;
}

static void system_calls_that_fail_lose_nothing(void **state) {
    (void)state;
    expected good = straight();
    for (fault_kind kind = FAULT_OPEN; kind < FAULT_KINDS; kind++) {
        train_through("ref", kind, false, &good);
        train_through("ref", kind, true, &good);
        resume_through(kind, &good);
    }
    free(good.bytes);
    free(good.best);
}

static void allocations_that_fail_lose_nothing(void **state) {
    (void)state;
    steps = 2;
    expected good = straight();
    train_through("ref", FAULT_ALLOC, false, &good);
    train_through("ref", FAULT_ALLOC, true, &good);
    resume_through(FAULT_ALLOC, &good);
    free(good.bytes);
    free(good.best);
}

static bool on_byte(void *user, uint8_t byte) {
    (void)byte;
    ++*(int *)user;
    return true;
}

/* What is done with a checkpoint that is there. */
static bb_status use(const char *device_name, const char *checkpoint, bb_error *err) {
    bb_device *device = NULL;
    bb_model *model = NULL;
    char *json = NULL, text[512];
    bool whole;
    int count = 0;
    bb_eval_options eo;
    bb_eval_result result;
    bb_generate_options go;
    bb_generate_metrics metrics;
    snprintf(text, sizeof text, "%s", scratch_path("text"));
    bb_eval_options_default(&eo);
    eo.seq_len = 16;
    eo.max_batches = 2;
    bb_generate_options_default(&go);
    go.max_new_bytes = 4;
    go.on_byte = on_byte;
    go.user = &count;
    bb_status status = bb_device_open(device_name, 1, &device, err);
    if (status == BB_OK) status = bb_model_load(device, checkpoint, &model, err);
    if (status == BB_OK) status = bb_evaluate(model, text, &eo, &result, err);
    if (status == BB_OK) status = bb_generate(model, (const uint8_t *)"abc", 3, &go, &metrics, err);
    if (status == BB_OK) status = bb_model_save(model, scratch_path("model"), err);
    if (status == BB_OK) status = bb_describe_file(checkpoint, NULL, &json, err);
    bb_string_free(json);
    json = NULL;
    if (status == BB_OK) status = bb_verify_file(checkpoint, NULL, NULL, NULL, &whole, &json, err);
    bb_string_free(json);
    bb_model_free(model);
    bb_device_close(device);
    return status;
}

static void faults_while_a_model_is_used_are_errors(void **state) {
    (void)state;
    char file[512];
    expected good = straight();
    snprintf(file, sizeof file, "%s", scratch_path("checkpoint"));
    assert_true(scratch_write(file, good.bytes, good.size));
    for (fault_kind kind = FAULT_ALLOC; kind < FAULT_KINDS; kind++)
        for (int for_good = 0; for_good < 2; for_good++) {
            long n = 1;
            for (bool struck = true; struck; n = next_place(n)) {
                bb_error err = {0};
                fault_arm(kind, n, for_good);
                bb_status status = use("ref", file, &err);
                struck = fault_disarm();
                check_failure(kind, n, status, &err);
            }
            print_message("using, %s, %s: %ld calls\n", fault_names[kind], for_good ? "from there on" : "once", n - 1);
        }
    free(good.bytes);
    free(good.best);
}

/* A pack that failed does not look whole, and the next one is. */
static void a_failed_pack_does_not_look_whole(void **state) {
    (void)state;
    char text[512], out[512], manifest[600];
    snprintf(text, sizeof text, "%s", scratch_path("text"));
    snprintf(out, sizeof out, "%s", scratch_path("pack"));
    snprintf(manifest, sizeof manifest, "%s/manifest.json", out);
    const char *inputs[] = {text};
    bb_pack_options o;
    bb_pack_options_default(&o);
    o.inputs = inputs;
    o.input_count = 1;
    o.out_dir = out;
    o.val_frac = 0.3;
    o.shard_size_gb = 1e-6;
    o.strict = true;
    for (fault_kind kind = FAULT_ALLOC; kind < FAULT_KINDS; kind++)
        for (int for_good = 0; for_good < 2; for_good++) {
            long n = 1;
            for (bool struck = true; struck; n = next_place(n)) {
                bb_error err = {0};
                bb_pack_result result;
                remove_tree(out);
                o.overwrite = false;
                fault_arm(kind, n, for_good);
                bb_status status = bb_pack(&o, &result, &err);
                struck = fault_disarm();
                check_failure(kind, n, status, &err);
                bool whole = access(manifest, F_OK) == 0;
                if (status == BB_OK) assert_true(whole);
                o.overwrite = true;
                if (status != BB_OK) assert_ok(bb_pack(&o, &result, &test_error));
                assert_int_equal(access(manifest, F_OK), 0);
            }
            print_message("packing, %s, %s: %ld calls\n", fault_names[kind], for_good ? "from there on" : "once", n - 1);
        }
}

static int setup(void **state) {
    fault_include_jansson();
    if (scratch_create(state) != 0) return -1;
    FILE *f = fopen(scratch_path("text"), "wb");
    if (!f) return -1;
    for (int i = 0; i < 100; i++) fprintf(f, "%d lines, and %d more.\n", i, i * i % 31);
    return fclose(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(system_calls_that_fail_lose_nothing), cmocka_unit_test(allocations_that_fail_lose_nothing),
        cmocka_unit_test(faults_while_a_model_is_used_are_errors), cmocka_unit_test(a_failed_pack_does_not_look_whole)};
    return cmocka_run_group_tests(tests, setup, scratch_remove);
}
