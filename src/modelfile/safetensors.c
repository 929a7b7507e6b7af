// SPDX-License-Identifier: MIT
/* Reads safetensors and verifies its checksums. */
#include "modelfile/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/json.h"
#include "modelfile/safetensors_shared.h"

/* The supported element types; the standard's other types are refused. */
enum { DTYPE_COUNT = BB_FILE_BOOL + 1 };

typedef struct safetensors {
    bb_tensor_source base;
    json_t *header;    /* owns the names and the metadata */
    json_t *checksums; /* name -> 16 hexadecimal digits; NULL: the file has none */
} safetensors;

/* The standard's other types: a file with them is valid, but not supported here. */
static const char *const foreign_dtypes[] = {"I16",     "U16",     "U32",     "U64",         "C64",
                                             "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                             "F6_E2M3", "F6_E3M2", "F4"};

bb_st_sum_text bb_st_sum_format(uint64_t sum) {
    bb_st_sum_text s;
    (void)snprintf(s.text, sizeof s.text, "%016" PRIx64, sum);
    return s;
}

static int compare_keys(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

bool bb_st_sum_metadata(const json_t *metadata, uint64_t *sum) {
    size_t count = 0;
    const char **keys = calloc(json_object_size(metadata) + 1, sizeof *keys);
    XXH3_state_t *hash = XXH3_createState();
    bool good = keys && hash;
    const char *key;
    const json_t *value;
    if (!good) goto done;
    json_object_foreach((json_t *)metadata, key, value) {
        if (strcmp(key, BB_ST_CHECKSUMS) != 0) keys[count++] = key;
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    XXH3_64bits_reset(hash);
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_object_get(metadata, keys[i]));
        XXH3_64bits_update(hash, keys[i], strlen(keys[i]) + 1);
        XXH3_64bits_update(hash, text, strlen(text) + 1);
    }
    *sum = XXH3_64bits_digest(hash);
done:
    XXH3_freeState(hash);
    free(keys);
    return good;
}

/* ---- Reader ----------------------------------------------------------------------------------------------------------- */

static bb_status read_dtype(const safetensors *st, const char *name, const json_t *value, bb_file_dtype *out, bb_error *err) {
    const char *text = json_string_value(value);
    if (!text) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': dtype: expected a string", st->base.input.path, name);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(text, bb_file_dtype_name((bb_file_dtype)i)) != 0) continue;
        *out = (bb_file_dtype)i;
        return BB_OK;
    }
    for (size_t i = 0; i < sizeof foreign_dtypes / sizeof *foreign_dtypes; i++)
        if (strcmp(text, foreign_dtypes[i]) == 0)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': unsupported dtype %s", st->base.input.path, name, text);
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': unknown dtype '%s'", st->base.input.path, name, text);
}

static bb_status read_shape(const safetensors *st, const char *name, const json_t *value, bb_file_tensor *t, bb_error *err) {
    if (!json_is_array(value))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape: expected an array of sizes", st->base.input.path, name);
    size_t rank = json_array_size(value);
    if (rank > BB_FILE_MAX_RANK)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': shape: expected at most %d dimensions, found %zu",
                       st->base.input.path, name, BB_FILE_MAX_RANK, rank);
    t->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *size = json_array_get(value, i);
        if (!json_is_integer(size))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape[%zu]: expected an integer", st->base.input.path, name,
                           i);
        t->shape[i] = json_integer_value(size);
        if (t->shape[i] < 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape[%zu]: expected a size, found %" PRId64,
                           st->base.input.path, name, i, t->shape[i]);
    }
    return BB_OK;
}

static bb_status read_offsets(const safetensors *st, const char *name, const json_t *value, bb_file_tensor *t, bb_error *err) {
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': data_offsets: expected two integers", st->base.input.path, name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(second);
    uint64_t data_bytes = st->base.input.size - st->base.data_start;
    if (begin < 0 || begin > end)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': data_offsets: expected 0 <= begin <= end, found [%" JSON_INTEGER_FORMAT
                       ", %" JSON_INTEGER_FORMAT "]",
                       st->base.input.path, name, begin, end);
    if ((uint64_t)end > data_bytes)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': expected its data up to byte %" PRIu64 ", found the end of the file at byte %zu: "
                       "truncated?",
                       st->base.input.path, name, st->base.data_start + (uint64_t)end, st->base.input.size);
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    uint64_t expected = 0;
    if (!bb_file_tensor_bytes(t, &expected))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape %s overflows", st->base.input.path, name,
                       bb_shape_format(t->rank, t->shape).text);
    if (t->bytes != expected)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s' at byte %" PRIu64 ": expected %" PRIu64 " bytes for %s %s, found %" PRIu64,
                       st->base.input.path, name, st->base.data_start + t->offset, expected, bb_file_dtype_name(t->dtype),
                       bb_shape_format(t->rank, t->shape).text, t->bytes);
    return BB_OK;
}

