// SPDX-License-Identifier: MIT
/* safetensors, as https://github.com/huggingface/safetensors describes it (see docs/FORMAT.md): the
 * reader, and the checksums. */
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/json.h"
#include "format/safetensors_shared.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are read and written as they lie in memory: the format is little-endian"
#endif

enum { PIECE_BYTES = 1 << 20 };

struct bb_safetensors {
    char *path;
    int fd;
    uint64_t size;     /* of the file */
    json_t *header;    /* owns the names and the metadata */
    json_t *checksums; /* name -> 16 hexadecimal digits, NULL: the file has none */
    uint64_t data_start;
    int count;
    bb_st_tensor *tensors;        /* (count), by offset */
    const bb_st_tensor **by_name; /* (count) */
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {[BB_ST_F32] = {"F32", 4}, [BB_ST_F16] = {"F16", 2}, [BB_ST_BF16] = {"BF16", 2},
              [BB_ST_F64] = {"F64", 8}, [BB_ST_I8] = {"I8", 1},   [BB_ST_U8] = {"U8", 1},
              [BB_ST_I32] = {"I32", 4}, [BB_ST_I64] = {"I64", 8}, [BB_ST_BOOL] = {"BOOL", 1}};
enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

/* The standard's other types: a file that holds them is good, though not for us. */
static const char *const foreign_dtypes[] = {"I16",     "U16",     "U32",     "U64",         "C64",
                                             "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                             "F6_E2M3", "F6_E3M2", "F4"};

size_t bb_st_dtype_bytes(bb_st_dtype t) { return dtypes[t].bytes; }
const char *bb_st_dtype_name(bb_st_dtype t) { return dtypes[t].name; }

typedef struct shape_text {
    char text[96]; /* "(256, 64)" */
} shape_text;

static shape_text format_shape(int rank, const int64_t *shape) {
    shape_text s = {"("};
    size_t used = 1;
    for (int i = 0; i < rank; i++)
        used += (size_t)snprintf(s.text + used, sizeof s.text - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    (void)snprintf(s.text + used, sizeof s.text - used, ")");
    return s;
}

bool bb_st_tensor_bytes(const bb_st_tensor *t, uint64_t *bytes) {
    *bytes = bb_st_dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes)) return false;
    return *bytes <= INT64_MAX;
}

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

static bb_status read_dtype(const bb_safetensors *st, const char *name, const json_t *value, bb_st_dtype *out, bb_error *err) {
    const char *text = json_string_value(value);
    if (!text) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': dtype: expected a string", st->path, name);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(text, dtypes[i].name) != 0) continue;
        *out = (bb_st_dtype)i;
        return BB_OK;
    }
    for (size_t i = 0; i < sizeof foreign_dtypes / sizeof *foreign_dtypes; i++)
        if (strcmp(text, foreign_dtypes[i]) == 0)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': unsupported dtype %s", st->path, name, text);
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': unknown dtype '%s'", st->path, name, text);
}

static bb_status read_shape(const bb_safetensors *st, const char *name, const json_t *value, bb_st_tensor *t, bb_error *err) {
    if (!json_is_array(value))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape: expected an array of sizes", st->path, name);
    size_t rank = json_array_size(value);
    if (rank > BB_ST_MAX_RANK)
        return bb_fail(err, BB_ERR_UNSUPPORTED, "%s: tensor '%s': shape: expected at most %d dimensions, found %zu", st->path,
                       name, BB_ST_MAX_RANK, rank);
    t->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *size = json_array_get(value, i);
        if (!json_is_integer(size))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape[%zu]: expected an integer", st->path, name, i);
        t->shape[i] = json_integer_value(size);
        if (t->shape[i] < 0)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape[%zu]: expected a size, found %" PRId64, st->path, name,
                           i, t->shape[i]);
    }
    return BB_OK;
}

