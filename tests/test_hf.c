// SPDX-License-Identifier: MIT
/* Reading Hugging Face folders: as one file and in shards, by folder and by config.json; weights that are not ternary; and
 * messages about invalid folders. tests/interop checks that transformers reads and writes such folders. */
#include <jansson.h>

#include "core/file.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "model/model.h"
#include "modelfile/safetensors.h"
#include "scratch.h"
#include "support.h"

enum { V = 256, T = 19, C = 16, F = 24, LAYERS = 2, MAX_TENSORS = 64 };

static bb_device *device;
static const char *model_path; /* f32 masters */

/* ---- folders ----------------------------------------------------------------------------------------------------------- */

static const char *inside(const char *folder, const char *name) {
    static char paths[4][700];
    static int next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static const char *export_folder(const char *name, const char *type) {
    const char *folder = scratch_path(name);
    bb_export_options options;
    bb_export_options_default(&options);
    options.format = "hf";
    options.type = type;
    assert_ok(bb_export(device, model_path, folder, &options, &test_error));
    return folder;
}

/* A change of one tensor while a shard is copied. */
typedef struct tensor_change {
    const char *name;
    const char *rename;
    float value; /* of element `at`, where it is not 0 */
    size_t at;
} tensor_change;

static bool in_shard(int index, int shard) { return shard < 0 || index % 2 == shard; }

/* Tensors of `from` whose place is of that shard, or all for -1, as a file of their own; their bytes are added to *bytes. */
static void write_shard(const char *from, const char *to, int shard, const tensor_change *change, uint64_t *bytes) {
    bb_tensor_source *s;
    bb_tensor_sink *sink;
    bb_file_tensor list[MAX_TENSORS];
    int indices[MAX_TENSORS], count = 0;
    const bb_file_metadata metadata[] = {{"format", "pt"}};
    assert_ok(bb_safetensors_open(from, &s, &test_error));
    for (int i = 0; i < bb_tensor_source_count(s); i++) {
        if (!in_shard(i, shard)) continue;
        list[count] = *bb_tensor_source_at(s, i);
        if (change && change->rename && strcmp(change->name, list[count].name) == 0) list[count].name = change->rename;
        indices[count++] = i;
        *bytes += bb_tensor_source_at(s, i)->bytes;
    }
    assert_ok(bb_safetensors_create(to, list, count, metadata, 1, &sink, &test_error));
    for (int i = 0; i < count; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, indices[i]);
        float *values = malloc(t->bytes);
        assert_ok(bb_tensor_source_read(s, t, values, &test_error));
        if (change && !change->rename && strcmp(change->name, t->name) == 0) values[change->at] = change->value;
        assert_ok(bb_tensor_sink_write(sink, values, t->bytes, &test_error));
        free(values);
    }
    assert_ok(bb_tensor_sink_commit(sink, &test_error));
    bb_tensor_source_close(s);
}

static void write_json(const char *path, json_t *json) {
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
}

static json_t *read_json(const char *path) {
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    return json;
}

static void copy_file(const char *from, const char *to) {
    uint8_t *data;
    size_t size;
    assert_ok(bb_file_read_all(from, 0, &data, &size, &test_error));
    assert_true(scratch_write(to, data, size));
    free(data);
}

/* `whole` in two shards with an index. */
static const char *shard_folder(const char *whole, const char *name) {
    const char *folder = scratch_path(name);
    uint64_t bytes = 0;
    bb_tensor_source *s;
    json_t *map = json_object();
    assert_int_equal(mkdir(folder, 0777), 0);
    copy_file(inside(whole, "config.json"), inside(folder, "config.json"));
    write_shard(inside(whole, "model.safetensors"), inside(folder, "a.safetensors"), 0, NULL, &bytes);
    write_shard(inside(whole, "model.safetensors"), inside(folder, "b.safetensors"), 1, NULL, &bytes);
    assert_ok(bb_safetensors_open(inside(whole, "model.safetensors"), &s, &test_error));
    for (int i = 0; i < bb_tensor_source_count(s); i++)
        json_object_set_new(map, bb_tensor_source_at(s, i)->name, json_string(i % 2 ? "b.safetensors" : "a.safetensors"));
    bb_tensor_source_close(s);
    write_json(inside(folder, "model.safetensors.index.json"),
               json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map));
    return folder;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static void logits_of(const char *path, float *logits) {
    bb_model *m;
    uint8_t x[T];
    for (int i = 0; i < T; i++) x[i] = (uint8_t)bb_rng_below(7, BB_STREAM_TEST, (uint64_t)i, V);
    assert_ok(bb_model_load_for_inference(device, path, &m, &test_error));
    assert_ok(bb_model_forward(m, x, 1, T, logits, &test_error));
    bb_model_free(m);
}

