// SPDX-License-Identifier: MIT
#include "modelfile/tensor_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/finite.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are read and written as they lie in memory: the formats are little-endian"
#endif

static const struct {
    const char *name;
    size_t bytes;
    int elements;
} dtypes[] = {[BB_FILE_F32] = {"F32", 4, 1},     [BB_FILE_F16] = {"F16", 2, 1},        [BB_FILE_BF16] = {"BF16", 2, 1},
              [BB_FILE_F64] = {"F64", 8, 1},     [BB_FILE_I8] = {"I8", 1, 1},          [BB_FILE_U8] = {"U8", 1, 1},
              [BB_FILE_I32] = {"I32", 4, 1},     [BB_FILE_I64] = {"I64", 8, 1},        [BB_FILE_BOOL] = {"BOOL", 1, 1},
              [BB_FILE_Q8_0] = {"Q8_0", 34, 32}, [BB_FILE_TQ1_0] = {"TQ1_0", 54, 256}, [BB_FILE_TQ2_0] = {"TQ2_0", 66, 256},
              [BB_FILE_Q2_0] = {"Q2_0", 18, 64}};

size_t bb_file_dtype_bytes(bb_file_dtype t) { return dtypes[t].bytes; }
int bb_file_dtype_elements(bb_file_dtype t) { return dtypes[t].elements; }
int64_t bb_file_elements(bb_file_dtype t, uint64_t bytes) { return (int64_t)(bytes / dtypes[t].bytes) * dtypes[t].elements; }
const char *bb_file_dtype_name(bb_file_dtype t) { return dtypes[t].name; }

bool bb_file_tensor_bytes(const bb_file_tensor *t, uint64_t *bytes) {
    uint64_t elements = 1, block = (uint64_t)bb_file_dtype_elements(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(elements, (uint64_t)t->shape[i], &elements)) return false;
    if (elements % block != 0 || __builtin_mul_overflow(elements / block, bb_file_dtype_bytes(t->dtype), bytes)) return false;
    return *bytes <= INT64_MAX && elements <= INT64_MAX;
}

