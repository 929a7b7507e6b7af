// SPDX-License-Identifier: MIT
/* Exports to a folder that Hugging Face transformers opens without remote code: LlamaForCausalLM and a tokenizer of raw bytes.
 * Types f32 and bf16 hold the weights that a layer uses (g q) and cannot express the int8 inputs of the linear layers; the
 * model card (README.md) tells how to add them. Type bitnet holds 2-bit codes for transformers' own BitLinear, which quantizes
 * its inputs as we do. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/tensor.h"
#include "modelfile/export_formats.h"
#include "modelfile/export_hf_text.h"
#include "modelfile/hf.h"
#include "modelfile/layouts.h"
#include "modelfile/model_card.h"
#include "modelfile/safetensors.h"

enum { PIECE = 1 << 14, CODES_PER_BYTE = 4 };

static bool is_bf16(const bb_exporter *e) { return strcmp(e->type, "bf16") == 0; }
static bool is_packed(const bb_exporter *e, const bb_param *p) { return p->ternary && bb_hf_is_bitnet(e); }

/* ---- the weights -------------------------------------------------------------------------------------------------------------- */

static bb_status write_floats(const bb_exporter *e, const float *values, int64_t n, bb_tensor_sink *sink, bb_error *err) {
    bb_bf16 rounded[1024];
    if (!is_bf16(e)) return bb_tensor_sink_write(sink, values, (size_t)n * sizeof *values, err);
    for (int64_t at = 0; at < n; at += 1024) {
        int64_t count = n - at < 1024 ? n - at : 1024;
        for (int64_t i = 0; i < count; i++) rounded[i] = bb_bf16_from_f32(values[at + i]);
        BB_TRY(bb_tensor_sink_write(sink, rounded, (size_t)count * sizeof *rounded, err));
    }
    return BB_OK;
}

static bb_status write_ternary(bb_exporter *e, const bb_param *p, float *piece, bb_tensor_sink *sink, bb_error *err) {
    float scale = 0;
    int8_t *q = malloc((size_t)p->count);
    if (!q) return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s: %.1f MB", p->name, 1e-6 * (double)p->count);
    bb_status status = bb_exporter_ternary(e, p, q, &scale, err);
    for (int64_t at = 0; at < p->count && status == BB_OK; at += PIECE) {
        int64_t n = p->count - at < PIECE ? p->count - at : PIECE;
        for (int64_t i = 0; i < n; i++) piece[i] = scale * (float)q[at + i];
        status = write_floats(e, piece, n, sink, err);
    }
    free(q);
    return status;
}

/* Writes one part, (rows,K) from q on: byte k of packed row r holds column k of rows r, r + R, r + 2R and r + 3R as q + 1, the
 * first in the lowest bits; R = rows/4. Then writes the scale, by which BitLinear divides. */
static bb_status write_packed_part(const int8_t *q, int64_t rows, int64_t K, float scale, bb_tensor_sink *sink, bb_error *err) {
    int64_t packed_rows = rows / CODES_PER_BYTE;
    const float inverse = 1 / scale;
    uint8_t *row = malloc((size_t)K);
    bb_status status = row ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory to write a row of %lld codes", (long long)K);
    for (int64_t r = 0; r < packed_rows && status == BB_OK; r++) {
        memset(row, 0, (size_t)K);
        for (int i = 0; i < CODES_PER_BYTE; i++)
            for (int64_t k = 0; k < K; k++) row[k] |= (uint8_t)((q[(r + i * packed_rows) * K + k] + 1) << 2 * i);
        status = bb_tensor_sink_write(sink, row, (size_t)K, err);
    }
    free(row);
    return status == BB_OK ? bb_tensor_sink_write(sink, &inverse, sizeof inverse, err) : status;
}

