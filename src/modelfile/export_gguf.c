// SPDX-License-Identifier: MIT
/* Exports to GGUF with the llama architecture, which llama.cpp runs. Embedding and norms are F32. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/math.h"
#include "model/config.h"
#include "modelfile/chat_template.h"
#include "modelfile/export_formats.h"
#include "modelfile/gguf_names.h"
#include "modelfile/layouts.h"
#include "modelfile/model_card.h"
#include "modelfile/quantize.h"

/* tq2_0 is the default: the codes themselves at two bits, with the fastest kernels in llama.cpp. q2_0 has two bits, too, but
 * only new versions of llama.cpp read it, so it is written only on request. */
static const char *const type_names[] = {"tq2_0", "tq1_0", "q2_0", "q8_0", "f16", "f32", NULL};
static const struct {
    bb_file_dtype type;
    uint32_t file_type; /* value of general.file_type */
} types[] = {{BB_FILE_TQ2_0, 37}, {BB_FILE_TQ1_0, 36}, {BB_FILE_Q2_0, 41},
             {BB_FILE_Q8_0, 7},   {BB_FILE_F16, 1},    {BB_FILE_F32, 0}};

#define BB_GGUF_CARD_SUFFIX ".README.md"

enum { PIECE_ELEMENTS = 1 << 18, QUANTIZATION_VERSION = 2, BYTE_TOKENS = 256 };

typedef struct writer {
    bb_exporter *e;
    bb_file_writer file;
    bb_file_dtype type; /* element type of the ternary weights */
    uint32_t file_type;
    uint64_t data_bytes; /* offset of the next tensor while the header is built */
    char *header;
    size_t header_size;
    FILE *out; /* writes to header */
    uint64_t pairs;
} writer;

/* ---- header ------------------------------------------------------------------------------------------------------------ */

static void put(writer *w, const void *data, size_t n) { (void)fwrite(data, 1, n, w->out); }
static void put_u32(writer *w, uint32_t v) { put(w, &v, sizeof v); }
static void put_u64(writer *w, uint64_t v) { put(w, &v, sizeof v); }

