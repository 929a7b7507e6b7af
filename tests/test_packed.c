// SPDX-License-Identifier: MIT
/* Models for inference: f32 files and packed files give the same numbers to the last bit, in little memory; what such models
 * cannot do, and which packed files are refused. */
#include "support.h"

#include "core/file.h"
#include "core/rng.h"
#include "model/forward.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"
#include "random_bytes.h"
#include "scratch.h"

enum { V = 256, T = 33 };

#define CONFIG(layers, width, heads, kv, inner, quant)                                                                         \
    {                                                                                                                          \
        .vocab_size = V, .n_layer = (layers), .d_model = (width), .n_head = (heads), .n_kv_head = (kv), .d_ff = (inner),       \
        .rope_base = 1e4, .norm_eps = 1e-6, .act_quant = (quant)                                                               \
    }
/* widths that are multiples of nothing, of 4, of 16; segments that end within a panel */
static const bb_config configs[] = {CONFIG(2, 64, 4, 4, 96, true), CONFIG(2, 60, 6, 2, 53, true),
                                    CONFIG(1, 90, 3, 1, 130, true), CONFIG(1, 36, 2, 2, 70, false)};

static bb_device *open_device(const char *name) {
    bb_device *device;
    assert_ok(bb_device_open(name, 2, &device, &test_error));
    return device;
}

static bool same_bits(const float *a, const float *b, size_t n) { return memcmp(a, b, n * sizeof *a) == 0; }

static void logits_of(bb_model *model, const uint8_t *x, float *logits) {
    assert_ok(bb_model_forward(model, x, 1, T, logits, &test_error));
}

static void check_same_logits(const char *device_name) {
    bb_device *device = open_device(device_name);
    uint8_t x[T];
    fill_bytes(x, T);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        static float trained[T * V], loaded[T * V], packed[T * V];
        bb_model *model;
        assert_ok(bb_model_create(device, &configs[i], 3, &model, &test_error));
        model->trained_length = 77;
        assert_ok(bb_model_save(model, scratch_path("f32.safetensors"), &test_error));
        logits_of(model, x, trained);
        bb_model_free(model);

        assert_ok(bb_model_load_for_inference(device, scratch_path("f32.safetensors"), &model, &test_error));
        assert_int_equal(bb_model_trained_length(model), 77);
        logits_of(model, x, loaded);
        assert_ok(bb_model_export_packed(model, scratch_path("packed.safetensors"), &test_error));
        bb_model_free(model);

        assert_ok(bb_model_load_for_inference(device, scratch_path("packed.safetensors"), &model, &test_error));
        assert_int_equal(bb_model_trained_length(model), 77);
        logits_of(model, x, packed);
        assert_ok(bb_model_export_packed(model, scratch_path("again.safetensors"), &test_error));
        bb_model_free(model);

        if (configs[i].act_quant)
            assert_true(same_bits(trained, loaded, T * V));
        else /* another order of f32 sums; bf16 between the layers */
            assert_true(relative_error(loaded, trained, T * V) < 5e-3);
        assert_true(same_bits(loaded, packed, T * V));
        uint8_t *first, *second;
        size_t first_size, second_size;
        assert_ok(bb_file_read_all(scratch_path("packed.safetensors"), 0, &first, &first_size, &test_error));
        assert_ok(bb_file_read_all(scratch_path("again.safetensors"), 0, &second, &second_size, &test_error));
        assert_int_equal(first_size, second_size);
        assert_memory_equal(first, second, first_size);
        free(first);
        free(second);
    }
    bb_device_close(device);
}

static void packed_models_give_the_same_logits_on_ref(void **state) {
    (void)state;
    check_same_logits("ref");
}

static void packed_models_give_the_same_logits_on_cpu(void **state) {
    (void)state;
    check_same_logits("cpu");
}

