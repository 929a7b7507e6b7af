// SPDX-License-Identifier: MIT
/* GGUF files of the llama architecture over bytes: ours, and any other whose vocabulary is the 256 bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "modelfile/gguf.h"
#include "modelfile/gguf_names.h"
#include "modelfile/layouts.h"

static bool matches(const bb_tensor_source *s) { return strcmp(s->ops->format, "gguf") == 0; }

/* ---- configuration ----------------------------------------------------------------------------------------------------- */

/* Reads a number from the metadata; leaves *out unchanged if the key is missing. */
static bb_status read_number(const bb_tensor_source *s, const char *key, bool required, double *out, bb_error *err) {
    const char *text = bb_tensor_source_metadata(s, key);
    char *end;
    if (!text && !required) return BB_OK;
    if (!text) return bb_fail(err, BB_ERR_FORMAT, "%s: key '%s' is missing or an array", bb_tensor_source_path(s), key);
    *out = strtod(text, &end);
    if (end == text || *end || !isfinite(*out))
        return bb_fail(err, BB_ERR_FORMAT, "%s: key '%s': expected a number, found '%.40s'", bb_tensor_source_path(s), key,
                       text);
    return BB_OK;
}

static bb_status read_int(const bb_tensor_source *s, const char *key, bool required, int *out, bb_error *err) {
    double value = *out;
    BB_TRY(read_number(s, key, required, &value, err));
    if (!(value >= 1 && value <= INT32_MAX))
        return bb_fail(err, BB_ERR_FORMAT, "%s: key '%s': expected a number from 1 to %d, found %g", bb_tensor_source_path(s),
                       key, INT32_MAX, value);
    *out = (int)value;
    return BB_OK;
}

/* Checks a size that the file may state explicitly, but that this architecture derives from others. */
static bb_status require_size(const bb_tensor_source *s, const char *key, int expected, bb_error *err) {
    int found = expected;
    BB_TRY(read_int(s, key, false, &found, err));
    if (found == expected) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: key '%s': expected %d, found %d", bb_tensor_source_path(s), key, expected,
                   found);
}

static bb_status check_variant(const bb_tensor_source *s, const bb_config *c, bb_error *err) {
    const char *scaling = bb_tensor_source_metadata(s, "llama.rope.scaling.type");
    int head_size = c->d_model / c->n_head;
    if (scaling && strcmp(scaling, "none") != 0)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: key 'llama.rope.scaling.type': expected none, found '%.40s'",
                       bb_tensor_source_path(s), scaling);
    BB_TRY(require_size(s, "llama.vocab_size", c->vocab_size, err));
    BB_TRY(require_size(s, "llama.rope.dimension_count", head_size, err));
    BB_TRY(require_size(s, "llama.attention.key_length", head_size, err));
    BB_TRY(require_size(s, "llama.attention.value_length", head_size, err));
    return bb_gguf_check_tokens(s, err);
}

static bb_status read_keys(const bb_tensor_source *s, bb_config *c, bb_error *err) {
    bb_config_default(c);
    BB_TRY(read_int(s, "llama.block_count", true, &c->n_layer, err));
    BB_TRY(read_int(s, "llama.embedding_length", true, &c->d_model, err));
    BB_TRY(read_int(s, "llama.feed_forward_length", true, &c->d_ff, err));
    BB_TRY(read_int(s, "llama.attention.head_count", true, &c->n_head, err));
    c->n_kv_head = c->n_head;
    BB_TRY(read_int(s, "llama.attention.head_count_kv", false, &c->n_kv_head, err));
    BB_TRY(read_number(s, "llama.attention.layer_norm_rms_epsilon", true, &c->norm_eps, err));
    BB_TRY(read_number(s, "llama.rope.freq_base", false, &c->rope_base, err));
    bb_status status = bb_config_check(c, err);
    return status == BB_OK ? check_variant(s, c, err) : bb_fail_prefix(err, BB_ERR_FORMAT, "%s", bb_tensor_source_path(s));
}

const bb_naming bb_gguf_naming = {.embedding = "token_embd",
                                  .norm = "output_norm",
                                  .head = "output",
                                  .blocks = "blk.",
                                  .interleaved = true,
                                  .parts = {[BB_P_N1] = {"attn_norm"},
                                            [BB_P_Q] = {"attn_q"},
                                            [BB_P_K] = {"attn_k"},
                                            [BB_P_V] = {"attn_v"},
                                            [BB_P_O] = {"attn_output"},
                                            [BB_P_N2] = {"ffn_norm"},
                                            [BB_P_GATE_UP] = {"ffn_gate", "ffn_up"},
                                            [BB_P_DOWN] = {"ffn_down"}}};

static bb_status read_config(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err) {
    const char *architecture = bb_tensor_source_metadata(s, "general.architecture");
    const char *config = bb_tensor_source_metadata(s, BB_GGUF_CONFIG_KEY);
    (void)options;
    if (!architecture || strcmp(architecture, "llama") != 0)
        return bb_fail(err, architecture ? BB_ERR_UNSUPPORTED : BB_ERR_FORMAT,
                       "%s: key 'general.architecture': expected llama, found %.40s", bb_tensor_source_path(s),
                       architecture ? architecture : "nothing");
    BB_TRY(config ? bb_config_from_json(config, bb_tensor_source_path(s), out, err) : read_keys(s, out, err));
    return bb_naming_check_others(&bb_gguf_naming, s, out, err);
}

/* ---- parameters -------------------------------------------------------------------------------------------------------- */

static bb_status find(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    return bb_naming_find(&bb_gguf_naming, w, p, out, err);
}

const bb_model_layout bb_layout_gguf = {.name = "gguf",
                                        .quantized = true,
                                        .trained_length_key = "llama.context_length",
                                        .chat_template_key = BB_GGUF_CHAT_TEMPLATE_KEY,
                                        .matches = matches,
                                        .read_config = read_config,
                                        .find = find};