static void put_string(writer *w, const char *text) {
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

static void put_key(writer *w, const char *key, bb_gguf_value type) {
    put_string(w, key);
    put_u32(w, type);
    w->pairs++;
}

static void put_text_pair(writer *w, const char *key, const char *text) {
    if (!text) return;
    put_key(w, key, BB_GGUF_STRING);
    put_string(w, text);
}

static void put_u32_pair(writer *w, const char *key, int v) {
    put_key(w, key, BB_GGUF_U32);
    put_u32(w, (uint32_t)v);
}

static void put_f32_pair(writer *w, const char *key, double v) {
    float f = (float)v;
    put_key(w, key, BB_GGUF_F32);
    put(w, &f, sizeof f);
}

static void put_false_pair(writer *w, const char *key) {
    put_key(w, key, BB_GGUF_BOOL);
    put(w, "", 1);
}

static void put_array(writer *w, const char *key, bb_gguf_value type, uint64_t count) {
    put_key(w, key, BB_GGUF_ARRAY);
    put_u32(w, type);
    put_u64(w, count);
}

static void put_model(writer *w) {
    const bb_config *c = &w->e->source.config;
    put_u32_pair(w, "llama.context_length", w->e->source.trained_length);
    put_u32_pair(w, "llama.embedding_length", c->d_model);
    put_u32_pair(w, "llama.block_count", c->n_layer);
    put_u32_pair(w, "llama.feed_forward_length", c->d_ff);
    put_u32_pair(w, "llama.attention.head_count", c->n_head);
    put_u32_pair(w, "llama.attention.head_count_kv", c->n_kv_head);
    put_f32_pair(w, "llama.attention.layer_norm_rms_epsilon", c->norm_eps);
    put_u32_pair(w, "llama.rope.dimension_count", c->d_model / c->n_head);
    put_f32_pair(w, "llama.rope.freq_base", c->rope_base);
    put_u32_pair(w, "llama.vocab_size", c->vocab_size);
}

/* Token b is byte b. llama.cpp assumes 11 for a first and a last token that are not given, so text would end at a vertical
 * tab. */
static void put_tokenizer(writer *w) {
    put_text_pair(w, "tokenizer.ggml.model", "gpt2");
    put_text_pair(w, "tokenizer.ggml.pre", "qwen2"); /* gpt-2 would drop spaces before punctuation */
    put_array(w, "tokenizer.ggml.tokens", BB_GGUF_STRING, BYTE_TOKENS);
    for (int b = 0; b < BYTE_TOKENS; b++) put_string(w, bb_gguf_byte_token(b).text);
    put_array(w, "tokenizer.ggml.token_type", BB_GGUF_I32, BYTE_TOKENS);
    for (int b = 0; b < BYTE_TOKENS; b++) put_u32(w, 1); /* normal */
    put_array(w, "tokenizer.ggml.merges", BB_GGUF_STRING, 0);
    put_u32_pair(w, "tokenizer.ggml.bos_token_id", 0);
    put_u32_pair(w, "tokenizer.ggml.eos_token_id", 0);
    put_false_pair(w, "tokenizer.ggml.add_bos_token");
    put_false_pair(w, "tokenizer.ggml.add_eos_token");
}

static bb_status put_pairs(writer *w, bb_error *err) {
    const bb_export_options *o = w->e->options;
    json_t *config = bb_config_to_json(&w->e->source.config);
    char *config_text = config ? bb_json_text(config, JSON_COMPACT) : NULL;
    char *jinja = w->e->chat_template ? bb_chat_template_jinja(w->e->chat_template) : NULL;
    json_decref(config);
    if (!config_text || (w->e->chat_template && !jinja)) {
        free(config_text);
        free(jinja);
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    }
    put_text_pair(w, "general.architecture", "llama");
    put_text_pair(w, "general.type", "model");
    put_text_pair(w, "general.name", o->name ? o->name : "BitByte");
    put_text_pair(w, "general.description", o->description);
    put_text_pair(w, "general.license", o->license);
    put_u32_pair(w, "general.file_type", (int)w->file_type);
    put_u32_pair(w, "general.quantization_version", QUANTIZATION_VERSION);
    put_u32_pair(w, "general.alignment", BB_GGUF_ALIGNMENT);
    put_model(w);
    put_tokenizer(w);
    put_text_pair(w, BB_GGUF_JINJA_KEY, jinja);
    put_text_pair(w, BB_GGUF_CONFIG_KEY, config_text);
    put_text_pair(w, BB_GGUF_CHAT_TEMPLATE_KEY, w->e->chat_template);
    free(config_text);
    free(jinja);
    return BB_OK;
}

/* Writes the header entries of p; their data must follow in this order. */
static uint64_t put_tensors(writer *w, const bb_param *p) {
    bb_tensor_names tensors = bb_naming_tensors(&bb_gguf_naming, &w->e->source.config, p);
    bb_file_dtype type = p->ternary ? w->type : BB_FILE_F32;
    for (int i = 0; i < tensors.count; i++) {
        int64_t rows = p->shape[0] / tensors.count, elements = rows * p->shape[1];
        put_string(w, tensors.text[i]);
        put_u32(w, (uint32_t)p->rank);
        if (p->rank == 2) put_u64(w, (uint64_t)p->shape[1]);
        put_u64(w, (uint64_t)rows);
        put_u32(w, (uint32_t)bb_gguf_type_number(type));
        put_u64(w, w->data_bytes);
        int64_t bytes = elements / bb_file_dtype_elements(type) * (int64_t)bb_file_dtype_bytes(type);
        w->data_bytes += (uint64_t)bb_round_up(bytes, BB_GGUF_ALIGNMENT);
    }
    return (uint64_t)tensors.count;
}

static bb_status make_header(writer *w, bb_error *err) {
    uint64_t tensors = 0;
    w->out = open_memstream(&w->header, &w->header_size);
    if (!w->out) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    put(w, "GGUF", 4);
    put_u32(w, BB_GGUF_VERSION);
    put_u64(w, 0); /* both counts are filled in later */
    put_u64(w, 0);
    bb_status status = put_pairs(w, err);
    for (int i = 0; i < w->e->table.count; i++) tensors += put_tensors(w, &w->e->table.entries[i]);
    bool failed = ferror(w->out) != 0;
    failed = fclose(w->out) != 0 || failed;
    BB_TRY(status);
    if (failed) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    memcpy(w->header + 8, &tensors, sizeof tensors);
    memcpy(w->header + 16, &w->pairs, sizeof w->pairs);
    return BB_OK;
}

/* ---- data -------------------------------------------------------------------------------------------------------------- */

static bb_status pad(writer *w, bb_error *err) {
    static const uint8_t zeros[BB_GGUF_ALIGNMENT];
    size_t rest = (size_t)(w->file.written % BB_GGUF_ALIGNMENT);
    return rest ? bb_file_writer_write(&w->file, zeros, BB_GGUF_ALIGNMENT - rest, err) : BB_OK;
}

static bb_status write_values(writer *w, const bb_param *p, bb_error *err) {
    float *values = malloc((size_t)p->count * sizeof *values);
    if (!values) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    bb_status status = bb_exporter_read(w->e, p, values, err);
    if (status == BB_OK) status = bb_file_writer_write(&w->file, values, (size_t)p->count * sizeof *values, err);
    free(values);
    return status == BB_OK ? pad(w, err) : status;
}

/* Returns the row in SPEC's order of row n in the file: rows i and i + D/2 of a head are stored at 2i and 2i + 1. */
static int64_t source_row(int64_t n, int64_t rows, int heads) {
    if (!heads) return n;
    int64_t D = rows / heads, d = n % D;
    return n - d + d / 2 + (d % 2 ? D / 2 : 0);
}

/* Writes a code matrix (rows,K) as one tensor. */
static bb_status write_codes(writer *w, const int8_t *q, const int64_t shape[2], int heads, float scale, bb_error *err) {
    int64_t rows = shape[0], K = shape[1], piece_rows = bb_clamp(PIECE_ELEMENTS / K, 1, rows);
    size_t row_bytes = (size_t)(K / bb_file_dtype_elements(w->type)) * bb_file_dtype_bytes(w->type);
    uint8_t *piece = malloc((size_t)piece_rows * row_bytes);
    bb_status status = BB_OK;
    if (!piece) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    for (int64_t n = 0; n < rows && status == BB_OK; n += piece_rows) {
        int64_t count = bb_min(piece_rows, rows - n);
        for (int64_t i = 0; i < count; i++)
            bb_quantize_ternary(w->type, q + source_row(n + i, rows, heads) * K, K, scale, piece + (size_t)i * row_bytes);
        status = bb_file_writer_write(&w->file, piece, (size_t)count * row_bytes, err);
    }
    free(piece);
    return status == BB_OK ? pad(w, err) : status;
}

static bb_status check_scale(const writer *w, const bb_param *p, const int8_t *q, float scale, bb_error *err) {
    float rounded = bb_quantized_scale(w->type, scale);
    bool nonzero = memchr(q, 1, (size_t)p->count) || memchr(q, 0xff, (size_t)p->count);
    if (!nonzero || (rounded > 0 && isfinite(rounded))) return BB_OK;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: %s: scale %g is out of range for the f16 scales of type %s: use type f32",
                   w->e->path, p->name, (double)scale, w->e->type);
}

