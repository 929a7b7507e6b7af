// SPDX-License-Identifier: MIT
/* The model configuration: defaults, limits, size, and its JSON form. */
#include "model/config.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "core/json.h"

/* Far above any trainable model, and low enough that no count of elements or bytes overflows 63 bits. */
enum { MAX_LAYERS = 4096, MAX_D_MODEL = 65536, MAX_D_FF = 1 << 20, MIN_NGRAM_BITS = 4, MAX_NGRAM_BITS = 24 };

void bb_config_default(bb_config *config) {
    if (!config) return;
    *config = (bb_config){.vocab_size = 256,
                          .n_layer = 24,
                          .d_model = 1536,
                          .n_head = 12,
                          .n_kv_head = 12,
                          .d_ff = 4096,
                          .rope_base = 10000.0,
                          .norm_eps = 1e-6,
                          .act_quant = true,
                          .ste = BB_STE_IDENTITY};
}

static bb_status check_range(const char *key, int value, int max, bb_error *err) {
    if (value >= 1 && value <= max) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s is %d; it must be from 1 to %d", key, value, max);
}

bb_status bb_config_check(const bb_config *c, bb_error *err) {
    BB_REQUIRE("config", c);
    if (c->vocab_size != 256)
        return bb_fail(err, BB_ERR_ARGUMENT, "vocab_size is %d; it must be 256, one entry per byte value", c->vocab_size);
    BB_TRY(check_range("n_layer", c->n_layer, MAX_LAYERS, err));
    BB_TRY(check_range("d_model", c->d_model, MAX_D_MODEL, err));
    BB_TRY(check_range("n_head", c->n_head, MAX_D_MODEL, err));
    BB_TRY(check_range("n_kv_head", c->n_kv_head, MAX_D_MODEL, err));
    BB_TRY(check_range("d_ff", c->d_ff, MAX_D_FF, err));
    if (c->d_model % c->n_head)
        return bb_fail(err, BB_ERR_ARGUMENT, "n_head is %d; it must divide d_model, which is %d", c->n_head, c->d_model);
    int head_size = c->d_model / c->n_head;
    if (head_size % 2)
        return bb_fail(err, BB_ERR_ARGUMENT, "n_head is %d: heads of d_model/n_head = %d/%d = %d; RoPE needs an even head size",
                       c->n_head, c->d_model, c->n_head, head_size);
    if (c->n_head % c->n_kv_head)
        return bb_fail(err, BB_ERR_ARGUMENT, "n_kv_head is %d; it must divide n_head, which is %d", c->n_kv_head, c->n_head);
    if (!isfinite(c->rope_base) || c->rope_base <= 1.0)
        return bb_fail(err, BB_ERR_ARGUMENT, "rope_base is %g; it must be finite and above 1", c->rope_base);
    /* the lower limit keeps it above zero in the f32 arithmetic of the norms */
    if (!(c->norm_eps >= 1e-30 && c->norm_eps <= 1.0))
        return bb_fail(err, BB_ERR_ARGUMENT, "norm_eps is %g; it must be above 0, from 1e-30 to 1", c->norm_eps);
    if (c->ste != BB_STE_IDENTITY && c->ste != BB_STE_CLIPPED)
        return bb_fail(err, BB_ERR_ARGUMENT, "ste is %d; it must be identity (%d) or clipped (%d)", (int)c->ste,
                       BB_STE_IDENTITY, BB_STE_CLIPPED);
    if (c->ngram_max != 0 && (c->ngram_max < 2 || c->ngram_max > BB_NGRAM_MAX))
        return bb_fail(err, BB_ERR_ARGUMENT, "ngram_max is %d; it must be 0 (no n-gram embeddings) or from 2 to %d",
                       c->ngram_max, BB_NGRAM_MAX);
    if (c->ngram_max ? c->ngram_bits < MIN_NGRAM_BITS || c->ngram_bits > MAX_NGRAM_BITS : c->ngram_bits != 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "ngram_bits is %d; it must be from %d to %d with ngram_max, 0 without",
                       c->ngram_bits, MIN_NGRAM_BITS, MAX_NGRAM_BITS);
    if (c->dense && (c->act_quant || c->ste != BB_STE_IDENTITY))
        return bb_fail(err, BB_ERR_ARGUMENT, "a dense model quantizes nothing: act_quant must be false, and ste identity");
    return BB_OK;
}

