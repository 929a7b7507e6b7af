/* safetensors, as https://github.com/huggingface/safetensors describes it (see docs/FORMAT.md): reader and writer.
 * SPDX-License-Identifier: MIT */
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are read and written as they lie in memory: the format is little-endian"
#endif

enum { LENGTH_BYTES = 8, MAX_HEADER_BYTES = 100000000, DATA_ALIGN = 64 };
static const char METADATA_KEY[] = "__metadata__";

struct bb_safetensors {
    char *path;
    bb_file_map map;
    json_t *header; /* owns the names and the metadata */
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

/* False when the product does not fit. */
static bool tensor_bytes(const bb_st_tensor *t, uint64_t *bytes) {
    *bytes = bb_st_dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (__builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes)) return false;
    return *bytes <= INT64_MAX;
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
    uint64_t data_bytes = st->map.size - st->data_start;
    if (begin < 0 || begin > end)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': data_offsets: expected 0 <= begin <= end, found [%" JSON_INTEGER_FORMAT
                       ", %" JSON_INTEGER_FORMAT "]",
                       st->path, name, begin, end);
    if ((uint64_t)end > data_bytes)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': expected its data up to byte %" PRIu64 ", found the end of the file at byte %zu: "
                       "truncated?",
                       st->path, name, st->data_start + (uint64_t)end, st->map.size);
    t->offset = (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    uint64_t expected = 0;
    if (!tensor_bytes(t, &expected))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape %s overflows", st->path, name,
                       format_shape(t->rank, t->shape).text);
    if (t->bytes != expected)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s' at byte %" PRIu64 ": expected %" PRIu64 " bytes for %s %s, found %" PRIu64, st->path,
                       name, st->data_start + t->offset, expected, bb_st_dtype_name(t->dtype),
                       format_shape(t->rank, t->shape).text, t->bytes);
    t->data = st->map.data + st->data_start + t->offset;
    return BB_OK;
}

static bb_status read_metadata(const bb_safetensors *st, const json_t *metadata, bb_error *err) {
    if (!json_is_object(metadata)) return bb_fail(err, BB_ERR_FORMAT, "%s: %s: expected an object", st->path, METADATA_KEY);
    const char *key;
    const json_t *value;
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return bb_fail(err, BB_ERR_FORMAT, "%s: %s: '%s': expected a string", st->path, METADATA_KEY, key);
    }
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
    if (st->data_start + end != st->map.size)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: expected the end of the file at byte %" PRIu64 ", after %s, found %" PRIu64 " trailing bytes",
                       st->path, st->data_start + end, before, (uint64_t)st->map.size - st->data_start - end);
    return BB_OK;
}

static bb_status read_header(bb_safetensors *st, bb_error *err) {
    if (st->map.size < LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected a safetensors file of at least %d bytes, found %zu bytes", st->path,
                       LENGTH_BYTES, st->map.size);
    uint64_t length;
    memcpy(&length, st->map.data, sizeof length);
    if (length > MAX_HEADER_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header length of at most %d, found %" PRIu64 ": not a safetensors file?",
                       st->path, MAX_HEADER_BYTES, length);
    if (length > st->map.size - LENGTH_BYTES)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: byte 0: expected a header of %" PRIu64 " bytes, found the end of the file after %zu: truncated?",
                       st->path, length, st->map.size - LENGTH_BYTES);
    st->data_start = LENGTH_BYTES + length;
    const char *text = (const char *)st->map.data + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return bb_fail(err, BB_ERR_FORMAT, "%s: byte %d: expected a header that begins with '{'", st->path, LENGTH_BYTES);
    return bb_json_parse(text, (size_t)length, st->path, LENGTH_BYTES, &st->header, err);
}

static bb_status read_tensors(bb_safetensors *st, bb_error *err) {
    size_t most = json_object_size(st->header);
    st->tensors = calloc(most + 1, sizeof *st->tensors);
    st->by_name = calloc(most + 1, sizeof *st->by_name);
    if (!st->tensors || !st->by_name) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %zu tensors", st->path, most);
    const char *name;
    const json_t *entry;
    json_object_foreach(st->header, name, entry) {
        if (strcmp(name, METADATA_KEY) == 0) {
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
    if (st) st->path = strdup(path);
    if (!st || !st->path) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path);
        goto failed;
    }
    BB_TRY_GOTO(status, failed, bb_file_map_open(path, &st->map, err));
    BB_TRY_GOTO(status, failed, read_header(st, err));
    BB_TRY_GOTO(status, failed, read_tensors(st, err));
    *out = st;
    return BB_OK;
failed:
    bb_safetensors_close(st);
    return status;
}

void bb_safetensors_close(bb_safetensors *st) {
    if (!st) return;
    json_decref(st->header);
    bb_file_map_close(&st->map);
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
    return json_string_value(json_object_get(json_object_get(st->header, METADATA_KEY), key));
}