static bb_status write_ternary(writer *w, const bb_param *p, bb_error *err) {
    bb_tensor_names tensors = bb_naming_tensors(&bb_gguf_naming, &w->e->source.config, p);
    int8_t *q = malloc((size_t)p->count);
    float scale;
    if (!q) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", w->e->path);
    bb_status status = bb_exporter_ternary(w->e, p, q, &scale, err);
    if (status == BB_OK) status = check_scale(w, p, q, scale, err);
    int64_t shape[2] = {p->shape[0] / tensors.count, p->shape[1]};
    for (int i = 0; i < tensors.count && status == BB_OK; i++)
        status = write_codes(w, q + i * shape[0] * shape[1], shape, tensors.interleaved_heads, scale, err);
    free(q);
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------------------------------- */

/* Returns the first matrix whose rows are not whole blocks of the type, or NULL. */
static const bb_param *find_misfit(const bb_param_table *table, bb_file_dtype type) {
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        if (p->ternary && p->shape[1] % bb_file_dtype_elements(type)) return p;
    }
    return NULL;
}

/* Lists the types that fit, for an error message: "q2_0, q8_0 or f16". f16 always fits. */
static void list_fitting(const bb_param_table *table, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; types[i].type != BB_FILE_F16; i++)
        if (!find_misfit(table, types[i].type))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", type_names[i]);
    (void)snprintf(text + used, size - used, "%sf16", used ? " or " : "");
}

