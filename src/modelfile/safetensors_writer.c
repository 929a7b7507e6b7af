// SPDX-License-Identifier: MIT
/* Writes safetensors. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/file.h"
#include "core/json.h"
#include "modelfile/safetensors.h"
#include "modelfile/safetensors_shared.h"

enum { DATA_ALIGN = 64 };

typedef struct writer {
    bb_tensor_sink base;
    bb_file_writer file;
    json_t *header;
    json_t *checksums;  /* tensor -> digits; zeros until the tensor is complete */
    uint64_t *ends;     /* (count): end of each tensor in the data section */
    const char **names; /* (count), owned by the header */
    int count, current; /* current: index of the tensor being written */
    uint64_t written;   /* bytes written to the data section */
    XXH3_state_t *hash; /* hash of the current tensor so far */
} writer;

static bb_status no_memory(const char *path, bb_error *err) {
    return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", path);
}

/* jansson refuses such text, but reports it like a lack of memory. */
static bool is_utf8(const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;
        if (more < 0) return false;
        unsigned min = more == 2 && *p == 0xe0 ? 0xa0 : more == 3 && *p == 0xf0 ? 0x90 : 0x80;
        unsigned max = more == 2 && *p == 0xed ? 0x9f : more == 3 && *p == 0xf4 ? 0x8f : 0xbf;
        if (more > 0 && (p[1] < min || p[1] > max)) return false;
        for (int i = 2; i <= more; i++)
            if ((p[i] & 0xc0) != 0x80) return false;
        p += more + 1;
    }
    return true;
}

static bb_status put_text(json_t *object, const char *path, const char *key, const char *text, bb_error *err) {
    if (!is_utf8(key) || !is_utf8(text))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: metadata '%s': expected UTF-8 text", path, key);
    return json_object_set_new(object, key, json_string(text)) == 0 ? BB_OK : no_memory(path, err);
}

static bb_status put_metadata(json_t *header, const char *path, const bb_file_metadata *metadata, int count, bb_error *err) {
    json_t *object = json_object();
    if (!object || json_object_set_new(header, BB_ST_METADATA, object) != 0) return no_memory(path, err);
    for (int i = 0; i < count; i++)
        if (metadata[i].value) BB_TRY(put_text(object, path, metadata[i].key, metadata[i].value, err));
    return BB_OK;
}

static bb_status put_tensor(json_t *header, const char *path, const bb_file_tensor *t, uint64_t *end, bb_error *err) {
    uint64_t bytes = 0, begin = *end;
    bool fits = t->rank >= 0 && t->rank <= BB_FILE_MAX_RANK;
    for (int i = 0; fits && i < t->rank; i++) fits = t->shape[i] >= 0;
    fits = fits && bb_file_tensor_bytes(t, &bytes) && !__builtin_add_overflow(begin, bytes, end) && *end <= INT64_MAX;
    if (!fits) return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': invalid shape", path, t->name);
    if (strcmp(t->name, BB_ST_METADATA) == 0 || json_object_get(header, t->name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': the name is reserved or already in use", path, t->name);
    if (!is_utf8(t->name)) return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': expected a name in UTF-8", path, t->name);
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++)
        if (json_array_append_new(shape, json_integer(t->shape[i])) != 0) break;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", bb_file_dtype_name(t->dtype), "shape", shape, "data_offsets",
                              (json_int_t)begin, (json_int_t)*end);
    bool whole = json_array_size(json_object_get(entry, "shape")) == (size_t)t->rank;
    if (!whole) json_decref(entry);
    return whole && json_object_set_new(header, t->name, entry) == 0 ? BB_OK : no_memory(path, err);
}

/* Writes the length and the JSON, padded with spaces so that the data begins at a multiple of DATA_ALIGN. */
static bb_status write_header(bb_file_writer *file, const json_t *header, bool again, bb_error *err) {
    bb_status status;
    unsigned char *block = NULL;
    size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    size_t total = (BB_ST_LENGTH_BYTES + length + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    uint64_t padded = total - BB_ST_LENGTH_BYTES;
    if (length == 0) return no_memory(file->path, err);
    if (padded > BB_ST_MAX_HEADER_BYTES)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: header of %zu bytes: expected 1 to %d", file->path, length,
                       BB_ST_MAX_HEADER_BYTES);
    block = malloc(total);
    if (!block) return no_memory(file->path, err);
    memset(block, ' ', total);
    memcpy(block, &padded, BB_ST_LENGTH_BYTES);
    if (json_dumpb(header, (char *)block + BB_ST_LENGTH_BYTES, length, JSON_COMPACT) != length)
        status = no_memory(file->path, err);
    else
        status = again ? bb_file_writer_patch(file, 0, block, total, err) : bb_file_writer_write(file, block, total, err);
    free(block);
    return status;
}

/* Stores the checksums so far as text in the metadata; the length of this text never changes. */
static bb_status put_checksums(const writer *w, const char *path, bb_error *err) {
    char *text = bb_json_text(w->checksums, JSON_COMPACT);
    bb_status status =
        text ? put_text(json_object_get(w->header, BB_ST_METADATA), path, BB_ST_CHECKSUMS, text, err) : no_memory(path, err);
    free(text);
    return status;
}