static void folder_gives_the_same_logits(void **state) {
    (void)state;
    static float before[T * V], after[T * V];
    const char *f32 = export_folder("f32", "f32"), *bf16 = export_folder("bf16", "bf16");
    bb_config ours, theirs;
    int length;
    logits_of(model_path, before);
    logits_of(f32, after);
    assert_memory_equal(before, after, sizeof before);
    logits_of(inside(f32, "config.json"), after);
    assert_memory_equal(before, after, sizeof before);
    logits_of(shard_folder(f32, "shards"), after);
    assert_memory_equal(before, after, sizeof before);
    logits_of(inside(scratch_path("shards"), "model.safetensors.index.json"), after);
    assert_memory_equal(before, after, sizeof before);
    logits_of(bf16, after);
    assert_true(relative_error(after, before, T * V) < 2e-2); /* bf16 keeps 8 bits */
    assert_ok(bb_config_load(model_path, NULL, &ours, NULL, &test_error));
    assert_ok(bb_config_load(f32, NULL, &theirs, &length, &test_error));
    assert_int_equal(length, 2048);
    assert_int_equal(theirs.n_head, 4);
    assert_int_equal(theirs.n_kv_head, 2);
    assert_int_equal(theirs.act_quant, ours.act_quant);
    assert_int_equal(theirs.ste, BB_STE_CLIPPED);
    assert_memory_equal(&theirs.norm_eps, &ours.norm_eps, sizeof ours.norm_eps);
    assert_memory_equal(&theirs.rope_base, &ours.rope_base, sizeof ours.rope_base);
    assert_true(bb_is_hf_folder(f32));
    assert_false(bb_is_hf_folder(model_path));
    assert_false(bb_is_hf_folder(scratch_dir));
    assert_false(bb_is_hf_folder(NULL));
    /* a run remains one, whatever its config.json */
    const char *run = scratch_path("run");
    assert_int_equal(mkdir(run, 0777), 0);
    assert_true(scratch_write(inside(run, "config.json"), "{}", 2));
    assert_true(bb_is_hf_folder(run));
    assert_true(scratch_write(inside(run, "step-00000001.safetensors"), "", 0));
    assert_false(bb_is_hf_folder(run));
    assert_int_equal(unlink(inside(run, "step-00000001.safetensors")), 0);
    assert_true(scratch_write(inside(run, "config.json"), "{\"format\": \"bitbyte-run\"}", 25));
    assert_false(bb_is_hf_folder(run));
}

static void note(void *user, const char *text) { (void)snprintf(user, 512, "%s", text); }

