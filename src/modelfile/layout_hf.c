// SPDX-License-Identifier: MIT
/* LlamaForCausalLM of Hugging Face transformers over bytes: our own exports, and any other model whose vocabulary is the 256
 * bytes. Its rotary pairs are D/2 apart, as ours are. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/config.h"
#include "modelfile/hf.h"
#include "modelfile/layouts.h"

static bool matches(const bb_tensor_source *s) { return strcmp(s->ops->format, "hf") == 0; }

/* ---- names ------------------------------------------------------------------------------------------------------------- */

/* Older versions of transformers saved the RoPE frequencies, which can be computed from the base. */
static bool ignores(const char *name) {
    static const char end[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name);
    return n >= sizeof end && strcmp(name + n - (sizeof end - 1), end) == 0;
}

const bb_naming bb_hf_naming = {.embedding = "model.embed_tokens",
                                .norm = "model.norm",
                                .head = "lm_head",
                                .blocks = "model.layers.",
                                .ignores = ignores,
                                .parts = {[BB_P_N1] = {"input_layernorm"},
                                          [BB_P_Q] = {"self_attn.q_proj"},
                                          [BB_P_K] = {"self_attn.k_proj"},
                                          [BB_P_V] = {"self_attn.v_proj"},
                                          [BB_P_O] = {"self_attn.o_proj"},
                                          [BB_P_N2] = {"post_attention_layernorm"},
                                          [BB_P_GATE_UP] = {"mlp.gate_proj", "mlp.up_proj"},
                                          [BB_P_DOWN] = {"mlp.down_proj"}}};

/* ---- configuration ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const bb_tensor_source *source;
    const json_t *root;
} reader;

static bb_status wrong(const reader *r, const char *key, const char *expected, const json_t *found, bb_error *err) {
    char *text = found ? json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    bb_status status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s/" BB_HF_CONFIG ": '%s': expected %s, found %.60s",
                               bb_tensor_source_path(r->source), key, expected, text ? text : "nothing");
    free(text);
    return status;
}

static bb_status read_int(const reader *r, const char *key, bool required, int *out, bb_error *err) {
    const json_t *v = json_object_get(r->root, key);
    if (!required && (!v || json_is_null(v))) return BB_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT32_MAX)
        return wrong(r, key, "an integer above 0", v, err);
    *out = (int)json_integer_value(v);
    return BB_OK;
}

static bb_status read_number(const reader *r, const json_t *object, const char *key, double *out, bb_error *err) {
    const json_t *v = json_object_get(object, key);
    if (!v || json_is_null(v)) return BB_OK;
    if (!json_is_number(v)) return wrong(r, key, "a number", v, err);
    *out = json_number_value(v);
    return BB_OK;
}

/* Requires that a setting which other models of this architecture may change is absent, null or at the supported value. */
static bb_status require(const reader *r, const char *key, const char *expected, bool good, bb_error *err) {
    const json_t *v = json_object_get(r->root, key);
    return good || !v || json_is_null(v) ? BB_OK : wrong(r, key, expected, v, err);
}

/* Reads RoPE's base, from rope_theta (older versions) or rope_parameters (newer ones), and checks that there is no scaling. */
static bb_status read_rope(const reader *r, bb_config *c, bb_error *err) {
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    BB_TRY(read_number(r, r->root, "rope_theta", &c->rope_base, err));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(r->root, keys[i]), *type = json_object_get(v, "rope_type");
        if (!v || json_is_null(v)) continue;
        if (!type) type = json_object_get(v, "type");
        if (!json_is_object(v) || (type && (!json_is_string(type) || strcmp(json_string_value(type), "default") != 0)))
            return wrong(r, keys[i], "RoPE without scaling, \"default\"", v, err);
        BB_TRY(read_number(r, v, "rope_theta", &c->rope_base, err));
    }
    return BB_OK;
}