static bb_status set_sum(json_t *checksums, const char *path, const char *name, uint64_t sum, bb_error *err) {
    return json_object_set_new(checksums, name, json_string(bb_st_sum_format(sum).text)) == 0 ? BB_OK : no_memory(path, err);
}

/* Computes the checksums of the tensors whose last byte has been written. */
static bb_status finish_tensors(writer *w, bb_error *err) {
    for (; w->current < w->count && w->written == w->ends[w->current]; w->current++) {
        BB_TRY(set_sum(w->checksums, w->file.path, w->names[w->current], XXH3_64bits_digest(w->hash), err));
        XXH3_64bits_reset(w->hash);
    }
    return BB_OK;
}

static bb_status fill_header(writer *w, const char *path, const bb_file_tensor *tensors, int count,
                             const bb_file_metadata *metadata, int metadata_count, bb_error *err) {
    uint64_t end = 0, sum;
    BB_TRY(put_metadata(w->header, path, metadata, metadata_count, err));
    if (!bb_st_sum_metadata(json_object_get(w->header, BB_ST_METADATA), &sum)) return no_memory(path, err);
    BB_TRY(set_sum(w->checksums, path, BB_ST_METADATA, sum, err));
    for (int i = 0; i < count; i++) {
        BB_TRY(put_tensor(w->header, path, &tensors[i], &end, err));
        BB_TRY(set_sum(w->checksums, path, tensors[i].name, 0, err));
        w->ends[i] = end;
        w->names[i] = json_object_iter_key(json_object_iter_at(w->header, tensors[i].name));
    }
    w->count = count;
    return put_checksums(w, path, err);
}

static uint64_t data_bytes(const writer *w) { return w->count > 0 ? w->ends[w->count - 1] : 0; }

static bb_status write_bytes(bb_tensor_sink *s, const void *data, size_t bytes, bb_error *err) {
    writer *w = (writer *)s;
    const uint8_t *next = data;
    if (bytes > data_bytes(w) - w->written)
        return bb_fail(err, BB_ERR_INTERNAL, "expected at most %" PRIu64 " more bytes of tensors, found %zu",
                       data_bytes(w) - w->written, bytes);
    while (bytes > 0) {
        uint64_t left = w->ends[w->current] - w->written;
        size_t n = bytes < left ? bytes : (size_t)left;
        BB_TRY(bb_file_writer_write(&w->file, next, n, err));
        XXH3_64bits_update(w->hash, next, n);
        w->written += n;
        next += n;
        bytes -= n;
        BB_TRY(finish_tensors(w, err));
    }
    return BB_OK;
}

static bb_status commit(bb_tensor_sink *s, bb_error *err) {
    writer *w = (writer *)s;
    if (w->current < w->count)
        return bb_fail(err, BB_ERR_INTERNAL, "the tensors are not complete: %" PRIu64 " bytes are missing",
                       data_bytes(w) - w->written);
    BB_TRY(put_checksums(w, w->file.path, err));
    BB_TRY(write_header(&w->file, w->header, true, err));
    return bb_file_writer_commit(&w->file, err);
}

static void close_sink(bb_tensor_sink *s) {
    writer *w = (writer *)s;
    bb_file_writer_abort(&w->file);
    json_decref(w->header);
    json_decref(w->checksums);
    free(w->ends);
    free(w->names);
    XXH3_freeState(w->hash);
    free(w);
}

static const bb_tensor_sink_ops ops = {.write = write_bytes, .commit = commit, .close = close_sink};

bb_status bb_safetensors_create(const char *path, const bb_file_tensor *tensors, int count, const bb_file_metadata *metadata,
                                int metadata_count, bb_tensor_sink **out, bb_error *err) {
    bb_status status;
    *out = NULL;
    writer *w = calloc(1, sizeof *w);
    if (!w) return no_memory(path, err);
    w->base.ops = &ops;
    w->file.fd = -1;
    w->header = json_object();
    w->checksums = json_object();
    w->ends = calloc((size_t)count + 1, sizeof *w->ends);
    w->names = calloc((size_t)count + 1, sizeof *w->names);
    w->hash = XXH3_createState();
    if (!w->header || !w->checksums || !w->ends || !w->names || !w->hash) {
        status = no_memory(path, err);
        goto failed;
    }
    XXH3_64bits_reset(w->hash);
    BB_TRY_GOTO(status, failed, fill_header(w, path, tensors, count, metadata, metadata_count, err));
    BB_TRY_GOTO(status, failed, bb_file_writer_open(path, &w->file, err));
    BB_TRY_GOTO(status, failed, write_header(&w->file, w->header, false, err));
    BB_TRY_GOTO(status, failed, finish_tensors(w, err)); /* empty tensors at the beginning are complete already */
    *out = &w->base;
    return BB_OK;
failed:
    close_sink(&w->base);
    return status;
}