static void an_inference_model_is_read_only(void **state) {
    (void)state;
    bb_device *device = open_device("cpu");
    bb_model *model, *loaded;
    assert_ok(bb_model_create(device, &configs[1], 5, &model, &test_error));
    assert_ok(bb_model_save(model, scratch_path("f32.safetensors"), &test_error));
    assert_ok(bb_model_load_for_inference(device, scratch_path("f32.safetensors"), &loaded, &test_error));
    assert_int_equal(bb_model_parameters(loaded), bb_model_parameters(model));
    for (int i = 0; i < bb_model_tensor_count(model); i++) {
        bb_tensor_info info;
        assert_ok(bb_model_tensor_info(loaded, i, &info, &test_error));
        size_t n = (size_t)(info.shape[0] * info.shape[1]);
        float *weights = malloc(n * sizeof *weights), *held = malloc(n * sizeof *held), scale;
        int8_t *q = malloc(n);
        assert_ok(bb_model_get_tensor(model, info.name, weights, n, &test_error));
        assert_ok(bb_model_get_tensor(loaded, info.name, held, n, &test_error));
        if (info.ternary) {
            assert_ok(bb_ternary_quantize(device, weights, info.shape[0], info.shape[1], q, &scale, &test_error));
            for (size_t j = 0; j < n; j++) weights[j] = scale * (float)q[j];
        }
        assert_true(same_bits(held, weights, n));
        if (info.ternary)
            assert_fails(bb_model_set_tensor(loaded, info.name, held, n, &test_error), BB_ERR_ARGUMENT, "for inference");
        free(weights);
        free(held);
        free(q);
    }
    /* what takes f32 weights is refused, and leaves the model as it was */
    bb_optimizer_options options;
    bb_optimizer *optimizer;
    uint8_t x[T];
    double loss;
    fill_bytes(x, T);
    bb_optimizer_options_default(&options);
    assert_fails(bb_optimizer_create(loaded, &options, &optimizer, &test_error), BB_ERR_ARGUMENT, "for inference");
    assert_fails(bb_model_loss_backward(loaded, &(bb_train_batch){x, x, 1, T}, 1, &loss, &test_error), BB_ERR_ARGUMENT,
                 "for inference");
    assert_fails(bb_model_save(loaded, scratch_path("no.safetensors"), &test_error), BB_ERR_ARGUMENT, "for inference");
    assert_fails(bb_model_export_packed(model, scratch_path("no.safetensors"), &test_error), BB_ERR_ARGUMENT, "for inference");
    assert_ok(bb_model_loss(loaded, &(bb_train_batch){x, x, 1, T}, &loss, &test_error));
    bb_model_free(loaded);
    bb_model_free(model);
    bb_device_close(device);
}

/* ---- files that are refused ------------------------------------------------------------------------------------------- */

static const char Q[] = "blocks.0.attn.q_proj.weight", Q_SCALE[] = "blocks.0.attn.q_proj.weight_scale";

typedef struct change {
    const char *tensor; /* whose entry or data is changed; renamed to `rename` where that is given */
    const char *rename; /* so that it is missing */
    int64_t columns;    /* of a matrix, in place of the right ones; 0: no change */
    int64_t byte;       /* of its data, becomes `value`; -1: none */
    uint8_t value[sizeof(float)];
    int value_bytes;
} change;

/* Copies the file without its checksums, with one change. */
static void write_changed(const char *from, const char *to, const change *c) {
    bb_tensor_source *st;
    bb_tensor_sink *w;
    assert_ok(bb_safetensors_open(from, &st, &test_error));
    int count = bb_tensor_source_count(st);
    bb_file_tensor *tensors = calloc((size_t)count, sizeof *tensors);
    bb_file_metadata metadata[] = {{"format", bb_tensor_source_metadata(st, "format")},
                                   {"config", bb_tensor_source_metadata(st, "config")}};
    for (int i = 0; i < count; i++) {
        tensors[i] = *bb_tensor_source_at(st, i);
        if (strcmp(tensors[i].name, c->tensor) != 0) continue;
        if (c->rename) tensors[i].name = c->rename;
        if (c->columns) tensors[i].shape[1] = c->columns;
    }
    assert_ok(bb_safetensors_create(to, tensors, count, metadata, 2, &w, &test_error));
    for (int i = 0; i < count; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(st, i);
        uint8_t *data = malloc(t->bytes);
        assert_ok(bb_tensor_source_read(st, t, data, &test_error));
        bool changed = strcmp(t->name, c->tensor) == 0;
        if (changed && c->byte >= 0) memcpy(data + c->byte, c->value, (size_t)c->value_bytes);
        size_t bytes = changed && c->columns ? (size_t)(t->shape[0] * c->columns) : (size_t)t->bytes;
        assert_true(bytes <= t->bytes);
        assert_ok(bb_tensor_sink_write(w, data, bytes, &test_error));
        free(data);
    }
    assert_ok(bb_tensor_sink_commit(w, &test_error));
    free(tensors);
    bb_tensor_source_close(st);
}

