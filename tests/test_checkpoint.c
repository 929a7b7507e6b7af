// SPDX-License-Identifier: MIT
/* Model and checkpoint files: a round trip, and every kind of bad file is refused without changing anything. */
#include "support.h"

#include <unistd.h>

#include "core/file.h"
#include "modelfile/safetensors.h"
#include "scratch.h"
#include "training/checkpoint_read.h"
#include "training/checkpoint_write.h"

static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 1,
                               .d_model = 16,
                               .n_head = 2,
                               .n_kv_head = 1,
                               .d_ff = 20,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

typedef struct fixture {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    uint8_t *bytes; /* a good checkpoint */
    size_t size;
} fixture;

static fixture f;

static int setup(void **state) {
    bb_optimizer_options options;
    bb_training_state ts = {.step = 7, .samples = 56, .bytes_seen = 1792, .trained_length = 32, .optimizer_steps = 6};
    if (scratch_create(state)) return -1;
    bb_optimizer_options_default(&options);
    assert_ok(bb_device_open("cpu", 1, &f.device, &test_error));
    assert_ok(bb_model_create(f.device, &tiny, 5, &f.model, &test_error));
    assert_ok(bb_optimizer_create(f.model, &options, &f.optimizer, &test_error));
    f.model->trained_length = 32;
    assert_ok(bb_checkpoint_save(scratch_path("good"), f.model, f.optimizer, &ts, &test_error));
    assert_ok(bb_file_read_all(scratch_path("good"), 0, &f.bytes, &f.size, &test_error));
    return 0;
}

static int teardown(void **state) {
    free(f.bytes);
    bb_optimizer_free(f.optimizer);
    bb_model_free(f.model);
    bb_device_close(f.device);
    return scratch_remove(state);
}

static void a_checkpoint_brings_back_all_of_its_state(void **state) {
    (void)state;
    bb_model *loaded;
    float a[16 * 20], b[16 * 20];
    assert_ok(bb_model_load(f.device, scratch_path("good"), &loaded, &test_error));
    assert_int_equal(bb_model_trained_length(loaded), 32);
    const bb_config *config = bb_model_config(loaded);
    assert_int_equal(config->n_kv_head, tiny.n_kv_head);
    assert_int_equal(config->d_ff, tiny.d_ff);
    assert_true(config->act_quant && config->ste == BB_STE_IDENTITY);
    assert_true(fabs(config->norm_eps - 1e-6) < 1e-18);
    assert_ok(bb_model_get_tensor(f.model, "blocks.0.mlp.down.weight", a, 320, &test_error));
    assert_ok(bb_model_get_tensor(loaded, "blocks.0.mlp.down.weight", b, 320, &test_error));
    assert_memory_equal(a, b, sizeof a);
    /* a model file holds no more than the model */
    assert_ok(bb_model_save(loaded, scratch_path("model"), &test_error));
    bb_tensor_source *st;
    assert_ok(bb_safetensors_open(scratch_path("model"), &st, &test_error));
    assert_int_equal(bb_tensor_source_count(st), bb_model_tensor_count(loaded));
    assert_null(bb_tensor_source_metadata(st, "training_state"));
    bb_tensor_source_close(st);
    bb_model_free(loaded);

    bb_training_state ts;
    assert_ok(bb_checkpoint_load(scratch_path("good"), f.model, f.optimizer, &ts, &test_error));
    assert_int_equal(ts.step, 7);
    assert_int_equal(ts.samples, 56);
    assert_int_equal(f.optimizer->steps, 6);
    assert_fails(bb_checkpoint_load(scratch_path("model"), f.model, f.optimizer, &ts, &test_error), BB_ERR_ARGUMENT,
                 "use --init to start from its weights, or resume with --no_opt_state");
    assert_ok(bb_checkpoint_load(scratch_path("model"), f.model, NULL, &ts, &test_error));
    assert_int_equal(ts.step, 0);
}