static bb_status write_packed(bb_exporter *e, const bb_param *p, int parts, bb_tensor_sink *sink, bb_error *err) {
    float scale = 0;
    int64_t rows = p->shape[0] / parts, K = p->shape[1];
    int8_t *q = malloc((size_t)p->count);
    if (!q) return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s: %.1f MB", p->name, 1e-6 * (double)p->count);
    bb_status status = bb_exporter_ternary(e, p, q, &scale, err);
    for (int part = 0; part < parts && status == BB_OK; part++)
        status = write_packed_part(q + part * rows * K, rows, K, scale, sink, err);
    free(q);
    return status;
}

static bb_status write_values(bb_exporter *e, const bb_param *p, bb_tensor_sink *sink, bb_error *err) {
    float *values = malloc((size_t)p->count * sizeof *values);
    if (!values) return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s: %.1f MB", p->name, 4e-6 * (double)p->count);
    bb_status status = bb_exporter_read(e, p, values, err);
    if (status == BB_OK) status = write_floats(e, values, p->count, sink, err);
    free(values);
    return status;
}

static bb_status write_all(bb_exporter *e, bb_tensor_sink *sink, bb_error *err) {
    const bb_param_table *table = &e->table;
    float *piece = malloc(PIECE * sizeof *piece);
    bb_status status = piece ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
    for (int i = 0; i < table->count && status == BB_OK; i++) {
        const bb_param *p = &table->entries[i];
        if (is_packed(e, p))
            status = write_packed(e, p, bb_naming_tensors(&bb_hf_naming, &e->source.config, p).count, sink, err);
        else
            status = p->ternary ? write_ternary(e, p, piece, sink, err) : write_values(e, p, sink, err);
    }
    free(piece);
    return status;
}

enum { SCALE_NAME_BYTES = sizeof((bb_tensor_names *)0)->text[0] + sizeof BB_SCALE_SUFFIX };

static bb_status write_weights(bb_exporter *e, const char *path, bb_error *err) {
    const bb_param_table *table = &e->table;
    const bb_file_metadata metadata[] = {{"format", "pt"}};
    size_t max_tensors = 4 * (size_t)table->count; /* two parts, each with a scale */
    bb_file_tensor *tensors = calloc(max_tensors, sizeof *tensors);
    bb_tensor_names *names = calloc((size_t)table->count, sizeof *names);
    char(*scale_names)[SCALE_NAME_BYTES] = calloc(max_tensors, sizeof *scale_names);
    bb_tensor_sink *sink = NULL;
    bb_status status = BB_OK;
    int count = 0;
    if (!tensors || !names || !scale_names)
        BB_TRY_GOTO(status, done, bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path));
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        names[i] = bb_naming_tensors(&bb_hf_naming, &e->source.config, p);
        for (int part = 0, parts = names[i].count; part < parts; part++) {
            int64_t rows = p->shape[0] / parts;
            bb_file_tensor *t = &tensors[count++];
            *t = (bb_file_tensor){.name = names[i].text[part],
                                  .dtype = is_bf16(e) ? BB_FILE_BF16 : BB_FILE_F32,
                                  .rank = p->rank,
                                  .shape = {rows, p->shape[1]}};
            if (!is_packed(e, p)) continue;
            if (rows % CODES_PER_BYTE != 0)
                BB_TRY_GOTO(status, done,
                            bb_fail(err, BB_ERR_UNSUPPORTED,
                                    "%s: type bitnet packs four rows into one, but %s has %lld rows: use --type f32", e->path,
                                    names[i].text[part], (long long)rows));
            t->dtype = BB_FILE_U8;
            t->shape[0] = rows / CODES_PER_BYTE;
            (void)snprintf(scale_names[count], SCALE_NAME_BYTES, "%s" BB_SCALE_SUFFIX, names[i].text[part]);
            tensors[count] = (bb_file_tensor){.name = scale_names[count], .dtype = BB_FILE_F32, .rank = 1, .shape = {1, 1}};
            count++;
        }
    }
    BB_TRY_GOTO(status, done, bb_safetensors_create(path, tensors, count, metadata, 1, &sink, err));
    status = write_all(e, sink, err);
    if (status == BB_OK)
        status = bb_tensor_sink_commit(sink, err);
    else
        bb_tensor_sink_abort(sink);