static void bad_packed_files_are_refused(void **state) {
    (void)state;
    static const struct {
        change change;
        const char *part;
    } cases[] = {
        {{.tensor = Q, .byte = 7, .value = {0x0c}, .value_bytes = 1}, "byte 7 is 0x0c: expected codes 0 to 2, found a 3"},
        {{.tensor = Q, .byte = 1023, .value = {0xc0}, .value_bytes = 1}, "byte 1023 is 0xc0"},
        {{.tensor = Q, .columns = 15, .byte = -1}, "expected U8 (64, 16), found U8 (64, 15)"},
        {{.tensor = Q, .rename = "other", .byte = -1}, "'blocks.0.attn.q_proj.weight' is missing"},
        {{.tensor = Q_SCALE, .rename = "other", .byte = -1}, "'blocks.0.attn.q_proj.weight_scale' is missing"},
        {{.tensor = Q_SCALE, .value = {0, 0, 0xc0, 0x7f}, .value_bytes = 4}, "expected a finite scale above 0, found nan"},
        {{.tensor = Q_SCALE, .value = {0, 0, 0x80, 0x7f}, .value_bytes = 4}, "expected a finite scale above 0, found inf"},
        {{.tensor = Q_SCALE, .value = {0, 0, 0x80, 0xbf}, .value_bytes = 4}, "expected a finite scale above 0, found -1"},
        {{.tensor = "norm_f.weight", .byte = 8, .value = {0, 0, 0xc0, 0x7f}, .value_bytes = 4}, "element 2 is NaN"},
    };
    bb_device *device = open_device("cpu");
    bb_model *model;
    assert_ok(bb_model_create(device, &configs[0], 5, &model, &test_error));
    assert_ok(bb_model_save(model, scratch_path("f32.safetensors"), &test_error));
    bb_model_free(model);
    assert_ok(bb_model_load_for_inference(device, scratch_path("f32.safetensors"), &model, &test_error));
    assert_ok(bb_model_export_packed(model, scratch_path("packed.safetensors"), &test_error));
    bb_model_free(model);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed(scratch_path("packed.safetensors"), scratch_path("bad.safetensors"), &cases[i].change);
        assert_fails(bb_model_load_for_inference(device, scratch_path("bad.safetensors"), &model, &test_error), BB_ERR_FORMAT,
                     cases[i].part);
        assert_message(test_error, "bad.safetensors");
        assert_null(model);
    }
    /* a packed model can't be trained, and says what could be */
    assert_fails(bb_model_load(device, scratch_path("packed.safetensors"), &model, &test_error), BB_ERR_ARGUMENT,
                 "packed at two bits");
    assert_message(test_error, "the original checkpoint");
    bb_device_close(device);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

static uint64_t resident_bytes(void) {
    unsigned long long kilobytes = 0;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmRSS: %llu kB", &kilobytes) == 1) break;
    if (status) fclose(status);
    return kilobytes * 1024;
}

/* 24 M parameters, 96 MB as f32: resident memory grows by the packed weights, a cache, a quarter of both, and, of so small a
 * model, its workspace and the operations' scratch. */
static void a_packed_model_takes_little_memory(void **state) {
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its shadow and what it holds back of freed memory count as resident */
#endif
    enum { CONTEXT = 2048 };
    const bb_config config = CONFIG(8, 512, 8, 8, 1408, true);
    bb_device *device = open_device("cpu");
    bb_model *model;
    bb_kv_cache cache;
    uint8_t x[T];
    float logits[V];
    fill_bytes(x, T);
    assert_ok(bb_model_create(device, &config, 5, &model, &test_error));
    assert_ok(bb_model_save(model, scratch_path("f32.safetensors"), &test_error));
    bb_model_free(model);
    uint64_t before = resident_bytes();
    if (before == 0) skip();
    assert_ok(bb_model_load_for_inference(device, scratch_path("f32.safetensors"), &model, &test_error));
    assert_ok(bb_kv_cache_open(model, CONTEXT, BB_KV_INT6, &cache, &test_error));
    memset(cache.kv.data, 0, cache.bytes); /* all of it is there, as after so many bytes */
    assert_ok(bb_model_forward_cached(model, &cache, x, T, false, logits, &test_error));
    uint64_t grown = resident_bytes() - before;
    double needed = 4.0 * (double)model->table.held + (double)model->quantized_bytes + (double)cache.bytes;
    const bb_attention attention = {.B = 1, .Tq = T, .Tk = CONTEXT, .H = 8, .Hk = 8, .D = 64};
    size_t besides = model->ws.bytes + device->ops->scratch_bytes(device, &attention, config.d_model, V);
    if (!((double)grown <= 1.25 * needed + (double)besides))
        fail_msg("%llu bytes more, for %.0f", (unsigned long long)grown, needed);
    bb_kv_cache_close(&cache);
    bb_model_free(model);
    bb_device_close(device);
}

