// SPDX-License-Identifier: MIT
/* `export --format hf`: the folder has the weights that the model uses and the same configuration, token i is byte i, and
 * nothing is overwritten. tests/interop/check_hf.py compares logits with transformers. */
#include <jansson.h>

#include "core/tensor.h"
#include "modelfile/safetensors.h"
#include "scratch.h"
#include "support.h"

enum { C = 16, F = 24, LAYERS = 2, MAX_COUNT = 256 * C };

static bb_device *device;
static bb_model *model; /* loaded for inference */
static const char *model_path;

static bb_status export_to(const char *out, const char *type, const volatile int *stop) {
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = "hf";
    options.type = type;
    options.stop = stop;
    options.license = "mit";
    return bb_export(device, model_path, out, &options, &test_error);
}

static const char *inside(const char *folder, const char *name) {
    static char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* `rows` rows from row `first` of our tensor are their tensor. */
static void expect_tensor(const bb_tensor_source *s, const char *theirs, const char *ours, int64_t first, int64_t rows,
                          int64_t columns) {
    static float values[MAX_COUNT], f32[MAX_COUNT];
    static bb_bf16 bf16[MAX_COUNT];
    const bb_file_tensor *t = bb_tensor_source_find(s, theirs);
    bb_tensor_info info;
    if (!t) fail_msg("no tensor %s", theirs);
    for (int i = 0; i < bb_model_tensor_count(model); i++) {
        assert_ok(bb_model_tensor_info(model, i, &info, &test_error));
        if (strcmp(info.name, ours) != 0) continue;
        assert_ok(bb_model_get_tensor(model, ours, values, (size_t)(info.shape[0] * (info.rank == 2 ? info.shape[1] : 1)),
                                      &test_error));
    }
    assert_int_equal(t->rank, columns > 1 ? 2 : 1);
    assert_int_equal(t->shape[0], rows);
    if (columns > 1) assert_int_equal(t->shape[1], columns);
    assert_ok(bb_tensor_source_read(s, t, t->dtype == BB_FILE_F32 ? (void *)f32 : bf16, &test_error));
    for (int64_t i = 0; i < rows * columns; i++) {
        float expected = values[first * columns + i];
        if (t->dtype == BB_FILE_F32)
            assert_true(f32[i] == expected);
        else
            assert_int_equal(bf16[i], bb_bf16_from_f32(expected));
    }
}

static void expect_weights(const char *folder, bb_file_dtype dtype) {
    static const struct {
        const char *theirs, *ours;
        int first, rows, columns;
    } block[] = {{"input_layernorm", "n1", 0, C, 1},
                 {"self_attn.q_proj", "attn.q_proj", 0, C, C},
                 {"self_attn.k_proj", "attn.k_proj", 0, C / 2, C},
                 {"self_attn.v_proj", "attn.v_proj", 0, C / 2, C},
                 {"self_attn.o_proj", "attn.o_proj", 0, C, C},
                 {"post_attention_layernorm", "n2", 0, C, 1},
                 {"mlp.gate_proj", "mlp.gate_up", 0, F, C},
                 {"mlp.up_proj", "mlp.gate_up", F, F, C},
                 {"mlp.down_proj", "mlp.down", 0, C, F}};
    char theirs[96], ours[96];
    bb_tensor_source *s = NULL;
    assert_ok(bb_safetensors_open(inside(folder, "model.safetensors"), &s, &test_error));
    assert_int_equal(bb_tensor_source_count(s), 2 + 9 * LAYERS);
    for (int i = 0; i < bb_tensor_source_count(s); i++) assert_int_equal(bb_tensor_source_at(s, i)->dtype, dtype);
    expect_tensor(s, "model.embed_tokens.weight", "tok_emb.weight", 0, 256, C);
    expect_tensor(s, "model.norm.weight", "norm_f.weight", 0, C, 1);
    for (int layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
            (void)snprintf(theirs, sizeof theirs, "model.layers.%d.%s.weight", layer, block[i].theirs);
            (void)snprintf(ours, sizeof ours, "blocks.%d.%s.weight", layer, block[i].ours);
            expect_tensor(s, theirs, ours, block[i].first, block[i].rows, block[i].columns);
        }
    bb_tensor_source_close(s);
}

static json_t *read_json(const char *folder, const char *name) {
    json_error_t error;
    json_t *json = json_load_file(inside(folder, name), JSON_REJECT_DUPLICATES, &error);
    if (!json) fail_msg("%s: %s", name, error.text);
    return json;
}

static void weights_are_written(void **state) {
    (void)state;
    const char *f32 = scratch_path("f32"), *bf16 = scratch_path("bf16");
    assert_ok(export_to(f32, NULL, NULL));
    expect_weights(f32, BB_FILE_F32);
    assert_int_equal(mkdir(bf16, 0777), 0); /* empty: may be taken */
    char with_slash[600];
    (void)snprintf(with_slash, sizeof with_slash, "%s/", bf16);
    assert_ok(export_to(with_slash, "bf16", NULL));
    expect_weights(bf16, BB_FILE_BF16);
    json_t *config = read_json(bf16, "config.json");
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "bfloat16");
    json_decref(config);
}

