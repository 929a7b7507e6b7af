// SPDX-License-Identifier: MIT
/* Saving on a thread: the file has the model as it was when the save began, however the model changes meanwhile; failures are
 * reported; nothing is written twice or out of order. */
#include "support.h"

#include <unistd.h>

#include "core/file.h"
#include "scratch.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_write.h"
#include "training/saver.h"

/* Large enough that writing it takes longer than changing it. */
static const bb_config shape = {.vocab_size = 256,
                                .n_layer = 2,
                                .d_model = 256,
                                .n_head = 4,
                                .n_kv_head = 4,
                                .d_ff = 512,
                                .rope_base = 1e4,
                                .norm_eps = 1e-6,
                                .act_quant = true};

typedef struct fixture {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_run_dir dir;
    bb_saver *saver;
    int saved, last;
} fixture;

static fixture f;

static void on_saved(void *user, int64_t step, const char *path, double paused_seconds, double seconds) {
    assert_true(seconds >= 0 && seconds < 60);
    assert_ptr_equal(user, &f);
    assert_int_equal(step, bb_run_dir_step_of(path));
    assert_true(step > f.last);
    assert_true(paused_seconds >= 0 && paused_seconds < 60);
    assert_int_equal(access(path, R_OK), 0);
    f.last = (int)step;
    f.saved++;
}

static int setup(void **state) {
    bb_optimizer_options options;
    f = (fixture){.last = -1};
    if (scratch_create(state)) return -1;
    bb_optimizer_options_default(&options);
    assert_ok(bb_device_open("cpu", 2, &f.device, &test_error));
    assert_ok(bb_model_create(f.device, &shape, 5, &f.model, &test_error));
    assert_ok(bb_optimizer_create(f.model, &options, &f.optimizer, &test_error));
    const bb_run_dir_use use = {.resume_step = -1, .damaged_step = -1};
    assert_ok(bb_run_dir_open(scratch_path("run"), &use, &f.dir, &test_error));
    return 0;
}

static int teardown(void **state) {
    bb_saver_free(f.saver);
    bb_run_dir_close(&f.dir);
    bb_optimizer_free(f.optimizer);
    bb_model_free(f.model);
    bb_device_close(f.device);
    return scratch_remove(state);
}

static void open_saver(bb_saver_mode mode) {
    const bb_saver_options options = {.mode = mode, .on_saved = on_saved, .user = &f};
    assert_ok(bb_saver_create(f.model, f.optimizer, &f.dir, &options, &f.saver, &test_error));
    assert_int_equal(bb_saver_mode_used(f.saver), mode);
}

static const bb_retention keep_all = {0};

/* Fills the model with one value, as an optimizer's step would change it. */
static void fill(float value) {
    for (int64_t i = 0; i < f.model->table.total; i++) f.model->params[i] = value;
}

static void check_steps(bb_saver_mode mode) {
    open_saver(mode);
    for (int step = 1; step <= 8; step++) {
        fill((float)step);
        bb_training_state ts = {.step = step, .samples = 3 * (uint64_t)step};
        assert_ok(bb_saver_save(f.saver, &ts, &keep_all, &test_error));
        bb_saver_wait_snapshot(f.saver);
        fill(-1); /* while it is written */
        assert_ok(bb_saver_poll(f.saver, &test_error));
    }
    assert_ok(bb_saver_wait(f.saver, &test_error));
    assert_int_equal(f.saved, 8);
    assert_ok(bb_saver_wait(f.saver, &test_error)); /* nothing to wait for: nothing happens */
    assert_int_equal(f.saved, 8);
    for (int step = 1; step <= 8; step++) {
        bb_training_state ts;
        char *path = bb_run_dir_checkpoint_path(&f.dir, step);
        assert_ok(bb_checkpoint_load(path, f.model, f.optimizer, &ts, &test_error));
        assert_int_equal(ts.step, step);
        assert_int_equal(ts.samples, 3 * step);
        for (int64_t i = 0; i < f.model->table.total; i++) assert_true(f.model->params[i] == (float)step);
        free(path);
    }
    assert_true(scratch_holds(scratch_path("run/latest"), "step-00000008.safetensors\n", 26));
}

static void a_snapshot_is_written_while_training_goes_on(void **state) {
    (void)state;
    check_steps(BB_SAVER_SNAPSHOT);
}

static void live_memory_is_written_before_the_update(void **state) {
    (void)state;
    check_steps(BB_SAVER_LIVE);
}

