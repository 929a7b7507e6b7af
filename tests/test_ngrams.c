// SPDX-License-Identifier: MIT
/* Models with n-gram embeddings: which rows a text looks up, and that all passes through such a model give the same results. */
#include "support.h"

#include "coding/model_hash.h"
#include "core/rng.h"
#include "guarded.h"
#include "model/forward.h"
#include "modelfile/layouts.h"
#include "random_bytes.h"
#include "scratch.h"

enum { T = 40, V = 256 };
#define TABLE "ngram_emb.weight"

static const bb_config config = {.vocab_size = V,
                                 .n_layer = 2,
                                 .d_model = 60,
                                 .n_head = 6,
                                 .n_kv_head = 2,
                                 .d_ff = 52,
                                 .rope_base = 1e4,
                                 .norm_eps = 1e-6,
                                 .act_quant = true,
                                 .ngram_max = 4,
                                 .ngram_bits = 6};
enum { ROWS = 3 << 6, COUNT = ROWS * 60 };

static const char *const devices[] = {"ref", "cpu", "guarded"};
enum { DEVICES = sizeof devices / sizeof *devices };

static bb_device *open_device(const char *name) {
    bb_device *device;
    assert_ok(bb_device_open(name, 2, &device, &test_error));
    return device;
}

/* New tables are zeros, which would hide mistakes: random values, and some rows of zeros. */
static bb_model *new_model(bb_device *device) {
    bb_model *model;
    float *values = malloc(COUNT * sizeof *values);
    assert_ok(bb_model_create(device, &config, 3, &model, &test_error));
    for (int i = 0; i < COUNT; i++)
        values[i] = i / 60 % 16 == 5 ? 0 : (float)bb_rng_normal(7, BB_STREAM_BENCH, (uint64_t)i) * (float)(1 + i / 60 % 3);
    assert_ok(bb_model_set_tensor(model, TABLE, values, COUNT, &test_error));
    free(values);
    return model;
}

static void logits_of(bb_model *model, const uint8_t *x, float *logits) {
    assert_ok(bb_model_forward(model, x, 1, T, logits, &test_error));
}

static void assert_same(const float *a, const float *b, size_t n) { assert_memory_equal(a, b, n * sizeof *a); }

/* ---- rows ------------------------------------------------------------------------------------------------------------------ */

/* docs/FORMAT.md: row (n-2) 2^bits + the first bits of the product of 0x9E3779B97F4A7C15 and the bytes as a number, the last byte
 * lowest. */
static int64_t row_of(const uint8_t *end, int n) {
    uint64_t key = 0;
    for (int i = n - 1; i >= 0; i--) key = key << 8 | end[-i];
    return ((int64_t)(n - 2) << config.ngram_bits) + (int64_t)(key * 0x9E3779B97F4A7C15u >> (64 - config.ngram_bits));
}

static void a_byte_looks_up_the_bytes_before_it(void **state) {
    (void)state;
    uint8_t x[T];
    int32_t index[3 * T], later[3 * T];
    fill_bytes(x, T);
    bb_ngram_index(&config, x, 0, T, index);
    for (int t = 0; t < T; t++)
        for (int n = 2; n <= 4; n++) assert_int_equal(index[3 * t + n - 2], t + 1 < n ? -1 : row_of(x + t, n));
    bb_ngram_index(&config, x + 2, 2, T - 2, later);
    assert_memory_equal(later, index + 6, 3 * (T - 2) * sizeof *later);
    bb_ngram_index(&config, (const uint8_t *)"ab", 0, 2, index);
    assert_int_equal(index[3], 37); /* fixed: files depend on it */
}

/* ---- passes ---------------------------------------------------------------------------------------------------------------- */

static void the_table_matters(void **state) {
    (void)state;
    bb_device *device = open_device("cpu");
    bb_model *model = new_model(device);
    uint8_t x[T];
    float *a = malloc((size_t)T * V * sizeof *a), *b = malloc((size_t)T * V * sizeof *b);
    float *zeros = calloc(COUNT, sizeof *zeros);
    fill_bytes(x, T);
    logits_of(model, x, a);
    assert_ok(bb_model_set_tensor(model, TABLE, zeros, COUNT, &test_error));
    logits_of(model, x, b);
    assert_same(a, b, V); /* the first byte has no n-gram */
    assert_true(relative_error(a + V, b + V, V) > 0.1);
    free(a);
    free(b);
    free(zeros);
    bb_model_free(model);
    bb_device_close(device);
}

static void the_devices_agree(void **state) {
    (void)state;
    uint8_t x[T];
    float *first = malloc((size_t)T * V * sizeof *first), *logits = malloc((size_t)T * V * sizeof *logits);
    fill_bytes(x, T);
    for (int i = 0; i < DEVICES; i++) {
        bb_device *device = open_device(devices[i]);
        bb_model *model = new_model(device);
        logits_of(model, x, i ? logits : first);
        if (i) assert_true(relative_error(logits, first, (size_t)T * V) < 1e-5);
        bb_model_free(model);
        bb_device_close(device);
    }
    free(first);
    free(logits);
}