done:
    free(tensors);
    free(names);
    free(scale_names);
    return status;
}

/* ---- the folder ---------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    char *(*text)(const bb_exporter *e); /* malloc'd */
} text_files[] = {{BB_HF_CONFIG, bb_hf_config},
                  {"generation_config.json", bb_hf_generation_config},
                  {"tokenizer.json", bb_hf_tokenizer},
                  {"tokenizer_config.json", bb_hf_tokenizer_config},
                  {"README.md", bb_model_card_hf}};
enum { TEXT_FILES = sizeof text_files / sizeof *text_files };

/* Fails with BB_ERR_ARGUMENT if path exists and is not an empty folder. */
static bb_status check_free(const char *path, bb_error *err) {
    DIR *dir = opendir(path);
    int entries = 0;
    if (!dir && errno == ENOENT) return BB_OK;
    if (!dir && errno == ENOTDIR)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: format hf writes a folder, but this is a file: choose another name", path);
    if (!dir) return bb_fail(err, BB_ERR_IO, "%s: cannot read the folder: %s", path, strerror(errno));
    while (readdir(dir)) entries++;
    closedir(dir);
    return entries <= 2 ? BB_OK
                        : bb_fail(err, BB_ERR_ARGUMENT, "%s: the folder is not empty: choose another name, or empty it", path);
}

static void remove_folder(const char *folder) {
    for (int i = -1; i < (int)TEXT_FILES; i++) {
        char *path = bb_file_join(folder, i < 0 ? BB_HF_WEIGHTS : text_files[i].name);
        if (path) (void)unlink(path);
        free(path);
    }
    (void)rmdir(folder);
}

static bb_status fill_folder(bb_exporter *e, const char *folder, bb_error *err) {
    bb_status status = BB_OK;
    for (int i = 0; i < (int)TEXT_FILES && status == BB_OK; i++) {
        char *path = bb_file_join(folder, text_files[i].name), *text = text_files[i].text(e);
        status = path && text ? bb_file_replace(path, text, strlen(text), err)
                              : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
        free(path);
        free(text);
    }
    if (status != BB_OK) return status;
    char *path = bb_file_join(folder, BB_HF_WEIGHTS);
    status = path ? write_weights(e, path, err) : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
    free(path);
    return status;
}

/* Syncs the parent, so that the folder's new name survives a power failure, as its files do. */
static void flush_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    char *parent = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(parent);
}

/* Fills a folder beside the final path and renames it. */
static bb_status write_folder(bb_exporter *e, const char *path, const char *temporary, bb_error *err) {
    BB_TRY(check_free(path, err));
    if (mkdir(temporary, 0777) != 0)
        return bb_fail(err, BB_ERR_IO, "%s: cannot create the folder: %s", temporary, strerror(errno));
    bb_status status = fill_folder(e, temporary, err);
    if (status == BB_OK && rename(temporary, path) != 0)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot rename %s to it: %s", path, temporary, strerror(errno));
    if (status != BB_OK)
        remove_folder(temporary);
    else
        flush_parent(path);
    return status;
}

static bb_status write_hf(bb_exporter *e, bb_error *err) {
    size_t length = strlen(e->path), capacity;
    if (bb_hf_is_bitnet(e) && !e->source.config.act_quant)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: type bitnet quantizes the inputs of linear layers, which this model (--no_act_quant) does not: use "
                       "--type f32",
                       e->path);
    while (length > 1 && e->path[length - 1] == '/') length--;
    char *path = strndup(e->path, length), *temporary = malloc(capacity = length + 32);
    bb_status status = BB_OK;
    if (path && temporary) {
        (void)snprintf(temporary, capacity, "%s.tmp.%ld", path, (long)getpid());
        status = write_folder(e, path, temporary, err);
    } else {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", e->path);
    }
    free(path);
    free(temporary);
    return status;
}

static const char *const types[] = {"f32", "bf16", "bitnet", NULL};
const bb_export_format bb_export_hf = {.name = "hf", .types = types, .describes = true, .write = write_hf};