static bb_status read_offsets(const bb_safetensors *st, const char *name, const json_t *value, bb_st_tensor *t, bb_error *err) {
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': data_offsets: expected two integers", st->path, name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(second);
    uint64_t data_bytes = st->size - st->data_start;
    if (begin < 0 || begin > end)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': data_offsets: expected 0 <= begin <= end, found [%" JSON_INTEGER_FORMAT
                       ", %" JSON_INTEGER_FORMAT "]",
                       st->path, name, begin, end);
    if ((uint64_t)end > data_bytes)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': expected its data up to byte %" PRIu64 ", found the end of the file at byte %zu: "
                       "truncated?",
                       st->path, name, st->data_start + (uint64_t)end, st->size);
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    uint64_t expected = 0;
    if (!bb_st_tensor_bytes(t, &expected))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape %s overflows", st->path, name,
                       format_shape(t->rank, t->shape).text);
    if (t->bytes != expected)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s' at byte %" PRIu64 ": expected %" PRIu64 " bytes for %s %s, found %" PRIu64, st->path,
                       name, st->data_start + t->offset, expected, bb_st_dtype_name(t->dtype),
                       format_shape(t->rank, t->shape).text, t->bytes);
    return BB_OK;
}

static bb_status read_metadata(const bb_safetensors *st, const json_t *metadata, bb_error *err) {
    if (!json_is_object(metadata)) return bb_fail(err, BB_ERR_FORMAT, "%s: %s: expected an object", st->path, BB_ST_METADATA);
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return bb_fail(err, BB_ERR_FORMAT, "%s: %s: '%s': expected a string", st->path, BB_ST_METADATA, key);
    }
    return BB_OK;
}

static bb_status read_checksums(bb_safetensors *st, bb_error *err) {
    const char *text = bb_safetensors_metadata(st, BB_ST_CHECKSUMS), *name;
    const json_t *value;
    if (!text) return BB_OK;
    bb_status status = bb_json_parse(text, strlen(text), "checksums ('tensor_xxh3')", 0, &st->checksums, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", st->path);
    if (!json_is_object(st->checksums))
        return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): expected an object", st->path);
    json_object_foreach(st->checksums, name, value) {
        const char *digits = json_string_value(value);
        if (!digits || strlen(digits) != 16 || strspn(digits, "0123456789abcdef") != 16)
            return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): '%s': expected 16 hexadecimal digits", st->path,
                           name);
    }
    for (int i = 0; i < st->count; i++)
        if (!json_object_get(st->checksums, st->tensors[i].name))
            return bb_fail(err, BB_ERR_FORMAT, "%s: checksums ('tensor_xxh3'): tensor '%s' has none", st->path,
                           st->tensors[i].name);
    return BB_OK;
}

static int compare_places(const void *left, const void *right) {
    const bb_st_tensor *a = left, *b = right;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1; /* empty tensors stand before the one that begins there */
    return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right) {
    const bb_st_tensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static int compare_name_with(const void *name, const void *right) {
    const bb_st_tensor *const *b = right;
    return strcmp(name, (*b)->name);
}

/* The tensors, by offset, must cover the data section: no gap, no overlap, nothing after the last. */
static bb_status check_places(const bb_safetensors *st, bb_error *err) {
    uint64_t end = 0;
    const char *before = "the data section's beginning";
    for (int i = 0; i < st->count; i++) {
        const bb_st_tensor *t = &st->tensors[i];
        if (t->offset != end)
            return bb_fail(err, BB_ERR_FORMAT,
                           "%s: tensor '%s': expected it at byte %" PRIu64 ", after %s, found it at byte %" PRIu64 ": %s",
                           st->path, t->name, st->data_start + end, before, st->data_start + t->offset,
                           t->offset < end ? "they overlap" : "a gap");
        end = t->offset + t->bytes;
        before = t->name;
    }
    if (st->data_start + end != st->size)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: expected the end of the file at byte %" PRIu64 ", after %s, found %" PRIu64 " trailing bytes",
                       st->path, st->data_start + end, before, st->size - st->data_start - end);
    return BB_OK;
}