/* Pieces, and a second text after the first was cut off in its middle. */
static void the_cache_equals_the_full_pass(void **state) {
    (void)state;
    uint8_t x[T];
    float *full = malloc((size_t)T * V * sizeof *full), *logits = malloc((size_t)T * V * sizeof *logits);
    for (int i = 0; i < DEVICES; i++) {
        bb_device *device = open_device(devices[i]);
        bb_model *model = new_model(device);
        bb_kv_cache cache, copy;
        assert_ok(bb_kv_cache_open(model, T, BB_KV_F32, &cache, &test_error));
        assert_ok(bb_kv_cache_open(model, T, BB_KV_F32, &copy, &test_error));
        fill_bytes(x, T);
        assert_ok(bb_model_forward_cached(model, &cache, x, 11, false, logits, &test_error));
        x[10] ^= 1;
        cache.length = 10;
        logits_of(model, x, full);
        assert_ok(bb_model_forward_cached(model, &cache, x + 10, 5, true, logits, &test_error));
        for (int t = 0; t < 5; t++) assert_true(relative_error(logits + t * V, full + (10 + t) * V, V) < 1e-5);
        bb_kv_cache_copy(&copy, &cache, 13);
        for (int t = 13; t < T; t++) {
            assert_ok(bb_model_forward_cached(model, &copy, x + t, 1, true, logits, &test_error));
            assert_true(relative_error(logits, full + t * V, V) < 1e-5);
        }
        bb_kv_cache_close(&cache);
        bb_kv_cache_close(&copy);
        bb_model_free(model);
        bb_device_close(device);
    }
    free(full);
    free(logits);
}

/* ---- files ----------------------------------------------------------------------------------------------------------------- */

static void check_files(const char *name) {
    bb_device *device = open_device(name);
    bb_model *model = new_model(device), *loaded, *packed;
    uint8_t x[T], hash[BB_MODEL_HASH_BYTES], other[BB_MODEL_HASH_BYTES];
    float *want = malloc((size_t)T * V * sizeof *want), *logits = malloc((size_t)T * V * sizeof *logits);
    float *rows = malloc(COUNT * sizeof *rows), *again = malloc(COUNT * sizeof *again);
    fill_bytes(x, T);
    logits_of(model, x, want);
    assert_ok(bb_model_hash(model, hash, &test_error));
    assert_ok(bb_model_save(model, scratch_path("m.safetensors"), &test_error));
    assert_ok(bb_model_load_for_inference(device, scratch_path("m.safetensors"), &loaded, &test_error));
    assert_int_equal(bb_model_config(loaded)->ngram_max, 4);
    logits_of(loaded, x, logits);
    assert_same(logits, want, (size_t)T * V);
    assert_ok(bb_model_export_packed(loaded, scratch_path("p.safetensors"), &test_error));
    assert_ok(bb_model_load_for_inference(device, scratch_path("p.safetensors"), &packed, &test_error));
    logits_of(packed, x, logits);
    assert_same(logits, want, (size_t)T * V);
    assert_ok(bb_model_hash(packed, other, &test_error));
    assert_memory_equal(hash, other, sizeof hash);
    assert_fails(bb_model_set_tensor(packed, TABLE, rows, COUNT, &test_error), BB_ERR_ARGUMENT, "cannot be set");

    for (int i = 0; i < 2; i++)
        assert_ok(bb_model_get_tensor(i ? packed : loaded, TABLE, i ? again : rows, COUNT, &test_error));
    assert_same(rows, again, COUNT);
    bb_model_free(packed);
    bb_model_free(loaded);
    bb_model_free(model);
    free(want);
    free(logits);
    free(rows);
    free(again);
    bb_device_close(device);
}

static void files_give_the_same_logits(void **state) {
    (void)state;
    for (int i = 0; i < DEVICES; i++) check_files(devices[i]);
}

/* Copies a file with another element 3 of a tensor, and without checksums, which would be what is wrong with it. */
static void change_tensor(const char *from, const char *to, const char *name, size_t element_bytes, const void *value) {
    bb_tensor_source *source;
    assert_ok(bb_tensor_source_open(from, &source, &test_error));
    const bb_file_tensor *t = bb_tensor_source_find(source, name);
    assert_non_null(t);
    uint8_t *tensor = malloc((size_t)t->bytes), *file, *place;
    assert_ok(bb_tensor_source_read(source, t, tensor, &test_error));
    size_t size = 0, bytes = (size_t)t->bytes;
    FILE *f = fopen(from, "rb");
    assert_non_null(f);
    file = malloc(1 << 20);
    size = fread(file, 1, 1 << 20, f);
    fclose(f);
    place = memmem(file, size, tensor, bytes);
    assert_non_null(place);
    memcpy(place + 3 * element_bytes, value, element_bytes);
    place = memmem(file, size, "tensor_xxh3", 11);
    assert_non_null(place);
    place[10] = '0';
    f = fopen(to, "wb");
    assert_int_equal(fwrite(file, 1, size, f), size);
    fclose(f);
    free(tensor);
    free(file);
    bb_tensor_source_close(source);
}

