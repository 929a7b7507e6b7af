// SPDX-License-Identifier: MIT
/* Models as GGUF: an exported model comes back with the same integers; models that cannot be exported or read are refused. */
#include "support.h"

#include "core/file.h"
#include "core/rng.h"
#include "exact_model.h"
#include "modelfile/gguf_names.h"
#include "modelfile/quantize.h"
#include "scratch.h"

enum { V = 256, T = 19 };

static const bb_config wide = {.vocab_size = V,
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
    const char *name;
    bb_file_dtype type;
} types[] = {{"f32", BB_FILE_F32},     {"f16", BB_FILE_F16},     {"q8_0", BB_FILE_Q8_0},
             {"tq1_0", BB_FILE_TQ1_0}, {"tq2_0", BB_FILE_TQ2_0}, {"q2_0", BB_FILE_Q2_0}};
enum { TYPES = sizeof types / sizeof *types };

static bb_device *device;

static bb_status export_as(const char *from, const char *to, const char *type) {
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = "gguf";
    options.type = type;
    options.name = "a name";
    options.description = "a description";
    options.license = "mit";
    return bb_export(device, from, to, &options, &test_error);
}

static bb_model *load_logits(const char *path, float *logits) {
    bb_model *m;
    uint8_t x[T];
    for (int i = 0; i < T; i++) x[i] = (uint8_t)bb_rng_below(7, BB_STREAM_TEST, (uint64_t)i, V);
    assert_ok(bb_model_load_for_inference(device, path, &m, &test_error));
    assert_ok(bb_model_forward(m, x, 1, T, logits, &test_error));
    return m;
}

/* The codes of a are those of b, and its scales what the type makes of them; all else is the same to the last bit. */
static void compare_weights(const bb_model *a, const bb_model *b, bb_file_dtype type) {
    for (int i = 0; i < bb_model_tensor_count(b); i++) {
        bb_tensor_info info;
        assert_ok(bb_model_tensor_info(b, i, &info, &test_error));
        size_t n = (size_t)(info.shape[0] * info.shape[1]);
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        assert_ok(bb_model_get_tensor(a, info.name, x, n, &test_error));
        assert_ok(bb_model_get_tensor(b, info.name, y, n, &test_error));
        for (size_t k = 0; info.ternary && k < n; k++)
            y[k] = y[k] > 0 ? bb_quantized_scale(type, y[k]) : y[k] < 0 ? -bb_quantized_scale(type, -y[k]) : 0;
        for (size_t k = 0; k < n; k++)
            if (x[k] > y[k] || x[k] < y[k])
                fail_msg("%s: element %zu: %.9g, not %.9g", info.name, k, (double)x[k], (double)y[k]);
        free(x);
        free(y);
    }
}

static void check_round_trip(const bb_config *config, int type, float exact_scale) {
    static float before[T * V], after[T * V];
    const char *from = scratch_path("from.safetensors"), *to = scratch_path("to.gguf"), *again = scratch_path("again.gguf");
    exact_model_save(device, config, exact_scale, from);
    assert_ok(export_as(from, to, types[type].name));
    bb_model *a = load_logits(from, before), *b = load_logits(to, after);
    compare_weights(b, a, types[type].type);
    const bb_config *c = bb_model_config(b);
    assert_int_equal(c->n_layer, config->n_layer);
    assert_int_equal(c->n_kv_head, config->n_kv_head);
    assert_int_equal(c->d_ff, config->d_ff);
    assert_int_equal(c->act_quant, config->act_quant);
    assert_int_equal(c->ste, config->ste);
    assert_memory_equal(&c->norm_eps, &config->norm_eps, sizeof c->norm_eps);
    assert_memory_equal(&c->rope_base, &config->rope_base, sizeof c->rope_base);
    assert_int_equal(bb_model_trained_length(b), 777);
    if (types[type].type == BB_FILE_F32 || (exact_scale > 0 && types[type].type != BB_FILE_Q8_0))
        assert_memory_equal(before, after, sizeof before);
    else
        assert_true(relative_error(after, before, T * V) < 1e-2); /* scales rounded to 11 bits move int8 activations by one */
    bb_model_free(a);
    bb_model_free(b);

    /* what is read is written again as the same bytes */
    uint8_t *data;
    size_t size;
    assert_ok(export_as(to, again, types[type].name));
    assert_ok(bb_file_read_all(again, 0, &data, &size, &test_error));
    assert_true(scratch_holds(to, data, size));
    free(data);

    /* and can be trained further: masters whose codes are the file's */
    assert_ok(bb_model_load(device, to, &b, &test_error));
    assert_ok(bb_model_save(b, again, &test_error));
    bb_model_free(b);
    a = load_logits(to, before);
    b = load_logits(again, after);
    assert_true(relative_error(after, before, T * V) < 1e-2);
    bb_model_free(a);
    bb_model_free(b);
}

