// SPDX-License-Identifier: MIT
/* Describes a model or checkpoint file as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/options.h"
#include "model/config.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "ops/ops.h"

void bb_string_free(char *text) { free(text); }

/* count: number of -1, 0 and +1 among the elements of p. */
static json_t *describe_shares(const bb_param *p, float g, const int64_t count[3]) {
    double n = (double)p->count;
    return json_pack("{s:s, s:[I,I], s:f, s:f, s:f, s:f}", "name", p->name, "shape", (json_int_t)p->shape[0],
                     (json_int_t)p->shape[1], "scale", (double)g, "minus", (double)count[0] / n, "zero", (double)count[1] / n,
                     "plus", (double)count[2] / n);
}

/* Accumulates over the pieces of a weight. */
typedef struct tally {
    int64_t columns, row_bytes; /* packed */
    float scale;                /* f32 */
    double sum;
    int64_t count[4]; /* by code */
} tally;

static bb_status count_codes(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                             bb_error *err) {
    tally *y = user;
    (void)t, (void)err;
    for (size_t i = 0; i < size; i++) {
        int64_t column = (int64_t)((at + i) % (uint64_t)y->row_bytes) * 4;
        for (int k = 0; k < 4 && column + k < y->columns; k++) y->count[piece[i] >> k * 2 & 3]++;
    }
    return BB_OK;
}

/* Describes a packed weight; an invalid code is an error. */
static bb_status describe_packed(const bb_model_source *w, const bb_param *p, const bb_weight *weight, json_t **out,
                                 bb_error *err) {
    tally y = {.columns = p->shape[1], .row_bytes = (p->shape[1] + 3) / 4, .scale = weight->scale};
    BB_TRY(bb_tensor_source_scan(w->source, weight->parts[0], count_codes, &y, err));
    if (y.count[3])
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected codes 0 to 2, found a 3",
                       bb_tensor_source_path(w->source), p->name);
    *out = describe_shares(p, y.scale, y.count);
    return BB_OK;
}

static bb_status add_sizes(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    tally *y = user;
    (void)first, (void)err;
    for (int64_t i = 0; i < n; i++) y->sum += fabs((double)values[i]);
    return BB_OK;
}

static bb_status count_signs(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    tally *y = user;
    (void)first, (void)err;
    for (int64_t i = 0; i < n; i++) y->count[(int)rintf(fminf(fmaxf(values[i] / y->scale, -1), 1)) + 1]++;
    return BB_OK;
}

/* Scale and shares of a ternary weight: computed by SPEC's rule, or as stored in the file. */
static bb_status describe_ternary(const bb_model_source *w, const bb_param *p, const bb_weight *weight,
                                  bb_latent_weights *latent, json_t **out, bb_error *err) {
    tally y = {.sum = 0};
    bb_magnitudes m = {.ternary = false};
    if (w->layout->quantized) {
        BB_TRY(bb_model_source_magnitudes(w, p, weight, &m, err));
        bb_latent_weights_add(latent, p, &m);
        y.scale = m.g;
    }
    if (!m.ternary) {
        BB_TRY(bb_model_source_scan(w, p, weight, add_sizes, &y, err));
        y.scale = bb_absmean_scale(y.sum, p->count);
    }
    BB_TRY(bb_model_source_scan(w, p, weight, count_signs, &y, err));
    *out = describe_shares(p, y.scale, y.count);
    return BB_OK;
}

static bb_status describe_tensors(const bb_model_source *w, const bb_param_table *table, bb_latent_weights *latent,
                                  json_t *layers, bb_error *err) {
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        bb_weight weight;
        json_t *layer = NULL;
        BB_TRY(w->layout->find(w, p, &weight, err));
        if (!p->ternary) continue;
        BB_TRY(weight.packed ? describe_packed(w, p, &weight, &layer, err)
                             : describe_ternary(w, p, &weight, latent, &layer, err));
        if (json_array_append_new(layers, layer) != 0) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    }
    return BB_OK;
}

/* Returns the size of the packed model: two bits a ternary weight, a scale a tensor; n-gram embeddings at 8 bits, a scale a
 * row; the rest in f32. */
static int64_t packed_bytes(const bb_param_table *table) {
    int64_t bytes = 0;
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        bytes += p->ternary ? p->shape[0] * ((p->shape[1] + 3) / 4) + 4 : p->ngram ? p->count + 2 * p->shape[0] : p->count * 4;
    }
    return bytes;
}

bb_status bb_describe_file(const char *path, const bb_import_options *given, char **json, bb_error *err) {
    BB_REQUIRE("json", json);
    *json = NULL;
    BB_REQUIRE("path", path);
    BB_OPTIONS_READ(bb_import_options, options, given);
    bb_model_source w = {0};
    bb_param_table table = {0};
    bb_latent_weights latent = {0};
    json_t *layers = json_array(), *root = NULL;
    bb_status status;
    BB_TRY_GOTO(status, done, bb_model_source_open(path, options, &w, err));
    const char *state = bb_tensor_source_metadata(w.source, "training_state");
    const char *trained_length = bb_tensor_source_metadata(w.source, "trained_length");
    BB_TRY_GOTO(status, done, bb_param_table_create(&w.config, false, &table, err));
    BB_TRY_GOTO(status, done, describe_tensors(&w, &table, &latent, layers, err));
    bb_latent_weights_notify(&latent, &w, options->on_notice, options->user);
    root = json_pack("{s:o, s:s, s:o, s:I, s:I, s:I, s:O, s:o*, s:s*, s:o*}", "file", bb_json_path(path), "kind",
                     state                           ? "checkpoint"
                     : w.layout == &bb_layout_packed ? "packed model"
                                                     : "model",
                     "config", bb_config_to_json(&w.config), "parameters", (json_int_t)table.total, "file_bytes",
                     (json_int_t)bb_tensor_source_file_bytes(w.source), "packed_bytes", (json_int_t)packed_bytes(&table),
                     "ternary", layers, "trained_length",
                     trained_length ? json_integer(strtol(trained_length, NULL, 10)) : NULL, BB_CHAT_TEMPLATE, w.chat_template,
                     "training_state", state ? json_loadb(state, strlen(state), 0, NULL) : NULL);
    *json = root ? bb_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory while describing %s", path);
done:
    json_decref(root);
    json_decref(layers);
    bb_param_table_free(&table);
    bb_model_source_close(&w);
    return status;
}
