// SPDX-License-Identifier: MIT
/* What a model or checkpoint file is, as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "model/config.h"
#include "model/params.h"
#include "modelfile/model_file.h"
#include "ops/ops.h"

void bb_string_free(char *text) { free(text); }

/* count: of -1, 0 and +1 among the elements of p. */
static json_t *describe_shares(const bb_param *p, float g, const int64_t count[3]) {
    double n = (double)p->count;
    return json_pack("{s:s, s:[I,I], s:f, s:f, s:f, s:f}", "name", p->name, "shape", (json_int_t)p->shape[0],
                     (json_int_t)p->shape[1], "scale", (double)g, "minus", (double)count[0] / n, "zero", (double)count[1] / n,
                     "plus", (double)count[2] / n);
}

/* What a pass over a weight's bytes adds to. */
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

/* Of a packed weight; an error where a code is none. */
static bb_status describe_packed(const bb_tensor_source *st, const bb_param *p, json_t **out, bb_error *err) {
    const bb_file_tensor *t;
    tally y = {.columns = p->shape[1], .row_bytes = (p->shape[1] + 3) / 4};
    BB_TRY(bb_model_file_packed_tensor(st, p, &t, &y.scale, err));
    BB_TRY(bb_tensor_source_scan(st, t, count_codes, &y, err));
    if (y.count[3])
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected codes 0 to 2, found a 3", bb_tensor_source_path(st),
                       p->name);
    *out = describe_shares(p, y.scale, y.count);
    return BB_OK;
}

static bb_status add_sizes(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size, bb_error *err) {
    tally *y = user;
    float w;
    (void)t, (void)at, (void)err;
    for (size_t i = 0; i < size; i += sizeof w) {
        memcpy(&w, piece + i, sizeof w);
        y->sum += fabs((double)w);
    }
    return BB_OK;
}

static bb_status count_signs(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                             bb_error *err) {
    tally *y = user;
    float w;
    (void)t, (void)at, (void)err;
    for (size_t i = 0; i < size; i += sizeof w) {
        memcpy(&w, piece + i, sizeof w);
        y->count[(int)rintf(fminf(fmaxf(w / y->scale, -1), 1)) + 1]++;
    }
    return BB_OK;
}

/* Scale and shares of a ternary weight, by SPEC's rule. */
static bb_status describe_ternary(const bb_tensor_source *st, const bb_param *p, const bb_file_tensor *t, json_t **out,
                                  bb_error *err) {
    tally y = {.sum = 0};
    BB_TRY(bb_tensor_source_scan(st, t, add_sizes, &y, err));
    y.scale = bb_absmean_scale(y.sum, p->count);
    BB_TRY(bb_tensor_source_scan(st, t, count_signs, &y, err));
    *out = describe_shares(p, y.scale, y.count);
    return BB_OK;
}

static bb_status describe_tensors(const bb_tensor_source *st, const bb_param_table *table, json_t *layers, bb_error *err) {
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        const bb_file_tensor *t = bb_tensor_source_find(st, p->name);
        json_t *layer = NULL;
        if (p->ternary && t && t->dtype == BB_FILE_U8) {
            BB_TRY(describe_packed(st, p, &layer, err));
        } else {
            BB_TRY(bb_tensor_source_require(st, p->name, BB_FILE_F32, p->rank, p->shape, &t, err));
            if (!p->ternary) continue;
            BB_TRY(describe_ternary(st, p, t, &layer, err));
        }
        if (json_array_append_new(layers, layer) != 0) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    }
    return BB_OK;
}

/* Bytes at two bits a ternary weight, a scale a tensor, the rest in f32. */
static int64_t packed_bytes(const bb_param_table *table) {
    int64_t bytes = 0;
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        bytes += p->ternary ? p->shape[0] * ((p->shape[1] + 3) / 4) + 4 : p->count * 4;
    }
    return bytes;
}

bb_status bb_describe_file(const char *path, char **json, bb_error *err) {
    *json = NULL;
    bb_tensor_source *st = NULL;
    bb_param_table table = {0};
    json_t *layers = json_array(), *root = NULL;
    bb_config config;
    bb_status status;
    BB_TRY_GOTO(status, done, bb_tensor_source_open(path, &st, err));
    const char *text = bb_tensor_source_metadata(st, "config"), *state = bb_tensor_source_metadata(st, "training_state");
    const char *trained_length = bb_tensor_source_metadata(st, "trained_length");
    if (!text) {
        status = bb_fail(err, BB_ERR_FORMAT, "%s: not a model: __metadata__ has no 'config'", path);
        goto done;
    }
    BB_TRY_GOTO(status, done, bb_config_from_json(text, path, &config, err));
    BB_TRY_GOTO(status, done, bb_param_table_create(&config, false, &table, err));
    BB_TRY_GOTO(status, done, describe_tensors(st, &table, layers, err));
    root = json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:O, s:o*, s:o*}", "file", path, "kind",
                     state                         ? "checkpoint"
                     : bb_model_file_is_packed(st) ? "packed model"
                                                   : "model",
                     "config", bb_config_to_json(&config), "parameters", (json_int_t)table.total, "file_bytes",
                     (json_int_t)bb_tensor_source_file_bytes(st), "packed_bytes", (json_int_t)packed_bytes(&table), "ternary",
                     layers, "trained_length", trained_length ? json_integer(strtol(trained_length, NULL, 10)) : NULL,
                     "training_state", state ? json_loadb(state, strlen(state), 0, NULL) : NULL);
    *json = root ? bb_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory while describing %s", path);
done:
    json_decref(root);
    json_decref(layers);
    bb_param_table_free(&table);
    bb_tensor_source_close(st);
    return status;
}