/* Reads the keys that our export adds and transformers ignores: {"act_quant": …, "ste": …}. */
static bb_status read_own(const reader *r, bb_config *c, bb_error *err) {
    const json_t *own = json_object_get(r->root, BB_HF_OWN_KEY), *act_quant, *ste;
    if (!own) return BB_OK;
    act_quant = json_object_get(own, "act_quant");
    ste = json_object_get(own, "ste");
    const char *name = json_string_value(ste);
    if (!json_is_boolean(act_quant) || !name ||
        (strcmp(name, bb_ste_name(BB_STE_IDENTITY)) != 0 && strcmp(name, bb_ste_name(BB_STE_CLIPPED)) != 0))
        return wrong(r, BB_HF_OWN_KEY, "{\"act_quant\": true or false, \"ste\": \"identity\" or \"clipped\"}", own, err);
    c->act_quant = json_is_true(act_quant);
    c->ste = strcmp(name, bb_ste_name(BB_STE_CLIPPED)) == 0 ? BB_STE_CLIPPED : BB_STE_IDENTITY;
    return BB_OK;
}

static bb_status read_values(const reader *r, bb_config *c, bb_error *err) {
    const char *type = json_string_value(json_object_get(r->root, "model_type"));
    const char *activation = json_string_value(json_object_get(r->root, "hidden_act"));
    int head_size = 0;
    c->norm_eps = 1e-6; /* transformers' default */
    if (!type || strcmp(type, "llama") != 0)
        return wrong(r, "model_type", "\"llama\"", json_object_get(r->root, "model_type"), err);
    BB_TRY(read_int(r, "vocab_size", true, &c->vocab_size, err));
    BB_TRY(read_int(r, "num_hidden_layers", true, &c->n_layer, err));
    BB_TRY(read_int(r, "hidden_size", true, &c->d_model, err));
    BB_TRY(read_int(r, "num_attention_heads", true, &c->n_head, err));
    c->n_kv_head = c->n_head;
    BB_TRY(read_int(r, "num_key_value_heads", false, &c->n_kv_head, err));
    BB_TRY(read_int(r, "intermediate_size", true, &c->d_ff, err));
    BB_TRY(read_number(r, r->root, "rms_norm_eps", &c->norm_eps, err));
    BB_TRY(read_rope(r, c, err));
    BB_TRY(read_own(r, c, err));
    if (c->vocab_size != 256) return wrong(r, "vocab_size", "256", json_object_get(r->root, "vocab_size"), err);
    bb_status status = bb_config_check(c, err);
    if (status != BB_OK) return bb_fail_prefix(err, BB_ERR_FORMAT, "%s/" BB_HF_CONFIG, bb_tensor_source_path(r->source));
    head_size = c->d_model / c->n_head;
    BB_TRY(read_int(r, "head_dim", false, &head_size, err));
    BB_TRY(require(r, "head_dim", "hidden_size / num_attention_heads", head_size == c->d_model / c->n_head, err));
    BB_TRY(require(r, "hidden_act", "\"silu\"", activation && strcmp(activation, "silu") == 0, err));
    BB_TRY(require(r, "attention_bias", "false", json_is_false(json_object_get(r->root, "attention_bias")), err));
    BB_TRY(require(r, "mlp_bias", "false", json_is_false(json_object_get(r->root, "mlp_bias")), err));
    return require(r, "quantization_config", "no quantization", false, err);
}

/* An untied head may still hold the embedding's values: see bb_naming_check_others. */
static bb_status check_head(const reader *r, bb_error *err) {
    const json_t *tied = json_object_get(r->root, "tie_word_embeddings");
    if (json_is_true(tied) || bb_tensor_source_find(r->source, "lm_head.weight")) return BB_OK;
    return wrong(r, "tie_word_embeddings", "true", tied, err);
}

static bb_status read_config(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err) {
    const char *text = bb_tensor_source_metadata(s, BB_HF_CONFIG);
    json_t *root = NULL;
    (void)options;
    bb_config_default(out);
    bb_status status = bb_json_parse(text, strlen(text), BB_HF_CONFIG, 0, &root, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", bb_tensor_source_path(s));
    const reader r = {.source = s, .root = root};
    status = read_values(&r, out, err);
    if (status == BB_OK) status = check_head(&r, err);
    json_decref(root);
    return status == BB_OK ? bb_naming_check_others(&bb_hf_naming, s, out, err) : status;
}

static bb_status find(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    return bb_naming_find(&bb_hf_naming, w, p, out, err);
}

const bb_model_layout bb_layout_hf = {.name = "hf",
                                      .quantized = true,
                                      .trained_length_key = BB_HF_LENGTH,
                                      .chat_template_key = BB_HF_CHAT_TEMPLATE,
                                      .matches = matches,
                                      .read_config = read_config,
                                      .find = find};