/* Loads `size` bytes as a file: it must fail, and neither model nor optimizer may have changed. */
static void refused(const uint8_t *bytes, size_t size, bb_status code, const char *part) {
    bb_model *loaded = NULL;
    bb_training_state ts = {.step = -5};
    float before[256], after[256];
    assert_true(scratch_write(scratch_path("bad"), bytes, size));
    assert_ok(bb_model_get_tensor(f.model, "blocks.0.attn.q_proj.weight", before, 256, &test_error));
    assert_fails(bb_model_load(f.device, scratch_path("bad"), &loaded, &test_error), code, part);
    assert_null(loaded);
    assert_non_null(strstr(test_error.message, "bad")); /* the file is named */
    assert_fails(bb_checkpoint_load(scratch_path("bad"), f.model, f.optimizer, &ts, &test_error), code, part);
    assert_int_equal(ts.step, -5);
    assert_ok(bb_model_get_tensor(f.model, "blocks.0.attn.q_proj.weight", after, 256, &test_error));
    assert_memory_equal(before, after, sizeof before);
}

static uint8_t *copy_of_good(void) {
    uint8_t *c = malloc(f.size);
    assert_non_null(c);
    memcpy(c, f.bytes, f.size);
    return c;
}

/* Replaces the first `from` in the header by `to`, of the same length. */
static uint8_t *edited(const char *from, const char *to) {
    assert_int_equal(strlen(from), strlen(to));
    uint8_t *c = copy_of_good();
    uint8_t *at = memmem(c, f.size, from, strlen(from));
    if (!at) print_error("the file has no %s\n", from);
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    return c;
}

static void refused_edit(const char *from, const char *to, bb_status code, const char *part) {
    uint8_t *c = edited(from, to);
    refused(c, f.size, code, part);
    free(c);
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    bb_model *loaded;
    assert_fails(bb_model_load(f.device, scratch_path("missing"), &loaded, &test_error), BB_ERR_IO, "missing");
    refused(f.bytes, 0, BB_ERR_FORMAT, "");
    refused(f.bytes, 5, BB_ERR_FORMAT, "");
    refused(f.bytes, 100, BB_ERR_FORMAT, "");
    refused(f.bytes, f.size - 1, BB_ERR_FORMAT, "");
    refused(f.bytes, f.size / 2, BB_ERR_FORMAT, "");
    uint8_t *c = copy_of_good();
    memset(c, 0xff, 8); /* a header longer than any file */
    refused(c, f.size, BB_ERR_FORMAT, "header");
    free(c);
    refused_edit("\"format\"", "\"format'", BB_ERR_FORMAT, "JSON");
}

static void files_with_wrong_tensors_are_refused(void **state) {
    (void)state;
    refused_edit("\"config\"", "\"konfig\"", BB_ERR_FORMAT, "config");
    /* a model of another width than its tensors */
    bb_model *loaded;
    uint8_t *c = edited("\\\"d_model\\\":16", "\\\"d_model\\\":20");
    assert_true(scratch_write(scratch_path("bad"), c, f.size));
    assert_fails(bb_model_load(f.device, scratch_path("bad"), &loaded, &test_error), BB_ERR_FORMAT,
                 "expected F32 (256, 20), found F32 (256, 16)");
    free(c);
    refused_edit("\\\"n_head\\\":2", "\\\"n_head\\\":3", BB_ERR_FORMAT, "n_head");
    refused_edit("blocks.0.mlp.down.weight", "blocks.0.mlp.town.weight", BB_ERR_FORMAT, "blocks.0.mlp.down.weight");
}

static void refused_state(const char *from, const char *to, const char *part) {
    bb_training_state ts = {.step = -5};
    uint8_t *c = edited(from, to);
    assert_true(scratch_write(scratch_path("bad"), c, f.size));
    assert_fails(bb_checkpoint_load(scratch_path("bad"), f.model, f.optimizer, &ts, &test_error), BB_ERR_FORMAT, part);
    assert_int_equal(ts.step, -5);
    free(c);
}

static void a_wrong_training_state_is_refused(void **state) {
    (void)state;
    refused_state("\\\"step\\\":7", "\\\"step\\\":x", "bad: training state: not JSON at byte 9");
    refused_state("\\\"step\\\":7", "\\\"stop\\\":7", "bad: training state: step should be an integer >= 0, is nothing");
    refused_state("\\\"samples\\\":56", "\\\"samples\\\":-6", "samples should be an integer >= 0, is negative");
    refused_state("\\\"scaler_scale\\\":0", "\\\"scaler_scala\\\":0", "scaler_scale should be a number >= 0, is nothing");
}