static bb_status read_header(bb_safetensors *st, bb_error *err) {
    if (st->size < BB_ST_LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected a safetensors file of at least %d bytes, found %zu bytes", st->path,
                       BB_ST_LENGTH_BYTES, st->size);
    uint64_t length;
    BB_TRY(bb_file_read_at(st->fd, st->path, 0, &length, sizeof length, err));
    if (length > BB_ST_MAX_HEADER_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header length of at most %d, found %" PRIu64 ": not a safetensors file?",
                       st->path, BB_ST_MAX_HEADER_BYTES, length);
    if (length > st->size - BB_ST_LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header of %" PRIu64 " bytes, found the end of the file after %zu: truncated?",
                       st->path, length, st->size - BB_ST_LENGTH_BYTES);
    st->data_start = BB_ST_LENGTH_BYTES + length;
    char *text = malloc((size_t)length + 1);
    if (!text) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for a header of %" PRIu64 " bytes", st->path, length);
    bb_status status = bb_file_read_at(st->fd, st->path, BB_ST_LENGTH_BYTES, text, (size_t)length, err);
    if (status == BB_OK && (length == 0 || text[0] != '{'))
        status =
            bb_fail(err, BB_ERR_FORMAT, "%s: byte %d: expected a header that begins with '{'", st->path, BB_ST_LENGTH_BYTES);
    if (status == BB_OK) status = bb_json_parse(text, (size_t)length, st->path, BB_ST_LENGTH_BYTES, &st->header, err);
    free(text);
    return status;
}

static bb_status read_tensors(bb_safetensors *st, bb_error *err) {
    size_t most = json_object_size(st->header);
    st->tensors = calloc(most + 1, sizeof *st->tensors);
    st->by_name = calloc(most + 1, sizeof *st->by_name);
    if (!st->tensors || !st->by_name) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %zu tensors", st->path, most);
    const char *name;
    const json_t *entry;
    json_object_foreach(st->header, name, entry) {
        if (strcmp(name, BB_ST_METADATA) == 0) {
            BB_TRY(read_metadata(st, entry, err));
            continue;
        }
        if (!json_is_object(entry))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected an object with dtype, shape and data_offsets",
                           st->path, name);
        bb_st_tensor *t = &st->tensors[st->count];
        t->name = name;
        BB_TRY(read_dtype(st, name, json_object_get(entry, "dtype"), &t->dtype, err));
        BB_TRY(read_shape(st, name, json_object_get(entry, "shape"), t, err));
        BB_TRY(read_offsets(st, name, json_object_get(entry, "data_offsets"), t, err));
        st->count++;
    }
    qsort(st->tensors, (size_t)st->count, sizeof *st->tensors, compare_places);
    for (int i = 0; i < st->count; i++) st->by_name[i] = &st->tensors[i];
    qsort(st->by_name, (size_t)st->count, sizeof *st->by_name, compare_names);
    return check_places(st, err);
}

bb_status bb_safetensors_open(const char *path, bb_safetensors **out, bb_error *err) {
    bb_status status;
    *out = NULL;
    bb_safetensors *st = calloc(1, sizeof *st);
    struct stat file;
    if (st) st->fd = -1;
    if (st) st->path = strdup(path);
    if (!st || !st->path) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path);
        goto failed;
    }
    BB_TRY_GOTO(status, failed, bb_file_open(path, &st->fd, &file, err));
    st->size = (uint64_t)file.st_size;
    BB_TRY_GOTO(status, failed, read_header(st, err));
    BB_TRY_GOTO(status, failed, read_tensors(st, err));
    BB_TRY_GOTO(status, failed, read_checksums(st, err));
    *out = st;
    return BB_OK;
failed:
    bb_safetensors_close(st);
    return status;
}

void bb_safetensors_close(bb_safetensors *st) {
    if (!st) return;
    json_decref(st->header);
    json_decref(st->checksums);
    if (st->fd >= 0) close(st->fd);
    free(st->by_name);
    free(st->tensors);
    free(st->path);
    free(st);
}