/* One value that is not g: for inference refused, for training all are masters, and the caller is told. */
static void latent_weights_load_for_training_only(void **state) {
    (void)state;
    const char *f32 = scratch_path("f32"), *latent = scratch_path("latent");
    const tensor_change change = {.name = "model.layers.1.mlp.up_proj.weight", .value = 0.375f, .at = C + 3};
    char told[512] = "", *json;
    uint64_t bytes = 0;
    bb_model *m;
    bb_import_options options;
    static float values[2 * F * C];
    assert_int_equal(mkdir(latent, 0777), 0);
    copy_file(inside(f32, "config.json"), inside(latent, "config.json"));
    write_shard(inside(f32, "model.safetensors"), inside(latent, "model.safetensors"), -1, &change, &bytes);
    assert_fails(bb_model_load_for_inference(device, latent, &m, &test_error), BB_ERR_UNSUPPORTED,
                 "blocks.1.mlp.gate_up.weight: expected ternary weights, -g, 0 and g with one g");
    assert_message(test_error, "at (25, 3), 0.375"); /* up's row 1 follows the gate's F rows */
    bb_import_options_default(&options);
    options.on_notice = note;
    options.user = told;
    assert_ok(bb_model_import(device, latent, &options, &m, &test_error));
    assert_non_null(strstr(told, "1 of its matrices, blocks.1.mlp.gate_up.weight first, are not -g, 0 and g with one g; their "
                                 "values are used as f32 masters"));
    assert_ok(bb_model_get_tensor(m, "blocks.1.mlp.gate_up.weight", values, sizeof values / sizeof *values, &test_error));
    assert_true(values[F * C + C + 3] == 0.375f);
    bb_model_free(m);
    told[0] = 0;
    assert_ok(bb_describe_file(latent, &options, &json, &test_error));
    bb_string_free(json);
    assert_non_null(strstr(told, "1 of its matrices"));
    told[0] = 0;
    assert_ok(bb_model_import(device, f32, &options, &m, &test_error));
    assert_string_equal(told, "");
    bb_model_free(m);
    /* export: refused where layers' weights are written, said where masters are */
    bb_export_options export;
    bb_export_options_default(&export);
    export.on_notice = note;
    export.user = told;
    export.format = "packed";
    assert_fails(bb_export(device, latent, scratch_path("out"), &export, &test_error), BB_ERR_UNSUPPORTED, "with one g");
    export.format = "bitbyte";
    assert_ok(bb_export(device, latent, scratch_path("out"), &export, &test_error));
    assert_non_null(strstr(told, "1 of its matrices"));
}

/* ---- what is wrong with a folder ----------------------------------------------------------------------------------------- */

static void expect_refused(const char *folder, bb_status code, const char *part) {
    bb_model *m = NULL;
    assert_fails(bb_model_load_for_inference(device, folder, &m, &test_error), code, part);
    assert_message(test_error, folder);
    assert_null(m);
}

