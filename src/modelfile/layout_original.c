// SPDX-License-Identifier: MIT
/* The PyTorch original's files: its trainer's ckpt.pt, a bare state_dict(), and the safetensors that its save_model writes. The
 * names are ours with a prefix; the head may be stored beside the embedding that it is tied to, or instead of it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/config.h"
#include "modelfile/layouts.h"

enum { NAME_BYTES = 128, MAX_LAYERS = 4096 };

/* The state_dict itself, or a checkpoint's dict, wrapped in DistributedDataParallel, compiled, or both. */
static const char *const prefixes[] = {
    "model.", "model.module.", "model._orig_mod.", "model.module._orig_mod.", "model._orig_mod.module.",
    "",       "module.",       "_orig_mod.",       "module._orig_mod.",       "_orig_mod.module."};

typedef struct name_text {
    char text[NAME_BYTES];
} name_text;

static name_text join(const char *prefix, const char *name) {
    name_text t;
    (void)snprintf(t.text, sizeof t.text, "%s%s", prefix, name);
    return t;
}

/* Returns NULL if this is not such a file. */
static const char *prefix_of(const bb_tensor_source *s) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (bb_tensor_source_find(s, join(prefixes[i], "blocks.0.attn.q_proj.weight").text) &&
            bb_tensor_source_find(s, join(prefixes[i], "norm_f.weight").text))
            return prefixes[i];
    return NULL;
}

static bool matches(const bb_tensor_source *s) { return prefix_of(s) != NULL; }

static const bb_file_tensor *find_tensor(const bb_tensor_source *s, const char *name) {
    return bb_tensor_source_find(s, join(prefix_of(s), name).text);
}

/* ---- configuration --------------------------------------------------------------------------------------------------------- */

/* Reads an integer from the trainer's arguments; leaves *out unchanged if it is missing. */
static void read_arg(const json_t *args, const char *key, int *out) {
    const json_t *v = json_object_get(args, key);
    json_int_t n = json_integer_value(v);
    if (json_is_integer(v) && n > 0 && n < INT32_MAX) *out = (int)n;
}

static int64_t rows_of(const bb_tensor_source *s, const char *name, int rank) {
    const bb_file_tensor *t = find_tensor(s, name);
    return t && t->rank == rank && t->shape[0] < INT32_MAX ? t->shape[0] : 0;
}

/* Infers the configuration from the shapes: everything but the number of heads. */
static void read_shapes(const bb_tensor_source *s, bb_config *c) {
    name_text name;
    for (c->n_layer = 0; c->n_layer < MAX_LAYERS; c->n_layer++) {
        (void)snprintf(name.text, sizeof name.text, "blocks.%d.n1.weight", c->n_layer);
        if (!find_tensor(s, name.text)) break;
    }
    c->d_model = (int)rows_of(s, "norm_f.weight", 1);
    c->d_ff = (int)(rows_of(s, "blocks.0.mlp.gate_up.weight", 2) / 2);
}

static bb_status check_variant(const bb_tensor_source *s, bb_error *err) {
    const char *variant = bb_tensor_source_metadata(s, "variant"), *family = bb_tensor_source_metadata(s, "model_family");
    if (variant && strcmp(variant, "\"ar\"") != 0 && strcmp(variant, "null") != 0)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: variant %s: only the autoregressive model (\"ar\") can be read",
                       bb_tensor_source_path(s), variant);
    if (family && strcmp(family, "\"bitbyte\"") != 0 && strcmp(family, "null") != 0)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: model family %s: only \"bitbyte\" can be read", bb_tensor_source_path(s),
                       family);
    return BB_OK;
}

static bb_status read_config(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err) {
    const char *text = bb_tensor_source_metadata(s, "args");
    json_t *args = NULL;
    int n_kv_head = 0;
    BB_TRY(check_variant(s, err));
    bb_config_default(out);
    out->ste = BB_STE_CLIPPED; /* the original's training default */
    out->n_head = 0;
    read_shapes(s, out);
    if (text) BB_TRY(bb_json_parse(text, strlen(text), bb_tensor_source_path(s), 0, &args, err));
    read_arg(args, "n_head", &out->n_head);
    if (!out->n_head) out->n_head = options->n_head;
    read_arg(args, "n_kv_head", &n_kv_head);
    out->act_quant = !json_is_true(json_object_get(args, "no_act_quant"));
    json_decref(args);
    if (!out->n_head)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: the file has no 'config' or 'args' with the number of attention heads: add --n_head N",
                       bb_tensor_source_path(s));
    if (!n_kv_head && out->d_model >= out->n_head)
        n_kv_head = (int)(rows_of(s, "blocks.0.attn.k_proj.weight", 2) / (out->d_model / out->n_head));
    out->n_kv_head = n_kv_head;
    bb_status status = bb_config_check(out, err);
    if (status != BB_OK)
        return bb_fail_prefix(err, BB_ERR_FORMAT, "%s: configuration inferred from the shapes", bb_tensor_source_path(s));
    return bb_layout_check_tied(s, find_tensor(s, "tok_emb.weight"), find_tensor(s, "lm_head.weight"), err);
}

/* ---- parameters -------------------------------------------------------------------------------------------------------------- */

static bool is_float(bb_file_dtype t) { return t == BB_FILE_F32 || t == BB_FILE_F16 || t == BB_FILE_BF16 || t == BB_FILE_F64; }

static bb_status find(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    const bb_file_tensor *t = find_tensor(w->source, p->name);
    if (!t && strcmp(p->name, "tok_emb.weight") == 0) t = find_tensor(w->source, "lm_head.weight");
    if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", bb_tensor_source_path(w->source), p->name);
    if (!is_float(t->dtype) || t->rank != p->rank || memcmp(t->shape, p->shape, (size_t)p->rank * sizeof *p->shape) != 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected floats of shape %s, found %s %s",
                       bb_tensor_source_path(w->source), t->name, bb_shape_format(p->rank, p->shape).text,
                       bb_file_dtype_name(t->dtype), bb_shape_format(t->rank, t->shape).text);
    *out = (bb_weight){.parts = {t}, .part_count = 1};
    return BB_OK;
}

const bb_model_layout bb_layout_original = {.name = "original", .matches = matches, .read_config = read_config, .find = find};