int bb_safetensors_count(const bb_safetensors *st) { return st->count; }

const bb_st_tensor *bb_safetensors_at(const bb_safetensors *st, int index) { return &st->tensors[index]; }

const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name) {
    const bb_st_tensor *const *found = bsearch(name, st->by_name, (size_t)st->count, sizeof *st->by_name, compare_name_with);
    return found ? *found : NULL;
}

const char *bb_safetensors_metadata(const bb_safetensors *st, const char *key) {
    return json_string_value(json_object_get(json_object_get(st->header, BB_ST_METADATA), key));
}

const char *bb_safetensors_path(const bb_safetensors *st) { return st->path; }
uint64_t bb_safetensors_file_bytes(const bb_safetensors *st) { return st->size; }

bb_status bb_safetensors_require_f32(const bb_safetensors *st, const char *name, int rank, const int64_t *shape,
                                     const bb_st_tensor **out, bb_error *err) {
    const bb_st_tensor *t = bb_safetensors_find(st, name);
    if (!t) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", st->path, name);
    if (t->dtype != BB_ST_F32 || t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' at byte %" PRIu64 ": expected F32 %s, found %s %s", st->path, name,
                       st->data_start + t->offset, format_shape(rank, shape).text, bb_st_dtype_name(t->dtype),
                       format_shape(t->rank, t->shape).text);
    *out = t;
    return BB_OK;
}

bool bb_safetensors_has_checksums(const bb_safetensors *st) { return st->checksums != NULL; }

static bb_status compare_sums(const bb_safetensors *st, const char *what, const char *name, uint64_t sum, bb_error *err) {
    const char *expected = json_string_value(json_object_get(st->checksums, name));
    if (!expected || strcmp(expected, bb_st_sum_format(sum).text) == 0) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: %s'%s' is damaged: expected the checksum %s, found %s", st->path, what, name,
                   expected, bb_st_sum_format(sum).text);
}

bb_status bb_safetensors_check_metadata(const bb_safetensors *st, bb_error *err) {
    uint64_t sum;
    const json_t *metadata = json_object_get(st->header, BB_ST_METADATA);
    if (!st->checksums) return BB_OK;
    if (!bb_st_sum_metadata(metadata, &sum)) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to check it", st->path);
    return compare_sums(st, "", BB_ST_METADATA, sum, err);
}

bb_status bb_safetensors_scan(const bb_safetensors *st, const bb_st_tensor *t, bb_st_visit visit, void *user, bb_error *err) {
    bb_status status = BB_OK;
    uint8_t *piece = malloc(PIECE_BYTES);
    XXH3_state_t *hash = st->checksums ? XXH3_createState() : NULL;
    if (!piece || (st->checksums && !hash)) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it", st->path);
        goto done;
    }
    if (hash) XXH3_64bits_reset(hash);
    for (uint64_t at = 0; at < t->bytes; at += PIECE_BYTES) {
        size_t n = t->bytes - at < PIECE_BYTES ? (size_t)(t->bytes - at) : (size_t)PIECE_BYTES;
        BB_TRY_GOTO(status, done, bb_file_read_at(st->fd, st->path, st->data_start + t->offset + at, piece, n, err));
        if (hash) XXH3_64bits_update(hash, piece, n);
        if (visit) BB_TRY_GOTO(status, done, visit(user, t, at, piece, n, err));
    }
    if (hash) status = compare_sums(st, "tensor ", t->name, XXH3_64bits_digest(hash), err);
done:
    XXH3_freeState(hash);
    free(piece);
    return status;
}

static bb_status take_piece(void *out, const bb_st_tensor *t, uint64_t at, const uint8_t *piece, size_t size, bb_error *err) {
    (void)t, (void)err;
    memcpy((uint8_t *)out + at, piece, size);
    return BB_OK;
}

bb_status bb_safetensors_read(const bb_safetensors *st, const bb_st_tensor *t, void *out, bb_error *err) {
    return bb_safetensors_scan(st, t, take_piece, out, err);
}