bb_shape_text bb_shape_format(int rank, const int64_t *shape) {
    bb_shape_text s = {"("};
    size_t used = 1;
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(s.text + used, sizeof s.text - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    (void)snprintf(s.text + used, sizeof s.text - used, ")");
    return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static int compare_names(const void *left, const void *right) {
    const bb_file_tensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static int compare_name_with(const void *name, const void *right) {
    const bb_file_tensor *const *b = right;
    return strcmp(name, (*b)->name);
}

bb_status bb_tensor_source_index(bb_tensor_source *s, bb_error *err) {
    free(s->by_name);
    s->by_name = calloc((size_t)s->count + 1, sizeof *s->by_name);
    if (!s->by_name) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %d tensors", s->input.path, s->count);
    for (int i = 0; i < s->count; i++) s->by_name[i] = &s->tensors[i];
    qsort(s->by_name, (size_t)s->count, sizeof *s->by_name, compare_names);
    for (int i = 1; i < s->count; i++)
        if (strcmp(s->by_name[i - 1]->name, s->by_name[i]->name) == 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': duplicate name", s->input.path, s->by_name[i]->name);
    return BB_OK;
}

void bb_tensor_source_close(bb_tensor_source *s) {
    if (s) s->ops->close(s);
}

int bb_tensor_source_count(const bb_tensor_source *s) { return s->count; }
const bb_file_tensor *bb_tensor_source_at(const bb_tensor_source *s, int index) { return &s->tensors[index]; }
const char *bb_tensor_source_metadata(const bb_tensor_source *s, const char *key) { return s->ops->metadata(s, key); }
const char *bb_tensor_source_path(const bb_tensor_source *s) { return s->input.path; }
uint64_t bb_tensor_source_file_bytes(const bb_tensor_source *s) { return s->input.size; }

const bb_file_tensor *bb_tensor_source_find(const bb_tensor_source *s, const char *name) {
    const bb_file_tensor *const *found = bsearch(name, s->by_name, (size_t)s->count, sizeof *s->by_name, compare_name_with);
    return found ? *found : NULL;
}

bb_status bb_tensor_source_require(const bb_tensor_source *s, const char *name, bb_file_dtype dtype, int rank,
                                   const int64_t *shape, const bb_file_tensor **out, bb_error *err) {
    const bb_file_tensor *t = bb_tensor_source_find(s, name);
    if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", s->input.path, name);
    if (t->dtype != dtype || t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' at byte %" PRIu64 ": expected %s %s, found %s %s", s->input.path,
                       name, s->data_start + t->offset, bb_file_dtype_name(dtype), bb_shape_format(rank, shape).text,
                       bb_file_dtype_name(t->dtype), bb_shape_format(t->rank, t->shape).text);
    *out = t;
    return BB_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

bool bb_tensor_source_has_checksums(const bb_tensor_source *s) {
    return s->ops->checksum && (s->count == 0 || s->ops->checksum(s, &s->tensors[0]));
}

bb_status bb_tensor_source_check_metadata(const bb_tensor_source *s, bb_error *err) {
    return s->ops->check_metadata ? s->ops->check_metadata(s, err) : BB_OK;
}

bb_status bb_tensor_source_read_range(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                                      bb_error *err) {
    if (at > t->bytes || size > t->bytes - at)
        return bb_fail(err, BB_ERR_INTERNAL, "%s: tensor '%s': bytes %" PRIu64 " to %" PRIu64 " requested, but it has %" PRIu64,
                       s->input.path, t->name, at, at + size, t->bytes);
    return s->ops->read(s, t, at, out, size, err);
}

bb_status bb_tensor_source_scan(const bb_tensor_source *s, const bb_file_tensor *t, bb_tensor_visit visit, void *user,
                                bb_error *err) {
    const char *expected = s->ops->checksum ? s->ops->checksum(s, t) : NULL;
    size_t block = bb_file_dtype_bytes(t->dtype), max_piece = BB_SOURCE_PIECE_BYTES / block * block;
    if (t->bytes < max_piece) max_piece = (size_t)t->bytes;
    uint8_t *piece = malloc(max_piece + 1);
    XXH3_state_t *hash = expected ? XXH3_createState() : NULL;
    bb_status status = BB_OK;
    if (!piece || (expected && !hash)) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it", s->input.path);
        goto done;
    }
    if (hash) XXH3_64bits_reset(hash);
    for (uint64_t at = 0; at < t->bytes; at += max_piece) {
        size_t n = t->bytes - at < max_piece ? (size_t)(t->bytes - at) : max_piece;
        BB_TRY_GOTO(status, done, s->ops->read(s, t, at, piece, n, err));
        if (hash) XXH3_64bits_update(hash, piece, n);
        if (visit) BB_TRY_GOTO(status, done, visit(user, t, at, piece, n, err));
    }
    if (hash) {
        char found[17];
        (void)snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(hash));
        if (strcmp(found, expected) != 0)
            status = bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is damaged: expected the checksum %s, found %s",
                             s->input.path, t->name, expected, found);
    }
done:
    XXH3_freeState(hash);
    free(piece);
    return status;
}

static bb_status copy_piece(void *out, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size, bb_error *err) {
    (void)t, (void)err;
    memcpy((uint8_t *)out + at, piece, size);
    return BB_OK;
}

bb_status bb_tensor_source_read(const bb_tensor_source *s, const bb_file_tensor *t, void *out, bb_error *err) {
    return bb_tensor_source_scan(s, t, copy_piece, out, err);
}

bb_status bb_tensor_check_finite(void *source, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                 bb_error *err) {
    int64_t n = (int64_t)(size / sizeof(float)), i;
    if (t->dtype != BB_FILE_F32 || (i = bb_find_not_finite(piece, n)) == n) return BB_OK;
    float value;
    memcpy(&value, piece + (size_t)i * sizeof value, sizeof value);
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': element %llu is %s, expected a finite number",
                   bb_tensor_source_path(source), t->name, (unsigned long long)(at / sizeof value) + (unsigned long long)i,
                   bb_not_finite_name(value));
}