static void configurations_are_read_or_refused(void **state) {
    (void)state;
    static const struct {
        const char *key, *value; /* JSON; NULL: the key is left out */
        bb_status code;
        const char *part;
    } cases[] = {{"model_type", "\"mistral\"", BB_ERR_UNSUPPORTED, "'model_type': expected \"llama\", found \"mistral\""},
                 {"model_type", NULL, BB_ERR_UNSUPPORTED, "expected \"llama\", found nothing"},
                 {"vocab_size", "32000", BB_ERR_UNSUPPORTED, "'vocab_size': expected 256, found 32000"},
                 {"hidden_size", "\"wide\"", BB_ERR_UNSUPPORTED, "'hidden_size': expected an integer above 0, found \"wide\""},
                 {"hidden_size", "-16", BB_ERR_UNSUPPORTED, "found -16"},
                 {"hidden_size", "18", BB_ERR_FORMAT, "n_head"},
                 {"hidden_size", "32", BB_ERR_UNSUPPORTED, "'head_dim'"},
                 {"num_hidden_layers", "3", BB_ERR_FORMAT, "'model.layers.2.input_layernorm.weight' is missing"},
                 {"num_hidden_layers", "1", BB_ERR_UNSUPPORTED, "has no tensor of that name"},
                 {"num_hidden_layers", "2147483647", BB_ERR_FORMAT, "n_layer"},
                 {"intermediate_size", "48", BB_ERR_FORMAT, "'model.layers.0.mlp.gate_proj.weight': expected numbers of shape"},
                 {"hidden_act", "\"gelu\"", BB_ERR_UNSUPPORTED, "'hidden_act': expected \"silu\""},
                 {"attention_bias", "true", BB_ERR_UNSUPPORTED, "'attention_bias': expected false, found true"},
                 {"mlp_bias", "true", BB_ERR_UNSUPPORTED, "'mlp_bias'"},
                 {"tie_word_embeddings", "false", BB_ERR_UNSUPPORTED, "'tie_word_embeddings': expected true"},
                 {"rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", BB_ERR_UNSUPPORTED, "'rope_scaling'"},
                 {"rope_parameters", "{\"rope_type\": \"yarn\"}", BB_ERR_UNSUPPORTED, "'rope_parameters'"},
                 {"rms_norm_eps", "\"tiny\"", BB_ERR_UNSUPPORTED, "'rms_norm_eps': expected a number"},
                 {"rms_norm_eps", "-1", BB_ERR_FORMAT, "norm_eps"},
                 {"quantization_config", "{\"quant_method\": \"bitnet\"}", BB_ERR_UNSUPPORTED, "'quantization_config'"},
                 {"bitbyte", "{\"act_quant\": 1}", BB_ERR_UNSUPPORTED, "'bitbyte'"},
                 {"format", "\"bitbyte-run\"", BB_ERR_ARGUMENT, "is the configuration of a run"}};
    const char *f32 = scratch_path("f32"), *bad = scratch_path("bad_config");
    assert_int_equal(mkdir(bad, 0777), 0);
    copy_file(inside(f32, "model.safetensors"), inside(bad, "model.safetensors"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *json = read_json(inside(f32, "config.json"));
        if (cases[i].value)
            json_object_set_new(json, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        else
            json_object_del(json, cases[i].key);
        write_json(inside(bad, "config.json"), json);
        expect_refused(bad, cases[i].code, cases[i].part);
    }
    assert_true(scratch_write(inside(bad, "config.json"), "{\"a\": 1,}", 9));
    expect_refused(bad, BB_ERR_FORMAT, "config.json");
    assert_true(scratch_write(inside(bad, "config.json"), "[1]", 3));
    expect_refused(bad, BB_ERR_FORMAT, "config.json: expected an object");
    assert_int_equal(truncate(inside(bad, "config.json"), 2 << 20), 0);
    expect_refused(bad, BB_ERR_FORMAT, "config.json: expected at most 1048576 bytes, found 2097152");
    assert_int_equal(unlink(inside(bad, "config.json")), 0);
    expect_refused(bad, BB_ERR_FORMAT, "a folder without config.json");
    copy_file(inside(f32, "config.json"), inside(bad, "config.json"));
    assert_int_equal(unlink(inside(bad, "model.safetensors")), 0);
    expect_refused(bad, BB_ERR_FORMAT, "expected model.safetensors or model.safetensors.index.json, found neither");
}

static void wrong_tensors_are_refused(void **state) {
    (void)state;
    static const struct {
        tensor_change change;
        bb_status code;
        const char *part;
    } cases[] = {
        {{.name = "model.norm.weight", .rename = "model.norm.bias"},
         BB_ERR_UNSUPPORTED,
         "'model.norm.bias': this architecture"},
        {{.name = "model.layers.0.mlp.up_proj.weight", .rename = "model.layers.7.mlp.up_proj.weight"},
         BB_ERR_UNSUPPORTED,
         "'model.layers.7.mlp.up_proj.weight': this architecture"},
        {{.name = "model.norm.weight", .rename = "lm_head.weight"}, BB_ERR_UNSUPPORTED, "lm_head.weight differs from"},
        {{.name = "model.norm.weight", .rename = "x.rotary_emb.inv_freq"}, BB_ERR_FORMAT, "'model.norm.weight' is missing"},
        {{.name = "model.layers.0.self_attn.q_proj.weight", .value = NAN, .at = 5}, BB_ERR_FORMAT, "element 5 is NaN"}};
    const char *f32 = scratch_path("f32"), *bad = scratch_path("bad_tensors");
    uint64_t bytes = 0;
    assert_int_equal(mkdir(bad, 0777), 0);
    copy_file(inside(f32, "config.json"), inside(bad, "config.json"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_shard(inside(f32, "model.safetensors"), inside(bad, "model.safetensors"), -1, &cases[i].change, &bytes);
        expect_refused(bad, cases[i].code, cases[i].part);
    }
    /* a head alone is the embedding */
    static float before[T * V], after[T * V];
    const tensor_change head = {.name = "model.embed_tokens.weight", .rename = "lm_head.weight"};
    write_shard(inside(f32, "model.safetensors"), inside(bad, "model.safetensors"), -1, &head, &bytes);
    logits_of(f32, before);
    logits_of(bad, after);
    assert_memory_equal(before, after, sizeof before);
}

static void sharded_folders_are_read_or_refused(void **state) {
    (void)state;
    static const char norm[] = "model.norm.weight", q[] = "model.layers.0.self_attn.q_proj.weight";
    static const struct {
        const char *tensor, *file; /* of the weight map; JSON, NULL: the tensor is left out */
        bb_status code;
        const char *part;
    } cases[] = {
        {norm, "\"c.safetensors\"", BB_ERR_FORMAT, "'c.safetensors' is missing, which model.safetensors.index.json names"},
        {norm, "\"../f32/model.safetensors\"", BB_ERR_FORMAT, "found '../f32/model.safetensors'"},
        {norm, "\"/etc/passwd\"", BB_ERR_FORMAT, "found '/etc/passwd'"},
        {norm, "\".safetensors\"", BB_ERR_FORMAT, "expected the name of a .safetensors file in this folder"},
        {norm, "\"config.json\"", BB_ERR_FORMAT, "found 'config.json'"},
        {norm, "7", BB_ERR_FORMAT, "found an integer"},
        {norm, NULL, BB_ERR_FORMAT, "has the tensor 'model.norm.weight', which model.safetensors.index.json has nowhere"},
        {"extra.weight", "\"a.safetensors\"", BB_ERR_FORMAT, "tensor 'extra.weight' is missing from 'a.safetensors'"},
        {"lm_head.weight", "\"b.safetensors\"", BB_ERR_FORMAT, "tensor 'lm_head.weight' is missing"}};
    const char *folder = scratch_path("shards"), *index = inside(folder, "model.safetensors.index.json");
    char index_path[700];
    (void)snprintf(index_path, sizeof index_path, "%s", index);
    json_t *good = read_json(index_path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *json = json_deep_copy(good), *map = json_object_get(json, "weight_map");
        if (cases[i].file)
            json_object_set_new(map, cases[i].tensor, json_loads(cases[i].file, JSON_DECODE_ANY, NULL));
        else
            json_object_del(map, cases[i].tensor);
        write_json(index_path, json);
        expect_refused(folder, cases[i].code, cases[i].part);
    }
    /* the index has a tensor in another shard */
    json_t *json = json_deep_copy(good), *map = json_object_get(json, "weight_map");
    bool in_a = strcmp(json_string_value(json_object_get(map, q)), "a.safetensors") == 0;
    json_object_set_new(map, q, json_string(in_a ? "b.safetensors" : "a.safetensors"));
    write_json(index_path, json);
    expect_refused(folder, BB_ERR_FORMAT, "q_proj.weight', which model.safetensors.index.json has in");
    /* a size that lies; no map; no JSON */
    json = json_deep_copy(good);
    json_object_set_new(json_object_get(json, "metadata"), "total_size", json_integer(12));
    write_json(index_path, json);
    expect_refused(folder, BB_ERR_FORMAT, "total_size: expected the");
    write_json(index_path, json_pack("{s:[]}", "weight_map"));
    expect_refused(folder, BB_ERR_FORMAT, "'weight_map': expected an object, found an array");
    assert_true(scratch_write(index_path, "{\"weight_map\": {\"a\": \"b\", \"a\": \"c\"}}", 36));
    expect_refused(folder, BB_ERR_FORMAT, "duplicate");
    /* the same tensor in two shards */
    uint64_t bytes = 0;
    write_json(index_path, json_incref(good));
    write_shard(inside(scratch_path("f32"), "model.safetensors"), inside(folder, "b.safetensors"), -1, NULL, &bytes);
    expect_refused(folder, BB_ERR_FORMAT, "duplicate name");
    write_shard(inside(scratch_path("f32"), "model.safetensors"), inside(folder, "b.safetensors"), 1, NULL, &bytes);
    /* a shard that ends early */
    struct stat st;
    assert_int_equal(stat(inside(folder, "b.safetensors"), &st), 0);
    assert_int_equal(truncate(inside(folder, "b.safetensors"), st.st_size - 1), 0);
    expect_refused(folder, BB_ERR_FORMAT, "b.safetensors");
    json_decref(good);
}

/* Links within the folder are followed, and none out of it. */
static void links_stay_within_the_folder(void **state) {
    (void)state;
    static float before[T * V], after[T * V];
    const char *f32 = scratch_path("f32"), *folder = scratch_path("links");
    char target[700];
    assert_int_equal(mkdir(folder, 0777), 0);
    copy_file(inside(f32, "config.json"), inside(folder, "config.json"));
    copy_file(inside(f32, "model.safetensors"), inside(folder, "blob"));
    assert_int_equal(symlink("blob", inside(folder, "model.safetensors")), 0);
    logits_of(f32, before);
    logits_of(folder, after);
    assert_memory_equal(before, after, sizeof before);
    /* the folder itself may be reached by a link */
    assert_int_equal(symlink(folder, scratch_path("link_to_folder")), 0);
    logits_of(scratch_path("link_to_folder"), after);
    assert_memory_equal(before, after, sizeof before);
    static const char *const targets[] = {"../f32/model.safetensors", NULL, "../links_too/model.safetensors"};
    assert_int_equal(mkdir(scratch_path("links_too"), 0777), 0); /* a name that begins with the folder's */
    copy_file(inside(f32, "model.safetensors"), inside(scratch_path("links_too"), "model.safetensors"));
    (void)snprintf(target, sizeof target, "%s", inside(f32, "model.safetensors"));
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        assert_int_equal(unlink(inside(folder, "model.safetensors")), 0);
        assert_int_equal(symlink(targets[i] ? targets[i] : target, inside(folder, "model.safetensors")), 0);
        expect_refused(folder, BB_ERR_FORMAT, "expected a file in this folder, found a link to");
    }
    assert_int_equal(unlink(inside(folder, "model.safetensors")), 0);
    assert_int_equal(symlink("nowhere", inside(folder, "model.safetensors")), 0);
    expect_refused(folder, BB_ERR_IO, "model.safetensors");
    assert_int_equal(unlink(inside(folder, "model.safetensors")), 0);
    assert_int_equal(mkdir(inside(folder, "model.safetensors"), 0777), 0);
    expect_refused(folder, BB_ERR_IO, "model.safetensors");
}

static int set_up(void **state) {
    bb_config config;
    static char path[512];
    bb_model *trained = NULL;
    bb_config_default(&config);
    config.n_layer = LAYERS, config.d_model = C, config.n_head = 4, config.n_kv_head = 2, config.d_ff = F;
    config.rope_base = 5000, config.norm_eps = 1.1e-5, config.ste = BB_STE_CLIPPED;
    if (scratch_create(state) != 0 || bb_device_open("cpu", 1, &device, &test_error) != BB_OK) return -1;
    (void)snprintf(path, sizeof path, "%s", scratch_path("model.safetensors"));
    model_path = path;
    if (bb_model_create(device, &config, 7, &trained, &test_error) != BB_OK ||
        bb_model_save(trained, path, &test_error) != BB_OK)
        return -1;
    bb_model_free(trained);
    return 0;
}

static int tear_down(void **state) {
    bb_device_close(device);
    return scratch_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder_gives_the_same_logits),        cmocka_unit_test(latent_weights_load_for_training_only),
        cmocka_unit_test(configurations_are_read_or_refused),  cmocka_unit_test(wrong_tensors_are_refused),
        cmocka_unit_test(sharded_folders_are_read_or_refused), cmocka_unit_test(links_stay_within_the_folder)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