int64_t bb_config_ngram_rows(const bb_config *c) { return c->ngram_max ? (int64_t)(c->ngram_max - 1) << c->ngram_bits : 0; }

uint64_t bb_config_parameters(const bb_config *c) {
    if (bb_config_check(c, NULL) != BB_OK) return 0;
    uint64_t C = (uint64_t)c->d_model, F = (uint64_t)c->d_ff, kv = (uint64_t)c->n_kv_head * (C / (uint64_t)c->n_head);
    uint64_t attention = 2 * C * C + 2 * kv * C; /* q, o and k, v */
    uint64_t mlp = 3 * C * F;                    /* gate_up (2F,C) and down (C,F) */
    uint64_t rows = (uint64_t)c->vocab_size + (uint64_t)bb_config_ngram_rows(c);
    return rows * C + (uint64_t)c->n_layer * (2 * C + attention + mlp) + C;
}

const char *bb_ste_name(bb_ste ste) { return ste == BB_STE_CLIPPED ? "clipped" : "identity"; }

json_t *bb_config_to_json(const bb_config *c) {
    json_t *json =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:s}", "vocab_size", c->vocab_size, "n_layer", c->n_layer,
                  "d_model", c->d_model, "n_head", c->n_head, "n_kv_head", c->n_kv_head, "d_ff", c->d_ff, "rope_base",
                  c->rope_base, "norm_eps", c->norm_eps, "act_quant", (int)c->act_quant, "ste", bb_ste_name(c->ste));
    /* omitted if unused, so that files of models without them do not change */
    if ((c->ngram_max && (json_object_set_new(json, "ngram_max", json_integer(c->ngram_max)) != 0 ||
                          json_object_set_new(json, "ngram_bits", json_integer(c->ngram_bits)) != 0)) ||
        (c->dense && json_object_set_new(json, "dense", json_true()) != 0)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* Leaves *out unchanged if the key is absent and not required. */
static bb_status read_int(const json_t *root, const char *key, bool required, int *out, bb_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value) {
        if (!required) return BB_OK;
        return bb_fail(err, BB_ERR_FORMAT, "%s is missing", key);
    }
    if (!json_is_integer(value))
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected an integer, found %s", key, bb_json_type_name(value));
    json_int_t n = json_integer_value(value);
    if (n < INT_MIN || n > INT_MAX) return bb_fail(err, BB_ERR_FORMAT, "%s is %" JSON_INTEGER_FORMAT ", out of range", key, n);
    *out = (int)n;
    return BB_OK;
}

static bb_status read_real(const json_t *root, const char *key, double *out, bb_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value) return BB_OK;
    if (!json_is_number(value))
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected a number, found %s", key, bb_json_type_name(value));
    *out = json_number_value(value);
    return BB_OK;
}

static bb_status read_bool(const json_t *root, const char *key, bool *out, bb_error *err) {
    const json_t *value = json_object_get(root, key);
    if (!value) return BB_OK;
    if (!json_is_boolean(value))
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected true or false, found %s", key, bb_json_type_name(value));
    *out = json_is_true(value);
    return BB_OK;
}

