// SPDX-License-Identifier: MIT
/* Exports to safetensors: packed, our own model file, and the PyTorch original's state dictionary. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "model/config.h"
#include "modelfile/chat_template.h"
#include "modelfile/export_formats.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"

#define HEAD_NAME "lm_head.weight" /* the original ties it to tok_emb.weight and saves both */

static bb_status write_piece(void *sink, int64_t first, const float *values, int64_t n, bb_error *err) {
    (void)first;
    return bb_tensor_sink_write(sink, values, (size_t)n * sizeof *values, err);
}

/* Writes every parameter in f32, as masters, and the head last if with_head. */
static bb_status write_masters(bb_exporter *e, const bb_file_metadata *metadata, int metadata_count, bool with_head,
                               bb_error *err) {
    int count = e->table.count + (with_head ? 1 : 0);
    bb_file_tensor *tensors = calloc((size_t)count, sizeof *tensors);
    bb_tensor_sink *sink = NULL;
    if (!tensors) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
    for (int i = 0; i < count; i++) {
        const bb_param *p = &e->table.entries[i < e->table.count ? i : BB_PARAM_TOK_EMB];
        tensors[i] = (bb_file_tensor){.name = i < e->table.count ? p->name : HEAD_NAME,
                                      .dtype = BB_FILE_F32,
                                      .rank = p->rank,
                                      .shape = {p->shape[0], p->shape[1]}};
    }
    bb_status status = bb_safetensors_create(e->path, tensors, count, metadata, metadata_count, &sink, err);
    for (int i = 0; i < count && status == BB_OK; i++)
        status = bb_exporter_scan(e, &e->table.entries[i < e->table.count ? i : BB_PARAM_TOK_EMB], write_piece, sink, err);
    free(tensors);
    if (status == BB_OK) return bb_tensor_sink_commit(sink, err);
    bb_tensor_sink_abort(sink);
    return status;
}

/* The configuration as JSON text and the trained length, as our files store them. */
typedef struct description {
    char *config, length[16];
} description;

static bb_status describe(const bb_exporter *e, description *out, bb_error *err) {
    json_t *config = bb_config_to_json(&e->source.config);
    out->config = config ? bb_json_text(config, JSON_COMPACT) : NULL;
    json_decref(config);
    (void)snprintf(out->length, sizeof out->length, "%d", e->source.trained_length);
    return out->config ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
}

static bb_status write_bitbyte(bb_exporter *e, bb_error *err) {
    description d;
    BB_TRY(describe(e, &d, err));
    bb_file_metadata metadata[] = {{"format", BB_MODEL_FILE_FORMAT},
                                   {"config", d.config},
                                   {"trained_length", d.length},
                                   {BB_CHAT_TEMPLATE, e->chat_template}};
    bb_status status = write_masters(e, metadata, 4, false, err);
    free(d.config);
    return status;
}

static bb_status write_original(bb_exporter *e, bb_error *err) {
    description d;
    BB_TRY(describe(e, &d, err));
    bb_file_metadata metadata[] = {
        {"format", "pt"}, {"config", d.config}, {"trained_length", d.length}, {BB_CHAT_TEMPLATE, e->chat_template}};
    bb_status status = write_masters(e, metadata, 4, true, err);
    free(d.config);
    return status;
}

static bb_status write_packed(bb_exporter *e, bb_error *err) { return bb_model_export_packed(e->model, e->path, err); }

const bb_export_format bb_export_packed = {.name = "packed", .ngrams = true, .write = write_packed};
const bb_export_format bb_export_bitbyte = {.name = "bitbyte", .masters = true, .ngrams = true, .write = write_bitbyte};
const bb_export_format bb_export_safetensors = {.name = "safetensors", .masters = true, .write = write_original};
