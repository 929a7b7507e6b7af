// SPDX-License-Identifier: MIT
/* Resuming from the PyTorch original's ckpt.pt: weights, step and AdamW's moments; and which files are refused, with advice. */
#include "support.h"

#include <unistd.h>
#include <zip.h>

#include "model/model.h"
#include "modelfile/model_source.h"
#include "scratch.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_tensors.h"
#include "training/optim.h"

#define CHECKPOINT BB_FORMATS_DIR "/resume.pt"

static bb_device *device;

typedef struct run {
    bb_model *model;
    bb_optimizer *optimizer;
} run;

static run open_run(bb_optimizer_kind kind) {
    run r = {0};
    bb_config config;
    bb_optimizer_options options;
    assert_ok(bb_config_load(CHECKPOINT, NULL, &config, NULL, &test_error));
    assert_int_equal(config.n_head, 2);
    assert_int_equal(config.n_kv_head, 1);
    assert_ok(bb_model_create(device, &config, 9, &r.model, &test_error));
    bb_optimizer_options_default(&options);
    options.kind = kind;
    assert_ok(bb_optimizer_create(r.model, &options, &r.optimizer, &test_error));
    return r;
}

static void close_run(run *r) {
    bb_optimizer_free(r->optimizer);
    bb_model_free(r->model);
}

/* What the run holds of a parameter: its values or a moment. */
static void copy_out(const run *r, int param, bb_checkpoint_field field, float *out) {
    bb_checkpoint_memory memory = bb_checkpoint_memory_of(r->model, r->optimizer);
    bb_checkpoint_tensor t = {.param = param, .field = field};
    t.tensor.bytes = (uint64_t)r->model->table.entries[param].count * sizeof *out;
    for (int i = 0; i < bb_checkpoint_part_count(&memory, &t); i++) {
        bb_checkpoint_part part = bb_checkpoint_part_at(&memory, &t, i);
        device->ops->copy_out(device, out, part.data, part.bytes);
        out += part.bytes / sizeof *out;
    }
    assert_ok(device->ops->sync(device, &test_error));
}

static void optimizer_state_is_resumed(void **state) {
    (void)state;
    static float found[256 * 8], expected[256 * 8];
    run r = open_run(BB_OPTIM_ADAMW);
    bb_training_state training;
    bb_tensor_source *s;
    assert_ok(bb_checkpoint_load(CHECKPOINT, r.model, r.optimizer, &training, &test_error));
    assert_int_equal(training.step, 3); /* number 2 was the third */
    assert_int_equal(training.optimizer_steps, 3);
    assert_int_equal(r.optimizer->steps, 3);
    assert_int_equal(training.samples, 0);
    assert_int_equal(training.sampling, BB_SAMPLING_EPOCHS);
    assert_true(training.scaler_scale > 65535 && training.scaler_scale < 65537);
    assert_int_equal(training.scaler_good_steps, 0);
    assert_ok(bb_tensor_source_open(CHECKPOINT, &s, &test_error));
    for (int i = 0; i < r.model->table.count; i++) {
        const bb_param *p = &r.model->table.entries[i];
        char names[3][96];
        static const bb_checkpoint_field fields[] = {BB_FIELD_VALUES, BB_FIELD_M, BB_FIELD_V};
        (void)snprintf(names[0], sizeof names[0], "model.%s", p->name);
        (void)snprintf(names[1], sizeof names[1], "opt.state.%d.exp_avg", i);
        (void)snprintf(names[2], sizeof names[2], "opt.state.%d.exp_avg_sq", i);
        for (int k = 0; k < 3; k++) {
            const bb_file_tensor *t = bb_tensor_source_find(s, names[k]);
            assert_non_null(t);
            assert_int_equal(t->bytes, (size_t)p->count * sizeof *expected);
            assert_ok(bb_tensor_source_read(s, t, expected, &test_error));
            copy_out(&r, i, fields[k], found);
            assert_memory_equal(found, expected, t->bytes);
        }
    }
    bb_tensor_source_close(s);
    close_run(&r);
}

static void resumes_without_optimizer_state(void **state) {
    (void)state;
    static float zeros[256 * 8], found[256 * 8];
    run r = open_run(BB_OPTIM_ADAMW8BIT);
    bb_training_state training;
    /* an 8-bit run takes no f32 moments, but the weights and the step */
    assert_fails(bb_checkpoint_load(CHECKPOINT, r.model, r.optimizer, &training, &test_error), BB_ERR_ARGUMENT,
                 "use --optim adamw, or use --no_opt_state");
    assert_ok(bb_checkpoint_load(CHECKPOINT, r.model, NULL, &training, &test_error));
    assert_int_equal(training.step, 3);
    assert_int_equal(training.optimizer_steps, 0);
    copy_out(&r, 0, BB_FIELD_M, found); /* the embedding's moments are f32 in an 8-bit run */
    assert_memory_equal(found, zeros, sizeof found);
    close_run(&r);
}

