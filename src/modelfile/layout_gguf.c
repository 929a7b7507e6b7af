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

/* A number of the metadata; leaves *out where the key is not there. */
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

/* That a size which the file may give apart is the one that this architecture has. */
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

static bool is_named(const bb_gguf_tensors *t, const char *name) {
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->names[i], name) == 0) return true;
    return false;
}

/* The head is the embedding: where the file has both, they are the same numbers. */
static bb_status check_head(const bb_tensor_source *s, const bb_file_tensor *head, bb_error *err) {
    const bb_file_tensor *e = bb_tensor_source_find(s, "token_embd.weight");
    bool same = e && e->dtype == head->dtype && e->bytes == head->bytes;
    if (same) {
        uint8_t *a = malloc((size_t)e->bytes), *b = malloc((size_t)e->bytes);
        bb_status status = BB_OK;
        if (!a || !b) status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it", bb_tensor_source_path(s));
        if (status == BB_OK) status = bb_tensor_source_read(s, e, a, err);
        if (status == BB_OK) status = bb_tensor_source_read(s, head, b, err);
        same = status == BB_OK && memcmp(a, b, (size_t)e->bytes) == 0;
        free(a);
        free(b);
        BB_TRY(status);
    }
    if (same) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: output.weight differs from token_embd.weight; the head must be tied to it",
                   bb_tensor_source_path(s));
}

/* A tensor that the model has no place for (a bias, an expert) would change what it computes. */
static bb_status check_others(const bb_tensor_source *s, const bb_config *c, bb_error *err) {
    bb_config one = *c;
    bb_param_table table;
    one.n_layer = 1;
    BB_TRY(bb_param_table_create(&one, false, &table, err));
    bb_status status = BB_OK;
    for (int i = 0; i < bb_tensor_source_count(s) && status == BB_OK; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, i);
        char name[64], none[] = "", *rest = none;
        bool known = false;
        long layer = strncmp(t->name, "blk.", 4) == 0 ? strtol(t->name + 4, &rest, 10) : 0;
        (void)snprintf(name, sizeof name, "%s", t->name);
        if (strncmp(t->name, "blk.", 4) == 0 && layer >= 0 && layer < c->n_layer)
            (void)snprintf(name, sizeof name, "blk.0%s", rest);
        for (int p = 0; p < table.count && !known; p++) {
            bb_gguf_tensors tensors = bb_gguf_tensors_of(c, &table.entries[p]);
            known = is_named(&tensors, name);
        }
        if (strcmp(t->name, "output.weight") == 0)
            status = check_head(s, t, err);
        else if (!known)
            status = bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': this architecture has none of that name",
                             bb_tensor_source_path(s), t->name);
    }
    bb_param_table_free(&table);
    return status;
}

static bb_status read_config(const bb_tensor_source *s, const bb_import_options *options, bb_config *out, bb_error *err) {
    const char *architecture = bb_tensor_source_metadata(s, "general.architecture");
    const char *config = bb_tensor_source_metadata(s, BB_GGUF_CONFIG_KEY);
    (void)options;
    if (!architecture || strcmp(architecture, "llama") != 0)
        return bb_fail(err, architecture ? BB_ERR_UNSUPPORTED : BB_ERR_FORMAT,
                       "%s: key 'general.architecture': expected llama, found %.40s", bb_tensor_source_path(s),
                       architecture ? architecture : "nothing");
    BB_TRY(config ? bb_config_from_json(config, bb_tensor_source_path(s), out, err) : read_keys(s, out, err));
    return check_others(s, out, err);
}

/* ---- parameters -------------------------------------------------------------------------------------------------------- */

static bool is_numeric(bb_file_dtype t) {
    return t == BB_FILE_F32 || t == BB_FILE_F16 || t == BB_FILE_BF16 || t == BB_FILE_F64 || t == BB_FILE_Q8_0 ||
           t == BB_FILE_TQ1_0 || t == BB_FILE_TQ2_0;
}

static bb_status find(const bb_model_source *w, const bb_param *p, bb_weight *out, bb_error *err) {
    bb_gguf_tensors tensors = bb_gguf_tensors_of(&w->config, p);
    const char *path = bb_tensor_source_path(w->source);
    int64_t shape[2] = {p->shape[0] / tensors.count, p->shape[1]};
    *out = (bb_weight){.part_count = tensors.count, .interleaved_heads = tensors.heads};
    for (int i = 0; i < tensors.count; i++) {
        const bb_file_tensor *t = bb_tensor_source_find(w->source, tensors.names[i]);
        if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", path, tensors.names[i]);
        if (!is_numeric(t->dtype) || t->rank != p->rank || memcmp(t->shape, shape, (size_t)p->rank * sizeof *shape) != 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected numbers of shape %s, found %s %s", path, t->name,
                           bb_shape_format(p->rank, shape).text, bb_file_dtype_name(t->dtype),
                           bb_shape_format(t->rank, t->shape).text);
        out->parts[i] = t;
    }
    return BB_OK;
}

const bb_model_layout bb_layout_gguf = {.name = "gguf",
                                        .quantized = true,
                                        .trained_length_key = "llama.context_length",
                                        .matches = matches,
                                        .read_config = read_config,
                                        .find = find};