/* Row r of the packed tensor holds rows r, r + R, r + 2R and r + 3R, and the scale is 1/g. */
static void expect_packed(const bb_tensor_source *s, const char *theirs, const char *ours, int64_t first, int64_t rows,
                          int64_t K) {
    static float values[MAX_COUNT];
    static uint8_t codes[MAX_COUNT];
    char scale_name[96];
    float inverse = 0;
    (void)snprintf(scale_name, sizeof scale_name, "%s_scale", theirs);
    const bb_file_tensor *t = bb_tensor_source_find(s, theirs), *scale = bb_tensor_source_find(s, scale_name);
    if (!t || !scale) fail_msg("no tensor %s, or no scale", theirs);
    assert_int_equal(t->dtype, BB_FILE_U8);
    assert_int_equal(t->shape[0], rows / 4);
    assert_int_equal(t->shape[1], K);
    assert_int_equal(scale->dtype, BB_FILE_F32);
    assert_int_equal(scale->rank, 1);
    assert_int_equal(scale->shape[0], 1);
    assert_ok(bb_tensor_source_read(s, t, codes, &test_error));
    assert_ok(bb_tensor_source_read(s, scale, &inverse, &test_error));
    assert_ok(bb_model_get_tensor(model, ours, values, (size_t)((strstr(ours, "gate_up") ? 2 : 1) * rows * K), &test_error));
    for (int64_t n = 0; n < rows; n++)
        for (int64_t k = 0; k < K; k++) {
            float w = values[(first + n) * K + k];
            int code = codes[n % (rows / 4) * K + k] >> 2 * (n / (rows / 4)) & 3;
            assert_int_equal(code, 1 + (w > 0) - (w < 0));
            if (code != 1) assert_true(fabsf(fabsf(w) * inverse - 1) < 2e-7f);
        }
}

static void bitnet_codes_are_written(void **state) {
    (void)state;
    const char *folder = scratch_path("bitnet");
    bb_tensor_source *s = NULL;
    assert_ok(export_to(folder, "bitnet", NULL));
    assert_ok(bb_safetensors_open(inside(folder, "model.safetensors"), &s, &test_error));
    assert_int_equal(bb_tensor_source_count(s), 2 + (9 + 7) * LAYERS); /* seven have a scale */
    expect_tensor(s, "model.embed_tokens.weight", "tok_emb.weight", 0, 256, C);
    expect_tensor(s, "model.layers.1.input_layernorm.weight", "blocks.1.n1.weight", 0, C, 1);
    expect_packed(s, "model.layers.0.self_attn.k_proj.weight", "blocks.0.attn.k_proj.weight", 0, C / 2, C);
    expect_packed(s, "model.layers.1.mlp.gate_proj.weight", "blocks.1.mlp.gate_up.weight", 0, F, C);
    expect_packed(s, "model.layers.1.mlp.up_proj.weight", "blocks.1.mlp.gate_up.weight", F, F, C);
    expect_packed(s, "model.layers.1.mlp.down_proj.weight", "blocks.1.mlp.down.weight", 0, C, F);
    bb_tensor_source_close(s);
    json_t *config = read_json(folder, "config.json"), *quantization = json_object_get(config, "quantization_config");
    assert_string_equal(json_string_value(json_object_get(quantization, "quant_method")), "bitnet");
    assert_string_equal(json_string_value(json_object_get(quantization, "linear_class")), "bitlinear");
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "float32");
    json_decref(config);
}

static void models_that_bitnet_cannot_hold_are_refused(void **state) {
    (void)state;
    static const struct {
        bool act_quant;
        int d_ff;
        const char *part;
    } cases[] = {{false, F, "type bitnet quantizes the inputs"},
                 {true, F + 2, "mlp.gate_proj.weight has 26 rows: use --type f32"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bb_model *odd;
        bb_export_options options;
        bb_config config = *bb_model_config(model);
        config.act_quant = cases[i].act_quant;
        config.d_ff = cases[i].d_ff;
        assert_ok(bb_model_create(device, &config, 7, &odd, &test_error));
        assert_ok(bb_model_save(odd, scratch_path("odd.safetensors"), &test_error));
        bb_export_options_default(&options);
        options.format = "hf";
        options.type = "bitnet";
        assert_fails(bb_export(device, scratch_path("odd.safetensors"), scratch_path("refused"), &options, &test_error),
                     BB_ERR_UNSUPPORTED, cases[i].part);
        assert_int_equal(access(scratch_path("refused"), F_OK), -1);
        bb_model_free(odd);
    }
}

static void configuration_is_written(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int value;
    } expected[] = {
        {"vocab_size", 256},        {"hidden_size", C},         {"intermediate_size", F}, {"num_hidden_layers", LAYERS},
        {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 4},          {"max_position_embeddings", 2048}};
    const char *folder = scratch_path("f32");
    json_t *config = read_json(folder, "config.json"), *generation = read_json(folder, "generation_config.json");
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(json_integer_value(json_object_get(config, expected[i].key)), expected[i].value);
    assert_string_equal(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)), "LlamaForCausalLM");
    assert_string_equal(json_string_value(json_object_get(config, "dtype")), "float32");
    assert_true(json_real_value(json_object_get(config, "rope_theta")) == 5000);
    assert_true(json_real_value(json_object_get(json_object_get(config, "rope_parameters"), "rope_theta")) == 5000);
    assert_true(json_real_value(json_object_get(config, "rms_norm_eps")) == 1e-5);
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    /* Llama's own, 1 and 2, would be bytes. */
    assert_true(json_is_null(json_object_get(config, "bos_token_id")));
    assert_true(json_is_null(json_object_get(config, "eos_token_id")));
    assert_true(json_is_null(json_object_get(generation, "eos_token_id")));
    json_decref(config);
    json_decref(generation);
}