static void values_that_are_not_finite_are_refused(void **state) {
    (void)state;
    static const struct {
        float value;
        const char *part;
    } bad[] = {{NAN, "NaN"}, {INFINITY, "infinite"}};
    for (size_t i = 0; i < 2; i++) {
        bb_tensor_source *st;
        assert_ok(bb_safetensors_open(scratch_path("good"), &st, &test_error));
        const bb_file_tensor *t = bb_tensor_source_find(st, "blocks.0.mlp.down.weight");
        assert_non_null(t);
        size_t from_end = 0; /* the data section ends with the file */
        for (int j = 0; j < bb_tensor_source_count(st); j++) {
            const bb_file_tensor *other = bb_tensor_source_at(st, j);
            if (other->offset + other->bytes > from_end) from_end = other->offset + other->bytes;
        }
        size_t at = f.size - from_end + t->offset + 5 * sizeof(float);
        bb_tensor_source_close(st);
        uint8_t *c = copy_of_good();
        memcpy(c + at, &bad[i].value, sizeof(float));
        char part[96];
        snprintf(part, sizeof part, "'blocks.0.mlp.down.weight': element 5 is %s", bad[i].part);
        refused(c, f.size, BB_ERR_FORMAT, part);
        free(c);
    }
}

static void a_checkpoint_of_another_configuration_is_refused(void **state) {
    (void)state;
    bb_config wider = tiny;
    bb_model *other;
    wider.d_ff = 24;
    assert_ok(bb_model_create(f.device, &wider, 1, &other, &test_error));
    assert_fails(bb_checkpoint_load(scratch_path("good"), other, NULL, NULL, &test_error), BB_ERR_ARGUMENT,
                 "the file's model has d_ff 20, this one has 24");
    bb_model_free(other);
}

/* The disk fills while a checkpoint is written over a good one: the good one stays, and nothing else. */
static void a_full_disk_leaves_the_good_checkpoint(void **state) {
    (void)state;
    char disk[512], file[600];
    snprintf(disk, sizeof disk, "%s", scratch_path("disk"));
    if (!scratch_mount_disk(disk, 64)) skip();
    snprintf(file, sizeof file, "%s/step-00000001.safetensors", disk);
    assert_true(scratch_write(file, f.bytes, 1000));
    bb_status status = bb_model_save(f.model, file, &test_error);
    for (int i = 0; i < 8 && status == BB_OK; i++) { /* until it is full: 22 KB each */
        snprintf(file, sizeof file, "%s/%d", disk, i);
        status = bb_model_save(f.model, file, &test_error);
    }
    bool said = strstr(test_error.message, "No space left") != NULL, gone = access(file, F_OK) != 0;
    int entries = scratch_count_entries(disk);
    bb_model *loaded = NULL;
    snprintf(file, sizeof file, "%s/step-00000001.safetensors", disk);
    bb_status first = bb_model_load(f.device, file, &loaded, NULL);
    bb_model_free(loaded);
    assert_true(scratch_unmount_disk(disk));
    assert_int_equal(status, BB_ERR_IO);
    assert_true(said);
    assert_true(gone);
    assert_int_equal(first, BB_OK);
    assert_true(entries >= 1 && entries <= 3);
}

static void describe_tells_what_is_there(void **state) {
    (void)state;
    char *text;
    assert_ok(bb_describe_file(scratch_path("good"), NULL, &text, &test_error));
    assert_non_null(strstr(text, "\"kind\": \"checkpoint\""));
    assert_non_null(strstr(text, "blocks.0.attn.k_proj.weight"));
    assert_non_null(strstr(text, "\"step\": 7"));
    bb_string_free(text);
    assert_fails(bb_describe_file(scratch_path("missing"), NULL, &text, &test_error), BB_ERR_IO, "missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_checkpoint_brings_back_all_of_its_state),
                                       cmocka_unit_test(damaged_files_are_refused),
                                       cmocka_unit_test(files_with_wrong_tensors_are_refused),
                                       cmocka_unit_test(a_wrong_training_state_is_refused),
                                       cmocka_unit_test(values_that_are_not_finite_are_refused),
                                       cmocka_unit_test(a_checkpoint_of_another_configuration_is_refused),
                                       cmocka_unit_test(a_full_disk_leaves_the_good_checkpoint),
                                       cmocka_unit_test(describe_tells_what_is_there)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