static bb_status read_metadata(const safetensors *st, const json_t *metadata, bb_error *err) {
    if (!json_is_object(metadata))
        return bb_fail(err, BB_ERR_FORMAT, "%s: %s: expected an object", st->base.input.path, BB_ST_METADATA);
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return bb_fail(err, BB_ERR_FORMAT, "%s: %s: '%s': expected a string", st->base.input.path, BB_ST_METADATA, key);
    }
    return BB_OK;
}

static const char *metadata_text(const bb_tensor_source *s, const char *key) {
    return json_string_value(json_object_get(json_object_get(((const safetensors *)s)->header, BB_ST_METADATA), key));
}

static bb_status read_checksums(safetensors *st, bb_error *err) {
    const char *text = metadata_text(&st->base, BB_ST_CHECKSUMS), *name;
    const json_t *value;
    if (!text) return BB_OK;
    bb_status status = bb_json_parse(text, strlen(text), "checksums ('tensor_xxh3')", 0, &st->checksums, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", st->base.input.path);
    if (!json_is_object(st->checksums))
        return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): expected an object", st->base.input.path);
    json_object_foreach(st->checksums, name, value) {
        const char *digits = json_string_value(value);
        if (!digits || strlen(digits) != 16 || strspn(digits, "0123456789abcdef") != 16)
            return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): '%s': expected 16 hexadecimal digits",
                           st->base.input.path, name);
    }
    for (int i = 0; i < st->base.count; i++)
        if (!json_object_get(st->checksums, st->base.tensors[i].name))
            return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): tensor '%s' has none", st->base.input.path,
                           st->base.tensors[i].name);
    return BB_OK;
}

static int compare_extents(const void *left, const void *right) {
    const bb_file_tensor *a = left, *b = right;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1; /* empty tensors come before the tensor that begins at the same offset */
    return strcmp(a->name, b->name);
}

/* Checks that the tensors, by offset, cover the data section without gaps, overlaps or trailing bytes. */
static bb_status check_extents(const safetensors *st, bb_error *err) {
    uint64_t end = 0;
    const char *before = "the start of the data section";
    for (int i = 0; i < st->base.count; i++) {
        const bb_file_tensor *t = &st->base.tensors[i];
        if (t->offset != end)
            return bb_fail(err, BB_ERR_FORMAT,
                           "%s: tensor '%s': expected it at byte %" PRIu64 ", after %s, found it at byte %" PRIu64 ": %s",
                           st->base.input.path, t->name, st->base.data_start + end, before, st->base.data_start + t->offset,
                           t->offset < end ? "they overlap" : "a gap");
        end = t->offset + t->bytes;
        before = t->name;
    }
    if (st->base.data_start + end != st->base.input.size)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: expected the end of the file at byte %" PRIu64 ", after %s, found %" PRIu64 " trailing bytes",
                       st->base.input.path, st->base.data_start + end, before, st->base.input.size - st->base.data_start - end);
    return BB_OK;
}

static bb_status read_header(safetensors *st, bb_error *err) {
    if (st->base.input.size < BB_ST_LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected a safetensors file of at least %d bytes, found %zu bytes",
                       st->base.input.path, BB_ST_LENGTH_BYTES, st->base.input.size);
    uint64_t length;
    BB_TRY(bb_input_read(&st->base.input, 0, &length, sizeof length, err));
    if (length > BB_ST_MAX_HEADER_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header length of at most %d, found %" PRIu64 ": not a safetensors file?",
                       st->base.input.path, BB_ST_MAX_HEADER_BYTES, length);
    if (length > st->base.input.size - BB_ST_LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header of %" PRIu64 " bytes, found the end of the file after %zu: truncated?",
                       st->base.input.path, length, st->base.input.size - BB_ST_LENGTH_BYTES);
    st->base.data_start = BB_ST_LENGTH_BYTES + length;
    char *text = malloc((size_t)length + 1);
    if (!text)
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for a header of %" PRIu64 " bytes", st->base.input.path, length);
    bb_status status = bb_input_read(&st->base.input, BB_ST_LENGTH_BYTES, text, (size_t)length, err);
    if (status == BB_OK && (length == 0 || text[0] != '{'))
        status = bb_fail(err, BB_ERR_FORMAT, "%s: byte %d: expected a header that begins with '{'", st->base.input.path,
                         BB_ST_LENGTH_BYTES);
    if (status == BB_OK)
        status = bb_json_parse(text, (size_t)length, st->base.input.path, BB_ST_LENGTH_BYTES, &st->header, err);
    free(text);
    return status;
}