static void tokenizer_is_written(void **state) {
    (void)state;
    static const struct {
        const char *token;
        int byte;
    } expected[] = {{"\u0100", 0},   {"\u010a", 10},  {"\u0120", 32},  {"!", 33},       {"A", 65},       {"~", 126},
                    {"\u0121", 127}, {"\u0142", 160}, {"\u00a1", 161}, {"\u0143", 173}, {"\u00ae", 174}, {"\u00ff", 255}};
    const char *folder = scratch_path("f32");
    json_t *tokenizer = read_json(folder, "tokenizer.json"), *settings = read_json(folder, "tokenizer_config.json");
    json_t *bpe = json_object_get(tokenizer, "model"), *vocab = json_object_get(bpe, "vocab"), *id;
    const char *token;
    int seen[256] = {0};
    assert_int_equal(json_object_size(vocab), 256);
    json_object_foreach(vocab, token, id) seen[json_integer_value(id) & 255]++;
    for (int i = 0; i < 256; i++) assert_int_equal(seen[i], 1);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(json_integer_value(json_object_get(vocab, expected[i].token)), expected[i].byte);
    assert_int_equal(json_array_size(json_object_get(bpe, "merges")), 0);
    assert_int_equal(json_array_size(json_object_get(tokenizer, "added_tokens")), 0);
    assert_string_equal(json_string_value(json_object_get(settings, "tokenizer_class")), "PreTrainedTokenizerFast");
    json_decref(tokenizer);
    json_decref(settings);
}

static void existing_files_are_not_overwritten(void **state) {
    (void)state;
    const char *full = scratch_path("full"), *file = scratch_path("file");
    const char *note = inside(full, "note");
    assert_int_equal(mkdir(full, 0777), 0);
    assert_true(scratch_write(note, "keep", 4));
    assert_true(scratch_write(file, "keep", 4));
    assert_fails(export_to(full, NULL, NULL), BB_ERR_ARGUMENT, "the folder is not empty");
    assert_true(scratch_holds(note, "keep", 4));
    assert_int_equal(scratch_count_entries(full), 1);
    assert_fails(export_to(file, NULL, NULL), BB_ERR_ARGUMENT, "this is a file");
    assert_true(scratch_holds(file, "keep", 4));
    assert_fails(export_to(scratch_path("other"), "f16", NULL), BB_ERR_ARGUMENT, "f32, bf16");
    assert_fails(export_to(scratch_path("absent/other"), NULL, NULL), BB_ERR_IO, "absent/other");

    const volatile int stop = 1;
    int before = scratch_count_entries(scratch_dir);
    assert_fails(export_to(scratch_path("stopped"), NULL, &stop), BB_ERR_INTERRUPTED, "nothing was written");
    assert_int_equal(scratch_count_entries(scratch_dir), before);
}

static int set_up(void **state) {
    bb_config config;
    static char path[512];
    bb_model *trained = NULL;
    bb_config_default(&config);
    config.n_layer = LAYERS, config.d_model = C, config.n_head = 4, config.n_kv_head = 2, config.d_ff = F;
    config.rope_base = 5000, config.norm_eps = 1e-5;
    if (scratch_create(state) != 0 || bb_device_open("cpu", 1, &device, &test_error) != BB_OK) return -1;
    (void)snprintf(path, sizeof path, "%s", scratch_path("model.safetensors"));
    model_path = path;
    if (bb_model_create(device, &config, 7, &trained, &test_error) != BB_OK ||
        bb_model_save(trained, path, &test_error) != BB_OK ||
        bb_model_load_for_inference(device, path, &model, &test_error) != BB_OK)
        return -1;
    bb_model_free(trained);
    return 0;
}

static int tear_down(void **state) {
    bb_model_free(model);
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_written),
        cmocka_unit_test(bitnet_codes_are_written),
        cmocka_unit_test(models_that_bitnet_cannot_hold_are_refused),
        cmocka_unit_test(configuration_is_written),
        cmocka_unit_test(tokenizer_is_written),
        cmocka_unit_test(existing_files_are_not_overwritten),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
