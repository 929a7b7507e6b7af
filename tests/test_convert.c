// SPDX-License-Identifier: MIT
/* Converts every format to every other: the integers and scales stay the same. The file does not depend on the device that
 * wrote it; a source is never overwritten. */
#include "support.h"

#include "core/file.h"
#include "exact_model.h"
#include "scratch.h"

enum { V = 256 };

static const bb_config config = {.vocab_size = V,
                                 .n_layer = 2,
                                 .d_model = 256,
                                 .n_head = 4,
                                 .n_kv_head = 2,
                                 .d_ff = 512,
                                 .rope_base = 5e4,
                                 .norm_eps = 1e-5,
                                 .act_quant = true,
                                 .ste = BB_STE_CLIPPED};

static const struct {
    const char *format, *type, *name;
} formats[] = {{"packed", NULL, "packed.safetensors"},
               {"bitbyte", NULL, "bitbyte.safetensors"},
               {"safetensors", NULL, "original.safetensors"},
               {"gguf", "tq2_0", "tq2_0.gguf"},
               {"gguf", "q2_0", "q2_0.gguf"},
               {"gguf", "f32", "f32.gguf"},
               {"hf", "f32", "hf"}};
enum { FORMATS = sizeof formats / sizeof *formats };

static bb_device *device;

static bb_status convert(bb_device *on, const char *from, const char *to, const char *format, const char *type) {
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = format;
    options.type = type;
    return bb_export(on, from, to, &options, &test_error);
}

static void expect_same_file(const char *path, const char *expected) {
    uint8_t *data;
    size_t size;
    assert_ok(bb_file_read_all(expected, 0, &data, &size, &test_error));
    if (!scratch_holds(path, data, size)) fail_msg("%s differs from %s", path, expected);
    free(data);
}

static void every_pair_of_formats_converts(void **state) {
    (void)state;
    exact_model_save(device, &config, 0x1p-6f, scratch_path("from.safetensors"));
    for (int i = 0; i < FORMATS; i++)
        assert_ok(convert(device, scratch_path("from.safetensors"), scratch_path(formats[i].name), formats[i].format,
                          formats[i].type));
    expect_same_file(scratch_path("bitbyte.safetensors"), scratch_path("from.safetensors"));
    for (int i = 0; i < FORMATS; i++)
        for (int k = 0; k < FORMATS; k++) {
            char to[64];
            (void)snprintf(to, sizeof to, "%d-%d%s", i, k, strcmp(formats[k].format, "hf") == 0 ? "" : ".file");
            assert_ok(convert(device, scratch_path(formats[i].name), scratch_path(to), formats[k].format, formats[k].type));
            assert_ok(convert(device, scratch_path(to), scratch_path("packed.again"), "packed", NULL));
            expect_same_file(scratch_path("packed.again"), scratch_path("packed.safetensors"));
            if (strcmp(formats[k].format, "hf") != 0) expect_same_file(scratch_path(to), scratch_path(formats[k].name));
        }
}

/* Masters made from g q give the same codes, and a scale that differs in its last places at most. */
static void masters_of_codes_give_the_same_codes(void **state) {
    (void)state;
    static const int quantized[] = {0, 5, 6}; /* whose scales are f32 */
    bb_model *a, *b;
    exact_model_save(device, &config, 0, scratch_path("random.safetensors"));
    assert_ok(bb_model_load_for_inference(device, scratch_path("random.safetensors"), &a, &test_error));
    for (size_t i = 0; i < sizeof quantized / sizeof *quantized; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "random-%zu", i);
        assert_ok(convert(device, scratch_path("random.safetensors"), scratch_path(name), formats[quantized[i]].format,
                          formats[quantized[i]].type));
        assert_ok(convert(device, scratch_path(name), scratch_path("masters.safetensors"), "bitbyte", NULL));
        assert_ok(bb_model_load_for_inference(device, scratch_path("masters.safetensors"), &b, &test_error));
        for (int t = 0; t < bb_model_tensor_count(a); t++) {
            bb_tensor_info info;
            assert_ok(bb_model_tensor_info(a, t, &info, &test_error));
            size_t n = (size_t)(info.shape[0] * (info.rank == 2 ? info.shape[1] : 1));
            float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
            assert_ok(bb_model_get_tensor(a, info.name, x, n, &test_error));
            assert_ok(bb_model_get_tensor(b, info.name, y, n, &test_error));
            for (size_t k = 0; k < n; k++)
                if (fabsf(x[k] - y[k]) > (info.ternary ? 0x1p-22f * fabsf(x[k]) : 0))
                    fail_msg("%s: element %zu: %.9g, not %.9g", info.name, k, (double)y[k], (double)x[k]);
            free(x);
            free(y);
        }
        bb_model_free(b);
    }
    bb_model_free(a);
}