static bb_status read_tensors(safetensors *st, bb_error *err) {
    size_t count = json_object_size(st->header);
    st->base.tensors = calloc(count + 1, sizeof *st->base.tensors);
    if (!st->base.tensors) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %zu tensors", st->base.input.path, count);
    const char *name;
    const json_t *entry;
    json_object_foreach(st->header, name, entry) {
        if (strcmp(name, BB_ST_METADATA) == 0) {
            BB_TRY(read_metadata(st, entry, err));
            continue;
        }
        if (!json_is_object(entry))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected an object with dtype, shape and data_offsets",
                           st->base.input.path, name);
        bb_file_tensor *t = &st->base.tensors[st->base.count];
        t->name = name;
        BB_TRY(read_dtype(st, name, json_object_get(entry, "dtype"), &t->dtype, err));
        BB_TRY(read_shape(st, name, json_object_get(entry, "shape"), t, err));
        BB_TRY(read_offsets(st, name, json_object_get(entry, "data_offsets"), t, err));
        st->base.count++;
    }
    qsort(st->base.tensors, (size_t)st->base.count, sizeof *st->base.tensors, compare_extents);
    BB_TRY(bb_tensor_source_index(&st->base, err));
    return check_extents(st, err);
}

static void close_source(bb_tensor_source *s) {
    safetensors *st = (safetensors *)s;
    json_decref(st->header);
    json_decref(st->checksums);
    bb_input_close(&s->input);
    free(s->by_name);
    free(s->tensors);
    free(st);
}

static bb_status read_bytes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                            bb_error *err) {
    return bb_input_read(&s->input, s->data_start + t->offset + at, out, size, err);
}

static const char *checksum(const bb_tensor_source *s, const bb_file_tensor *t) {
    return json_string_value(json_object_get(((const safetensors *)s)->checksums, t->name));
}

static bb_status check_metadata(const bb_tensor_source *s, bb_error *err) {
    const safetensors *st = (const safetensors *)s;
    const char *expected = json_string_value(json_object_get(st->checksums, BB_ST_METADATA));
    uint64_t sum;
    if (!expected) return BB_OK;
    if (!bb_st_sum_metadata(json_object_get(st->header, BB_ST_METADATA), &sum))
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to check it", s->input.path);
    if (strcmp(expected, bb_st_sum_format(sum).text) == 0) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: '%s' is damaged: expected the checksum %s, found %s", s->input.path, BB_ST_METADATA,
                   expected, bb_st_sum_format(sum).text);
}

static const bb_tensor_source_ops ops = {.format = "safetensors",
                                         .close = close_source,
                                         .metadata = metadata_text,
                                         .read = read_bytes,
                                         .checksum = checksum,
                                         .check_metadata = check_metadata};

bb_status bb_safetensors_open_input(bb_input *input, bb_tensor_source **out, bb_error *err) {
    bb_status status;
    *out = NULL;
    safetensors *st = calloc(1, sizeof *st);
    if (!st) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", input->path);
        bb_input_close(input);
        return status;
    }
    st->base.ops = &ops;
    st->base.input = *input;
    *input = (bb_input){.fd = -1};
    BB_TRY_GOTO(status, failed, read_header(st, err));
    BB_TRY_GOTO(status, failed, read_tensors(st, err));
    BB_TRY_GOTO(status, failed, read_checksums(st, err));
    *out = &st->base;
    return BB_OK;
failed:
    close_source(&st->base);
    return status;
}

bb_status bb_safetensors_open(const char *path, bb_tensor_source **out, bb_error *err) {
    bb_input input;
    *out = NULL;
    bb_status status = bb_input_open_file(path, &input, err);
    if (status == BB_OK) return bb_safetensors_open_input(&input, out, err);
    bb_input_close(&input);
    return status;
}