/* Sets the type: the requested one, which must fit, or the first that fits. */
static bb_status choose_type(writer *w, bb_error *err) {
    bb_exporter *e = w->e;
    const bb_export_options *o = e->options;
    int i = 0, asked = 0;
    while (strcmp(type_names[asked], e->type) != 0) asked++;
    const bb_param *wrong = find_misfit(&e->table, types[asked].type);
    for (i = asked; find_misfit(&e->table, types[i].type) || (types[i].type == BB_FILE_Q2_0 && !o->type);) i++;
    if (wrong && o->type) {
        char fitting[64];
        list_fitting(&e->table, fitting, sizeof fitting);
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%s: type %s needs rows with a multiple of %d weights, but the rows of %s have %" PRId64 ": use type %s",
                       e->path, e->type, (int)bb_file_dtype_elements(types[asked].type), wrong->name, wrong->shape[1], fitting);
    }
    if (wrong && o->on_notice) {
        char text[256];
        (void)snprintf(text, sizeof text,
                       "rows of %s have %" PRId64 " weights, not a multiple of type %s's block size %d: written as %s",
                       wrong->name, wrong->shape[1], e->type, (int)bb_file_dtype_elements(types[asked].type), type_names[i]);
        o->on_notice(o->user, text);
    }
    e->type = type_names[i];
    w->type = types[i].type;
    w->file_type = types[i].file_type;
    return BB_OK;
}

static bb_status write_contents(writer *w, bb_error *err) {
    BB_TRY(make_header(w, err));
    BB_TRY(bb_file_writer_open(w->e->path, &w->file, err));
    BB_TRY(bb_file_writer_write(&w->file, w->header, w->header_size, err));
    BB_TRY(pad(w, err));
    for (int i = 0; i < w->e->table.count; i++) {
        const bb_param *p = &w->e->table.entries[i];
        BB_TRY(p->ternary ? write_ternary(w, p, err) : write_values(w, p, err));
    }
    return BB_OK;
}

/* Writes the card beside the file, under an unused name. *path: freed by the caller; NULL if nothing was written. */
static bb_status write_card(const bb_exporter *e, char **path, bb_error *err) {
    size_t size = strlen(e->path) + sizeof BB_GGUF_CARD_SUFFIX;
    char *text = bb_model_card_gguf(e), *name = malloc(size);
    bb_status status = BB_OK;
    if (text && name) {
        (void)snprintf(name, size, "%s" BB_GGUF_CARD_SUFFIX, e->path);
        status = bb_file_replace(name, text, strlen(text), err);
    } else {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write its model card", e->path);
    }
    free(text);
    if (status == BB_OK)
        *path = name;
    else
        free(name);
    return status;
}

static bb_status write_gguf(bb_exporter *e, bb_error *err) {
    writer w = {.e = e, .file = {.fd = -1}};
    BB_TRY(choose_type(&w, err));
    bb_status status = write_contents(&w, err);
    free(w.header);
    char *card = NULL;
    if (status == BB_OK) status = write_card(e, &card, err);
    if (status == BB_OK)
        status = bb_file_writer_commit(&w.file, err);
    else
        bb_file_writer_abort(&w.file);
    if (status != BB_OK && card) (void)unlink(card);
    free(card);
    return status;
}

const bb_export_format bb_export_gguf = {.name = "gguf", .types = type_names, .describes = true, .write = write_gguf};