/* A copy of the checkpoint whose pickle has the first `from` replaced by `to`, which is as long. */
static const char *changed(const char *name, const char *from, const char *to, size_t size) {
    const char *path = scratch_path(name);
    zip_t *in = zip_open(CHECKPOINT, ZIP_RDONLY, NULL), *out = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    assert_non_null(in);
    assert_non_null(out);
    bool found = false;
    for (zip_int64_t i = 0; i < zip_get_num_entries(in, 0); i++) {
        zip_stat_t st;
        assert_int_equal(zip_stat_index(in, (zip_uint64_t)i, 0, &st), 0);
        uint8_t *data = malloc(st.size + 1);
        zip_file_t *file = zip_fopen_index(in, (zip_uint64_t)i, 0);
        assert_true(data && file && zip_fread(file, data, st.size) == (zip_int64_t)st.size);
        (void)zip_fclose(file);
        uint8_t *at = strstr(st.name, "data.pkl") ? memmem(data, st.size, from, size) : NULL;
        if (at) memcpy(at, to, size);
        found = found || at;
        zip_int64_t index = zip_file_add(out, st.name, zip_source_buffer(out, data, st.size, 1), 0);
        assert_true(index >= 0);
        assert_int_equal(zip_set_file_compression(out, (zip_uint64_t)index, ZIP_CM_STORE, 0), 0);
    }
    assert_int_equal(zip_close(out), 0);
    (void)zip_close(in);
    if (!found) fail_msg("the pickle has no '%s'", from);
    return path;
}

/* GradScaler's scale and the steps since it changed. Another number in the pickle in place of 65536 is taken; a scale that is none is
 * as if there was no scaler. */
static void scaler_is_resumed(void **state) {
    (void)state;
    static const char scale[] = "G@\xf0\0\0\0\0\0\0", other[] = "G@\xc0\0\0\0\0\0\0", none[] = "G\xc0\xc0\0\0\0\0\0\0";
    run r = open_run(BB_OPTIM_ADAMW);
    bb_training_state training;
    assert_ok(
        bb_checkpoint_load(changed("scale.pt", scale, other, sizeof scale - 1), r.model, r.optimizer, &training, &test_error));
    assert_true(training.scaler_scale > 8191 && training.scaler_scale < 8193);
    assert_ok(
        bb_checkpoint_load(changed("none.pt", scale, none, sizeof scale - 1), r.model, r.optimizer, &training, &test_error));
    assert_true(training.scaler_scale <= 0);
    close_run(&r);
}

#define PAIR(from, to) from, to, sizeof(from) - 1

static void damaged_state_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        size_t size;
        bb_status code;
        const char *part;
        bool without; /* refused without the optimizer's state, too */
    } cases[] = {
        {PAIR("exp_avg_sq", "exp_avg_sk"), BB_ERR_FORMAT, "'opt.state.0.exp_avg_sq' is missing; use --no_opt_state", false},
        {PAIR("X\7\0\0\0exp_avg", "X\7\0\0\0state1_"), BB_ERR_FORMAT, "'opt.state.0.exp_avg' is missing", false},
        {PAIR("betas", "rhos_"), BB_ERR_UNSUPPORTED, "its optimizer is not Adam: only the moments of torch.optim.AdamW", false},
        {PAIR("opt", "xpt"), BB_ERR_FORMAT, "the file has no 'opt'; use --no_opt_state", false},
        {PAIR("step", "stop"), BB_ERR_ARGUMENT, "a model without training state: use --init to start from its weights", true}};
    static float before[256 * 8], after[256 * 8];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run r = open_run(BB_OPTIM_ADAMW);
        bb_training_state training;
        const char *path = changed("changed.pt", cases[i].from, cases[i].to, cases[i].size);
        copy_out(&r, 0, BB_FIELD_VALUES, before);
        assert_fails(bb_checkpoint_load(path, r.model, r.optimizer, &training, &test_error), cases[i].code, cases[i].part);
        assert_message(test_error, "changed.pt");
        copy_out(&r, 0, BB_FIELD_VALUES, after);
        assert_memory_equal(before, after, sizeof before); /* nothing is half loaded */
        if (cases[i].without)
            assert_fails(bb_checkpoint_load(path, r.model, NULL, &training, &test_error), cases[i].code, cases[i].part);
        else
            assert_ok(bb_checkpoint_load(path, r.model, NULL, &training, &test_error));
        close_run(&r);
    }
}

static void other_optimizers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *path, *part;
    } cases[] = {{BB_FORMATS_DIR "/bitsandbytes.pt",
                  "its optimizer is bitsandbytes': only the moments of torch.optim.AdamW are supported; "
                  "use --no_opt_state to start with fresh moments"},
                 {BB_FORMATS_DIR "/bitsandbytes_nested.pt", "its optimizer is bitsandbytes': only the moments of"},
                 {BB_FORMATS_DIR "/galore.pt",
                  "its optimizer is GaLore: only the moments of torch.optim.AdamW are supported; use "
                  "--no_opt_state to start with fresh moments"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run r = open_run(BB_OPTIM_ADAMW);
        bb_training_state training;
        assert_fails(bb_checkpoint_load(cases[i].path, r.model, r.optimizer, &training, &test_error), BB_ERR_UNSUPPORTED,
                     cases[i].part);
        assert_ok(bb_checkpoint_load(cases[i].path, r.model, NULL, &training, &test_error));
        assert_int_equal(training.step, 3);
        close_run(&r);
    }
}

static int open_all(void **state) {
    return scratch_create(state) != 0 || bb_device_open("cpu", 1, &device, &test_error) != BB_OK ? -1 : 0;
}

static int close_all(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(optimizer_state_is_resumed), cmocka_unit_test(scaler_is_resumed),
                                       cmocka_unit_test(resumes_without_optimizer_state),
                                       cmocka_unit_test(damaged_state_is_refused),
                                       cmocka_unit_test(other_optimizers_are_refused)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