static void damaged_codes_are_refused(void **state) {
    (void)state;
    bb_device *device = open_device("cpu");
    bb_model *model = new_model(device), *loaded;
    const uint16_t negative = 0xbf80, nan = 0x7fc0;
    const uint8_t none = 0x80;
    const struct {
        const char *tensor;
        size_t bytes;
        const void *value;
        const char *message;
    } cases[] = {{TABLE, 1, &none, "is -128, expected codes"},
                 {TABLE "_scale", 2, &negative, "element 3 is -1, expected a finite scale"},
                 {TABLE "_scale", 2, &nan, "expected a finite scale"}};
    assert_ok(bb_model_save(model, scratch_path("d.safetensors"), &test_error));
    assert_ok(bb_model_load_for_inference(device, scratch_path("d.safetensors"), &loaded, &test_error));
    assert_ok(bb_model_export_packed(loaded, scratch_path("dp.safetensors"), &test_error));
    bb_model_free(loaded);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        change_tensor(scratch_path("dp.safetensors"), scratch_path("bad.safetensors"), cases[i].tensor, cases[i].bytes,
                      cases[i].value);
        assert_fails(bb_model_load_for_inference(device, scratch_path("bad.safetensors"), &loaded, &test_error), BB_ERR_FORMAT,
                     TABLE);
    }
    bb_model_free(model);
    bb_device_close(device);
}

static void only_our_formats_hold_them(void **state) {
    (void)state;
    bb_device *device = open_device("cpu");
    bb_model *model = new_model(device);
    bb_export_options options;
    assert_ok(bb_model_save(model, scratch_path("e.safetensors"), &test_error));
    bb_export_options_default(&options);
    static const char *const refused[] = {"gguf", "hf", "safetensors"};
    for (int i = 0; i < 3; i++) {
        options.format = refused[i];
        assert_fails(bb_export(device, scratch_path("e.safetensors"), scratch_path("out"), &options, &test_error),
                     BB_ERR_UNSUPPORTED, "n-gram embeddings (--arch plus)");
    }
    options.format = "bitbyte";
    assert_ok(bb_export(device, scratch_path("e.safetensors"), scratch_path("out.safetensors"), &options, &test_error));
    bb_model_free(model);
    bb_device_close(device);
}

/* ---- training -------------------------------------------------------------------------------------------------------------- */

/* A step changes the rows that the batch looks up, and no others. */
static void check_step(const char *name, bb_optimizer_kind kind) {
    bb_device *device = open_device(name);
    bb_model *model = new_model(device);
    bb_optimizer *optimizer;
    bb_optimizer_options options;
    uint8_t x[T + 1];
    double loss, again, norm;
    bool applied, seen[ROWS] = {false};
    int32_t index[3 * T];
    float *before = malloc(COUNT * sizeof *before), *after = malloc(COUNT * sizeof *after);
    const bb_train_batch batch = {.x = x, .y = x + 1, .batch_size = 2, .seq_len = T / 2};
    fill_bytes(x, T + 1);
    bb_optimizer_options_default(&options);
    options.kind = kind;
    options.lr = 1e-4;
    assert_ok(bb_optimizer_create(model, &options, &optimizer, &test_error));
    assert_ok(bb_model_zero_gradients(model, &test_error));
    assert_ok(bb_model_loss_backward(model, &batch, 1, &loss, &test_error));
    assert_ok(bb_model_get_tensor(model, TABLE, before, COUNT, &test_error));
    assert_ok(bb_optimizer_step(optimizer, 1e-4, 1, 1, &norm, &applied, &test_error));
    assert_true(applied);
    assert_ok(bb_model_get_tensor(model, TABLE, after, COUNT, &test_error));
    for (int b = 0; b < 2; b++) bb_ngram_index(&config, x + b * T / 2, 0, T / 2, index + b * 3 * T / 2);
    for (int i = 0; i < 3 * T; i++)
        if (index[i] >= 0) seen[index[i]] = true;
    for (int r = 0; r < ROWS; r++) {
        bool changed = memcmp(before + r * 60, after + r * 60, 60 * sizeof *before) != 0;
        assert_int_equal(changed, seen[r]);
    }
    assert_ok(bb_model_loss(model, &batch, &again, &test_error));
    assert_true(again < loss);
    free(before);
    free(after);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

static void a_step_changes_the_rows_of_the_batch(void **state) {
    (void)state;
    for (int i = 0; i < DEVICES; i++)
        for (int kind = BB_OPTIM_ADAMW; kind <= BB_OPTIM_MUON; kind++) check_step(devices[i], (bb_optimizer_kind)kind);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_looks_up_the_bytes_before_it),
        cmocka_unit_test(the_table_matters),
        cmocka_unit_test(the_devices_agree),
        cmocka_unit_test(the_cache_equals_the_full_pass),
        cmocka_unit_test(files_give_the_same_logits),
        cmocka_unit_test(damaged_codes_are_refused),
        cmocka_unit_test(only_our_formats_hold_them),
        cmocka_unit_test(a_step_changes_the_rows_of_the_batch),
    };
    guarded_register();
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