static void sync_writes_at_once(void **state) {
    (void)state;
    check_steps(BB_SAVER_SYNC);
}

/* A directory in the way of the next checkpoint: its save fails, said by poll, wait or the next save; those before stay. */
static void check_failures(bb_saver_mode mode) {
    open_saver(mode);
    bb_training_state ts = {.step = 1};
    assert_ok(bb_saver_save(f.saver, &ts, &keep_all, &test_error));
    assert_ok(bb_saver_wait(f.saver, &test_error));
    for (int way = 0; way < 3; way++) {
        ts.step = 2 + way;
        char *path = bb_run_dir_checkpoint_path(&f.dir, ts.step);
        assert_int_equal(mkdir(path, 0777), 0);
        free(path);
        assert_ok(bb_saver_save(f.saver, &ts, &keep_all, &test_error));
        bb_saver_wait_snapshot(f.saver); /* whatever becomes of it, training goes on */
        bb_status status = BB_OK;
        test_error.message[0] = 0;
        if (way == 0) {
            for (int i = 0; i < 2000 && status == BB_OK; i++, usleep(1000)) status = bb_saver_poll(f.saver, &test_error);
        } else if (way == 1) {
            status = bb_saver_wait(f.saver, &test_error);
        } else {
            ts.step = 9;
            status = bb_saver_save(f.saver, &ts, &keep_all, &test_error);
        }
        assert_int_equal(status, BB_ERR_IO);
        assert_message(test_error, "a directory");
        assert_ok(bb_saver_poll(f.saver, &test_error)); /* said once */
    }
    assert_int_equal(f.saved, 1);
    assert_true(scratch_holds(scratch_path("run/latest"), "step-00000001.safetensors\n", 26));
    assert_int_equal(scratch_count_entries(scratch_path("run")), 5); /* the checkpoint, latest, three directories */
}

static void a_failed_snapshot_is_reported(void **state) {
    (void)state;
    check_failures(BB_SAVER_SNAPSHOT);
}

static void a_failed_live_save_is_reported(void **state) {
    (void)state;
    check_failures(BB_SAVER_LIVE);
}

/* A correction of the run's steps replaces the configuration while a save is written. */
static void a_file_has_the_texts_of_its_step(void **state) {
    (void)state;
    char config[] = "{\"steps\":10}", data[] = "{\"blocks\":1}", *text;
    const bb_training_state ts = {.step = 1, .run_config = config, .data = data};
    bb_snapshot *snapshot;
    assert_ok(bb_snapshot_create(f.model, f.optimizer, true, &snapshot, &test_error));
    assert_ok(bb_snapshot_capture(snapshot, &ts, &test_error));
    memset(config, 'x', sizeof config - 1);
    memset(data, 'x', sizeof data - 1);
    assert_ok(bb_checkpoint_write(snapshot, scratch_path("file"), &test_error));
    bb_snapshot_free(snapshot);
    assert_ok(bb_checkpoint_text(scratch_path("file"), BB_CHECKPOINT_RUN_CONFIG, &text, &test_error));
    assert_string_equal(text, "{\"steps\":10}");
    free(text);
    assert_ok(bb_checkpoint_text(scratch_path("file"), BB_CHECKPOINT_DATA, &text, &test_error));
    assert_string_equal(text, "{\"blocks\":1}");
    free(text);
}

/* Freed while it writes: it is waited for, and nothing is left half-written. */
static void freeing_waits_for_the_write(void **state) {
    (void)state;
    open_saver(BB_SAVER_SNAPSHOT);
    bb_training_state ts = {.step = 1};
    assert_ok(bb_saver_save(f.saver, &ts, &keep_all, &test_error));
    bb_saver_free(f.saver);
    f.saver = NULL;
    assert_int_equal(f.saved, 0);
    assert_int_equal(scratch_count_entries(scratch_path("run")), 2);
    assert_ok(bb_checkpoint_load(scratch_path("run/step-00000001.safetensors"), f.model, f.optimizer, &ts, &test_error));
}

int main(void) {
#define saver_test(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {saver_test(a_snapshot_is_written_while_training_goes_on),
                                       saver_test(live_memory_is_written_before_the_update),
                                       saver_test(sync_writes_at_once),
                                       saver_test(a_failed_snapshot_is_reported),
                                       saver_test(a_failed_live_save_is_reported),
                                       saver_test(a_file_has_the_texts_of_its_step),
                                       saver_test(freeing_waits_for_the_write)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