const char *bb_safetensors_path(const bb_safetensors *st) { return st->path; }
uint64_t bb_safetensors_file_bytes(const bb_safetensors *st) { return st->map.size; }

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

/* ---- Writer ----------------------------------------------------------------------------------------------------------- */

struct bb_safetensors_writer {
    bb_file_writer file;
    uint64_t left; /* bytes of tensors still to come */
};

static bb_status put_metadata(json_t *header, const char *path, const bb_st_metadata *metadata, int count, bb_error *err) {
    json_t *object = json_object();
    if (json_object_set_new(header, METADATA_KEY, object) != 0) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory", path);
    for (int i = 0; i < count; i++)
        if (json_object_set_new(object, metadata[i].key, json_string(metadata[i].value)) != 0)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: metadata '%s': expected UTF-8 text", path, metadata[i].key);
    return BB_OK;
}

static bb_status put_tensor(json_t *header, const char *path, const bb_st_tensor *t, uint64_t *end, bb_error *err) {
    uint64_t bytes = 0, begin = *end;
    bool fits = t->rank >= 0 && t->rank <= BB_ST_MAX_RANK;
    for (int i = 0; fits && i < t->rank; i++) fits = t->shape[i] >= 0;
    fits = fits && tensor_bytes(t, &bytes) && !__builtin_add_overflow(begin, bytes, end) && *end <= INT64_MAX;
    if (!fits) return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': impossible shape", path, t->name);
    if (strcmp(t->name, METADATA_KEY) == 0 || json_object_get(header, t->name))
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': the name is taken", path, t->name);
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++)
        if (json_array_append_new(shape, json_integer(t->shape[i])) != 0) break;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", bb_st_dtype_name(t->dtype), "shape", shape, "data_offsets",
                              (json_int_t)begin, (json_int_t)*end);
    if (json_array_size(json_object_get(entry, "shape")) != (size_t)t->rank || json_object_set_new(header, t->name, entry) != 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: tensor '%s': expected a name in UTF-8", path, t->name);
    return BB_OK;
}

/* Length and JSON, padded with spaces so that the data begins at a multiple of DATA_ALIGN. */
static bb_status write_header(bb_file_writer *file, const json_t *header, bb_error *err) {
    bb_status status;
    unsigned char *block = NULL;
    size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    size_t total = (LENGTH_BYTES + length + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    uint64_t padded = total - LENGTH_BYTES;
    if (length == 0 || padded > MAX_HEADER_BYTES)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: header of %zu bytes: expected 1 to %d", file->path, length, MAX_HEADER_BYTES);
    block = malloc(total);
    if (!block) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for the header of %zu bytes", file->path, total);
    memset(block, ' ', total);
    memcpy(block, &padded, LENGTH_BYTES);
    json_dumpb(header, (char *)block + LENGTH_BYTES, length, JSON_COMPACT);
    status = bb_file_writer_write(file, block, total, err);
    free(block);
    return status;
}

bb_status bb_safetensors_create(const char *path, const bb_st_tensor *tensors, int count, const bb_st_metadata *metadata,
                                int metadata_count, bb_safetensors_writer **out, bb_error *err) {
    bb_status status;
    *out = NULL;
    json_t *header = json_object();
    bb_safetensors_writer *w = calloc(1, sizeof *w);
    if (w) w->file.fd = -1;
    if (!header || !w) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", path);
        goto done;
    }
    if (metadata_count > 0) BB_TRY_GOTO(status, done, put_metadata(header, path, metadata, metadata_count, err));
    for (int i = 0; i < count; i++) BB_TRY_GOTO(status, done, put_tensor(header, path, &tensors[i], &w->left, err));
    BB_TRY_GOTO(status, done, bb_file_writer_open(path, &w->file, err));
    BB_TRY_GOTO(status, done, write_header(&w->file, header, err));
    *out = w;
    w = NULL;
done:
    bb_safetensors_abort(w);
    json_decref(header);
    return status;
}

bb_status bb_safetensors_write(bb_safetensors_writer *w, const void *data, size_t bytes, bb_error *err) {
    if (bytes > w->left)
        return bb_fail(err, BB_ERR_INTERNAL, "expected at most %" PRIu64 " more bytes of tensors, found %zu", w->left, bytes);
    BB_TRY(bb_file_writer_write(&w->file, data, bytes, err));
    w->left -= bytes;
    return BB_OK;
}

bb_status bb_safetensors_commit(bb_safetensors_writer *w, bb_error *err) {
    bb_status status =
        w->left > 0 ? bb_fail(err, BB_ERR_INTERNAL, "the tensors are not complete: %" PRIu64 " bytes are missing", w->left)
                    : bb_file_writer_commit(&w->file, err);
    bb_safetensors_abort(w);
    return status;
}

void bb_safetensors_abort(bb_safetensors_writer *w) {
    if (!w) return;
    bb_file_writer_abort(&w->file);
    free(w);
}