static bb_status read_all(const json_t *root, bb_config *c, bb_error *err) {
    if (!json_is_object(root)) return bb_fail(err, BB_ERR_FORMAT, "expected an object, found %s", bb_json_type_name(root));
    BB_TRY(read_int(root, "vocab_size", true, &c->vocab_size, err));
    BB_TRY(read_int(root, "n_layer", true, &c->n_layer, err));
    BB_TRY(read_int(root, "d_model", true, &c->d_model, err));
    BB_TRY(read_int(root, "n_head", true, &c->n_head, err));
    c->n_kv_head = c->n_head;
    BB_TRY(read_int(root, "n_kv_head", false, &c->n_kv_head, err));
    BB_TRY(read_int(root, "d_ff", true, &c->d_ff, err));
    BB_TRY(read_int(root, "ngram_max", false, &c->ngram_max, err));
    BB_TRY(read_int(root, "ngram_bits", false, &c->ngram_bits, err));
    BB_TRY(read_real(root, "rope_base", &c->rope_base, err));
    BB_TRY(read_real(root, "norm_eps", &c->norm_eps, err));

    BB_TRY(read_bool(root, "act_quant", &c->act_quant, err));
    BB_TRY(read_bool(root, "dense", &c->dense, err));

    const json_t *ste = json_object_get(root, "ste");
    if (ste && !json_is_string(ste))
        return bb_fail(err, BB_ERR_FORMAT, "ste: expected a string, found %s", bb_json_type_name(ste));
    if (ste) {
        const char *name = json_string_value(ste);
        if (strcmp(name, "identity") == 0)
            c->ste = BB_STE_IDENTITY;
        else if (strcmp(name, "clipped") == 0)
            c->ste = BB_STE_CLIPPED;
        else
            return bb_fail(err, BB_ERR_FORMAT, "ste: expected \"identity\" or \"clipped\", found \"%s\"", name);
    }
    return bb_config_check(c, err);
}

bb_status bb_config_from_json(const char *text, const char *where, bb_config *out, bb_error *err) {
    json_t *root = NULL;
    bb_status status = bb_json_parse(text, strlen(text), "config", 0, &root, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", where);
    bb_config config;
    bb_config_default(&config);
    status = read_all(root, &config, err);
    if (status == BB_OK)
        *out = config;
    else
        status = bb_fail_prefix(err, BB_ERR_FORMAT, "%s: config", where);
    json_decref(root);
    return status;
}

static const struct {
    const char *name;
    int n_layer, d_model, n_head, d_ff;
} sizes[] = {{"1m", 4, 128, 2, 352},     {"3m", 4, 256, 4, 704},       {"10m", 6, 384, 6, 1024},    {"25m", 8, 512, 8, 1408},
             {"85m", 12, 768, 12, 2048}, {"200m", 16, 1024, 16, 2816}, {"680m", 24, 1536, 12, 4096}};
_Static_assert(sizeof sizes / sizeof *sizes == BB_SIZES, "BB_SIZES");

bb_status bb_config_of_size(const char *size, bb_config *out, bb_error *err) {
    BB_REQUIRE("size, out", size, out);
    for (int i = 0; i < BB_SIZES; i++) {
        if (strcmp(sizes[i].name, size) != 0) continue;
        bb_config_default(out);
        out->n_layer = sizes[i].n_layer;
        out->d_model = sizes[i].d_model;
        out->n_head = out->n_kv_head = sizes[i].n_head;
        out->d_ff = sizes[i].d_ff;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "size '%s': expected 1m, 3m, 10m, 25m, 85m, 200m or 680m", size);
}

const char *bb_size_name(int index) { return sizes[index].name; }

bb_status bb_config_of_shape(const char *name, bb_config *out, int *batch_size, bb_error *err) {
    BB_REQUIRE("shape", name);
    static const struct {
        const char *name, *size;
        int batch_size;
    } shapes[] = {{"S", "10m", 8}, {"M", "85m", 4}, {"L", "680m", 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(shapes[i].name, name) != 0) continue;
        if (batch_size) *batch_size = shapes[i].batch_size;
        return bb_config_of_size(shapes[i].size, out, err);
    }
    return bb_fail(err, BB_ERR_ARGUMENT, "shape '%s': expected S, M or L", name);
}