static void devices_write_the_same_bytes(void **state) {
    (void)state;
    bb_device *ref;
    assert_ok(bb_device_open("ref", 1, &ref, &test_error));
    exact_model_save(device, &config, 0, scratch_path("random.safetensors"));
    for (int i = 0; i < FORMATS - 1; i++) {
        assert_ok(
            convert(device, scratch_path("random.safetensors"), scratch_path("of_cpu"), formats[i].format, formats[i].type));
        assert_ok(convert(ref, scratch_path("random.safetensors"), scratch_path("of_ref"), formats[i].format, formats[i].type));
        expect_same_file(scratch_path("of_ref"), scratch_path("of_cpu"));
    }
    bb_device_close(ref);
}

static void sources_are_never_overwritten(void **state) {
    (void)state;
    const char *from = scratch_path("from.safetensors"), *hf = scratch_path("source_hf");
    char config_path[600], weights[600];
    (void)snprintf(config_path, sizeof config_path, "%s/config.json", hf);
    (void)snprintf(weights, sizeof weights, "%s/model.safetensors", hf);
    exact_model_save(device, &config, 0x1p-6f, from);
    assert_string_equal(bb_export_format_for("a.gguf"), "gguf");
    assert_string_equal(bb_export_format_for("A.GGUF"), "gguf");
    assert_string_equal(bb_export_format_for("new/"), "hf");
    assert_string_equal(bb_export_format_for(scratch_dir), "hf");
    assert_null(bb_export_format_for("a.safetensors"));
    assert_null(bb_export_format_for(".gguf"));
    assert_null(bb_export_format_for(NULL));
    assert_ok(convert(device, from, scratch_path("by_name.gguf"), NULL, NULL));
    expect_same_file(scratch_path("by_name.gguf"), scratch_path("tq2_0.gguf"));
    assert_ok(convert(device, from, hf, "hf", NULL));
    /* no format takes a file of its source, by any name */
    assert_fails(convert(device, from, from, "bitbyte", NULL), BB_ERR_ARGUMENT, "is the file that the model was loaded from");
    assert_fails(convert(device, hf, weights, "packed", NULL), BB_ERR_ARGUMENT, "is the file that the model was loaded from");
    assert_fails(convert(device, config_path, weights, "packed", NULL), BB_ERR_ARGUMENT,
                 "is the file that the model was loaded from");
    assert_fails(convert(device, hf, config_path, "gguf", NULL), BB_ERR_ARGUMENT, "is the file that the model was loaded from");
    assert_fails(convert(device, hf, hf, "hf", NULL), BB_ERR_ARGUMENT, "the folder is not empty");
    assert_ok(convert(device, config_path, scratch_path("packed.again"), "packed", NULL));
    expect_same_file(scratch_path("packed.again"), scratch_path("packed.safetensors"));
}

static int open_all(void **state) {
    return scratch_create(state) != 0 || bb_device_open("cpu", 2, &device, &test_error) != BB_OK ? -1 : 0;
}

static int close_all(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_formats_converts), cmocka_unit_test(masters_of_codes_give_the_same_codes),
        cmocka_unit_test(devices_write_the_same_bytes), cmocka_unit_test(sources_are_never_overwritten)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