static void round_trip_keeps_codes_and_scales(void **state) {
    (void)state;
    const bb_config narrow = {.vocab_size = V,
                              .n_layer = 1,
                              .d_model = 60,
                              .n_head = 6,
                              .n_kv_head = 2,
                              .d_ff = 53,
                              .rope_base = 1e4,
                              .norm_eps = 1e-6,
                              .act_quant = true};
    for (int i = 0; i < TYPES; i++) {
        check_round_trip(&wide, i, 0);
        check_round_trip(&wide, i, 0x1p-6f);
    }
    check_round_trip(&narrow, 0, 0);
    check_round_trip(&narrow, 1, 0);
}

static void metadata_texts_are_written(void **state) {
    (void)state;
    bb_tensor_source *s;
    const char *from = scratch_path("from.safetensors"), *to = scratch_path("to.gguf");
    exact_model_save(device, &wide, 0, from);
    assert_ok(export_as(from, to, NULL));
    assert_ok(bb_tensor_source_open(to, &s, &test_error));
    static const char *const expected[][2] = {{"general.name", "a name"},
                                              {"general.description", "a description"},
                                              {"general.license", "mit"},
                                              {"general.file_type", "37"},
                                              {"general.quantization_version", "2"},
                                              {"llama.context_length", "777"},
                                              {"llama.rope.dimension_count", "64"},
                                              {"tokenizer.ggml.eos_token_id", "0"},
                                              {"tokenizer.ggml.add_bos_token", "false"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_string_equal(bb_tensor_source_metadata(s, expected[i][0]), expected[i][1]);
    bb_tensor_source_close(s);
    /* the model card */
    char card[600], *text;
    size_t size;
    (void)snprintf(card, sizeof card, "%s.README.md", to);
    assert_ok(bb_file_read_all(card, 0, (uint8_t **)&text, &size, &test_error));
    static const char *const lines[] = {"license: \"mit\"\n",
                                        "\n# a name\n\na description\n",
                                        "| layers | 2 |\n",
                                        "| weight type | tq2_0 |\n",
                                        "| trained on sequences of | 777 bytes |\n",
                                        "`bitbyte convert MODEL to.gguf --type tq2_0`"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(text, lines[i])) fail_msg("the model card lacks '%s':\n%s", lines[i], text);
    assert_null(strstr(text, "| steps |")); /* the source does not say */
    free(text);
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = "packed";
    options.license = "mit";
    assert_fails(bb_export(device, from, to, &options, &test_error), BB_ERR_ARGUMENT, "format packed cannot hold a license");
    options.format = "gguf";
    options.license = "\xff";
    assert_fails(bb_export(device, from, to, &options, &test_error), BB_ERR_ARGUMENT, "license: expected UTF-8");
}

static void keep_notice(void *user, const char *text) { (void)snprintf(user, 256, "%s", text); }

/* Without a type, the first that fits is written, and the caller is told where it is not the usual one. */
static void default_type_fits(void **state) {
    (void)state;
    static const struct {
        int d_model, d_ff;
        bb_file_dtype type;
        const char *notice;
    } cases[] = {{256, 512, BB_FILE_TQ2_0, ""},
                 {256, 320, BB_FILE_Q8_0, "rows of blocks.0.mlp.down.weight have 320 weights"},
                 {256, 96, BB_FILE_Q8_0, "rows of blocks.0.mlp.down.weight have 96 weights"},
                 {40, 256, BB_FILE_F16, "written as f16"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bb_config config = wide;
        bb_export_options options;
        bb_tensor_source *s;
        char notice[256] = "";
        config.d_model = cases[i].d_model;
        config.d_ff = cases[i].d_ff;
        exact_model_save(device, &config, 0x1p-6f, scratch_path("from.safetensors"));
        bb_export_options_default(&options);
        options.format = "gguf";
        options.on_notice = keep_notice;
        options.user = notice;
        assert_ok(bb_export(device, scratch_path("from.safetensors"), scratch_path("to.gguf"), &options, &test_error));
        if (cases[i].notice[0] ? !strstr(notice, cases[i].notice) : notice[0] != 0) fail_msg("notice: %s", notice);
        assert_ok(bb_tensor_source_open(scratch_path("to.gguf"), &s, &test_error));
        assert_int_equal(bb_tensor_source_find(s, "blk.0.ffn_down.weight")->dtype, cases[i].type);
        bb_tensor_source_close(s);
    }
}

static void models_that_gguf_cannot_hold_are_refused(void **state) {
    (void)state;
    const char *from = scratch_path("from.safetensors"), *no = scratch_path("no.gguf");
    bb_config config = wide;
    config.d_ff = 320;
    exact_model_save(device, &config, 0, from);
    assert_fails(export_as(from, no, "tq2_0"), BB_ERR_ARGUMENT,
                 "blocks.0.mlp.down.weight have 320: use type q2_0, q8_0 or f16");
    config.d_ff = 300;
    exact_model_save(device, &config, 0, from);
    assert_fails(export_as(from, no, "q8_0"), BB_ERR_ARGUMENT, "blocks.0.mlp.down.weight have 300: use type f16");
    assert_fails(export_as(from, no, "q4_k"), BB_ERR_ARGUMENT, "it has tq2_0, tq1_0, q2_0, q8_0, f16, f32");
    exact_model_save(device, &wide, 1e-8f, from); /* half of what f16 can hold */
    for (int i = 1; i < TYPES; i++)
        assert_fails(export_as(from, no, types[i].name), BB_ERR_UNSUPPORTED, "scale 1e-08 is out of range");
    assert_int_not_equal(access(no, F_OK), 0);
    assert_ok(export_as(from, no, "f32"));
}

/* A copy with the first `from` replaced by `to`, which is as long. */
static void change_file(const char *path, const char *copy, const char *from, const char *to) {
    uint8_t *data;
    size_t size, n = strlen(from);
    assert_int_equal(strlen(to), n);
    assert_ok(bb_file_read_all(path, 0, &data, &size, &test_error));
    uint8_t *at = memmem(data, size, from, n);
    assert_non_null(at);
    memcpy(at, to, n);
    assert_true(scratch_write(copy, data, size));
    free(data);
}

static void files_of_other_models_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        bb_status code;
        const char *part;
    } cases[] = {
        {"general.architecture", "general.architectura", BB_ERR_FORMAT, "expected llama, found nothing"},
        {"llama", "gemma", BB_ERR_UNSUPPORTED, "expected llama, found gemma"},
        {"blk.1.attn_norm.weight", "blk.2.attn_norm.weight", BB_ERR_UNSUPPORTED, "has no tensor of that name"},
        {"blk.1.attn_q.weight", "blk.1.attn_q.weighs", BB_ERR_UNSUPPORTED, "has no tensor of that name"},
        {"\"n_layer\":2", "\"n_layer\":3", BB_ERR_FORMAT, "'blk.2.attn_norm.weight' is missing"},
        {"\"d_ff\":512", "\"d_ff\":256", BB_ERR_FORMAT, "'blk.0.ffn_gate.weight': expected numbers of shape (256, 256)"}};
    static const struct {
        const char *from, *to;
        bb_status code;
        const char *part;
    } plain_cases[] = {{"llama.block_count", "llama.block_coun_", BB_ERR_FORMAT, "'llama.block_count' is missing"},
                       {"\xc4\x80", "\xc4\x81", BB_ERR_UNSUPPORTED, "token 0 is"},
                       {"llama.context_length", "llama.context_lengtH", BB_OK, NULL}};
    static float before[T * V], after[T * V];
    const char *from = scratch_path("from.safetensors"), *to = scratch_path("to.gguf"), *plain = scratch_path("plain.gguf"),
               *bad = scratch_path("bad.gguf");
    bb_model *m;
    exact_model_save(device, &wide, 0x1p-6f, from);
    assert_ok(export_as(from, to, "tq2_0"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        change_file(to, bad, cases[i].from, cases[i].to);
        assert_fails(bb_model_load_for_inference(device, bad, &m, &test_error), cases[i].code, cases[i].part);
        assert_message(test_error, "bad.gguf");
    }
    /* a file that lacks our key is read by the others */
    change_file(to, plain, BB_GGUF_CONFIG_KEY, "bitbyte.anothe");
    bb_model_free(load_logits(from, before));
    bb_model_free(load_logits(plain, after));
    assert_memory_equal(before, after, sizeof before);
    for (size_t i = 0; i < sizeof plain_cases / sizeof *plain_cases; i++) {
        change_file(plain, bad, plain_cases[i].from, plain_cases[i].to);
        if (plain_cases[i].code == BB_OK)
            bb_model_free(load_logits(bad, after));
        else
            assert_fails(bb_model_load_for_inference(device, bad, &m, &test_error), plain_cases[i].code, plain_cases[i].part);
    }
    /* a code that is none */
    bb_tensor_source *s;
    assert_ok(bb_tensor_source_open(to, &s, &test_error));
    const bb_file_tensor *t = bb_tensor_source_find(s, "blk.0.attn_v.weight");
    uint8_t *data;
    char *json;
    bool good;
    size_t size;
    assert_ok(bb_file_read_all(to, 0, &data, &size, &test_error));
    data[s->data_start + t->offset + 66 + 3] = 0xff;
    assert_true(scratch_write(bad, data, size));
    assert_fails(bb_model_load_for_inference(device, bad, &m, &test_error), BB_ERR_FORMAT,
                 "'blk.0.attn_v.weight': element 259 is NaN");
    assert_ok(bb_verify_file(bad, NULL, NULL, NULL, &good, &json, &test_error));
    assert_false(good);
    assert_non_null(strstr(json, "element 259 is NaN"));
    bb_string_free(json);
    assert_ok(bb_verify_file(to, NULL, NULL, NULL, &good, &json, &test_error));
    assert_true(good);
    bb_string_free(json);
    assert_ok(bb_describe_file(to, NULL, &json, &test_error));
    assert_non_null(strstr(json, "0.015625"));
    bb_string_free(json);
    bb_tensor_source_close(s);
    free(data);
}

static int open_all(void **state) {
    return scratch_create(state) != 0 || bb_device_open("cpu", 2, &device, &test_error) != BB_OK ? -1 : 0;
}

static int close_all(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip_keeps_codes_and_scales),
                                       cmocka_unit_test(metadata_texts_are_written), cmocka_unit_test(default_type_fits),
                                       cmocka_unit_test(models_that_gguf_cannot_hold_are_refused),
                                       cmocka_unit_test(files_of_other_models_are_refused)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