/* Formats of f32 masters: the same weights under the same names, and the same logits. */
static void formats_of_masters_keep_weights_and_logits(void **state) {
    (void)state;
    bb_device *device = open_device("cpu");
    bb_model *model;
    bb_tensor_source *from, *to;
    bb_export_options options;
    static float before[T * V], after[T * V];
    uint8_t x[T];
    fill_bytes(x, T);
    bb_export_options_default(&options);
    assert_ok(bb_model_create(device, &configs[1], 3, &model, &test_error));
    assert_ok(bb_model_save(model, scratch_path("f32.safetensors"), &test_error));
    logits_of(model, x, before);
    bb_model_free(model);
    static const char *const formats[] = {"bitbyte", "safetensors"};
    for (int f = 0; f < 2; f++) {
        options.format = formats[f];
        assert_ok(bb_export(device, scratch_path("f32.safetensors"), scratch_path("out"), &options, &test_error));
        assert_ok(bb_tensor_source_open(scratch_path("f32.safetensors"), &from, &test_error));
        assert_ok(bb_tensor_source_open(scratch_path("out"), &to, &test_error));
        assert_int_equal(bb_tensor_source_count(to), bb_tensor_source_count(from) + f);
        const bb_file_tensor *head = bb_tensor_source_find(to, "lm_head.weight");
        assert_true((head != NULL) == (f == 1));
        for (int i = 0; i < bb_tensor_source_count(from); i++) {
            const bb_file_tensor *a = bb_tensor_source_at(from, i), *b = bb_tensor_source_find(to, a->name);
            assert_non_null(b);
            assert_int_equal(a->bytes, b->bytes);
            uint8_t *p = malloc(a->bytes), *q = malloc(a->bytes);
            assert_ok(bb_tensor_source_read(from, a, p, &test_error));
            assert_ok(bb_tensor_source_read(to, b, q, &test_error));
            assert_memory_equal(p, q, a->bytes);
            if (head && strcmp(a->name, "tok_emb.weight") == 0) {
                assert_ok(bb_tensor_source_read(to, head, q, &test_error));
                assert_memory_equal(p, q, a->bytes);
            }
            free(p);
            free(q);
        }
        bb_tensor_source_close(from);
        bb_tensor_source_close(to);
        assert_ok(bb_model_load(device, scratch_path("out"), &model, &test_error));
        logits_of(model, x, after);
        assert_true(same_bits(before, after, T * V));
        bb_model_free(model);
    }
    options.format = "gguv";
    assert_fails(bb_export(device, scratch_path("f32.safetensors"), scratch_path("no"), &options, &test_error), BB_ERR_ARGUMENT,
                 "the formats are packed, bitbyte");
    options.format = "bitbyte";
    options.type = "f16";
    assert_fails(bb_export(device, scratch_path("f32.safetensors"), scratch_path("no"), &options, &test_error), BB_ERR_ARGUMENT,
                 "only one type");
    bb_device_close(device);
}

static void a_model_is_not_packed_over_its_own_file(void **state) {
    (void)state;
    bb_device *device = open_device("ref");
    bb_model *model;
    uint8_t *before, *after;
    size_t before_size, after_size;
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_path("own.safetensors"));
    assert_ok(bb_model_create(device, &configs[0], 3, &model, &test_error));
    assert_ok(bb_model_save(model, path, &test_error));
    bb_model_free(model);
    assert_ok(bb_file_read_all(path, 0, &before, &before_size, &test_error));
    assert_int_equal(link(path, scratch_path("hard")), 0);
    assert_int_equal(symlink(path, scratch_path("soft")), 0);
    assert_ok(bb_model_load_for_inference(device, path, &model, &test_error));
    const char *const names[] = {"own.safetensors", "hard", "soft"};
    for (int i = 0; i < 3; i++)
        assert_fails(bb_model_export_packed(model, scratch_path(names[i]), &test_error), BB_ERR_ARGUMENT, "loaded from");
    assert_ok(bb_file_read_all(path, 0, &after, &after_size, &test_error));
    assert_int_equal(after_size, before_size);
    assert_memory_equal(after, before, before_size);
    free(before);
    free(after);
    bb_model_free(model);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(packed_models_give_the_same_logits_on_ref),
                                       cmocka_unit_test(packed_models_give_the_same_logits_on_cpu),
                                       cmocka_unit_test(an_inference_model_is_read_only),
                                       cmocka_unit_test(bad_packed_files_are_refused),
                                       cmocka_unit_test(formats_of_masters_keep_weights_and_logits),
                                       cmocka_unit_test(a_packed_model_takes_little_memory),
                                       cmocka_unit_test(a_model_is_not_packed_over_its_own_file)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
