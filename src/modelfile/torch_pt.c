// SPDX-License-Identifier: MIT
#include "modelfile/torch_pt.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "core/json.h"
#include "modelfile/pickle.h"

enum {
    MAX_DEPTH = 8,
    MAX_NAME = 256,
    MAX_LEAVES = 1 << 20, /* a pickle can contain the same dict many times */
    MAX_PICKLE_BYTES = 256 << 20
};

typedef struct torch_pt {
    bb_tensor_source base;
    zip_t *zip;
    json_t *metadata;                /* key -> JSON text */
    char *prefix;                    /* "archive/" */
    const bb_pickle_tensor **places; /* (count), by tensor */
    bb_pickle pickle;
    /* The entry read last, and the position in it. */
    zip_file_t *entry;
    const bb_file_tensor *entry_tensor;
    uint64_t entry_at, entry_bytes;
    int leaves;
} torch_pt;

bool bb_torch_pt_matches(const uint8_t *head, size_t size) {
    static const uint8_t legacy[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c,
                                     0xfc, 0x9c, 0x46, 0xf9}; /* a pickle of torch.save's old magic number */
    return (size >= 4 && memcmp(head, "PK\3\4", 4) == 0) || (size >= sizeof legacy && memcmp(head, legacy, sizeof legacy) == 0);
}

static const char *path_of(const torch_pt *f) { return f->base.input.path; }

static bb_status zip_failure(const torch_pt *f, const char *what, bb_error *err) {
    return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: %s: %s", path_of(f), what, zip_strerror(f->zip));
}

/* ---- the archive ----------------------------------------------------------------------------------------------------------- */

static bb_status open_archive(torch_pt *f, bb_error *err) {
    zip_error_t error;
    zip_error_init(&error);
    const bb_input *in = &f->base.input;
    zip_source_t *source = NULL;
    if (in->fd >= 0) {
        FILE *file = NULL;
        int fd = dup(in->fd);
        if (fd >= 0) file = fdopen(fd, "rb");
        if (file) source = zip_source_filep_create(file, 0, -1, &error); /* closes the file */
        if (!source && file) (void)fclose(file);
        if (!file && fd >= 0) close(fd);
    } else {
        source = zip_source_buffer_create(in->memory, in->size, 0, &error);
    }
    if (source) f->zip = zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error);
    bb_status status = BB_OK;
    if (!f->zip) {
        if (source) zip_source_free(source);
        status = bb_fail(err, BB_ERR_FORMAT, "%s: not a readable zip archive: %s", path_of(f), zip_error_strerror(&error));
    }
    zip_error_fini(&error);
    return status;
}

/* Finds an entry, which must be stored uncompressed and appear once, and its size. */
static bb_status find_entry(const torch_pt *f, const char *name, zip_uint64_t *index, uint64_t *size, bb_error *err) {
    zip_stat_t st;
    zip_int64_t found = zip_name_locate(f->zip, name, 0);
    if (found < 0) return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: entry '%s' is missing", path_of(f), name);
    if (zip_stat_index(f->zip, (zip_uint64_t)found, 0, &st) != 0 || !(st.valid & ZIP_STAT_SIZE) ||
        !(st.valid & ZIP_STAT_COMP_METHOD))
        return zip_failure(f, name, err);
    if (st.comp_method != ZIP_CM_STORE || (st.valid & ZIP_STAT_ENCRYPTION_METHOD && st.encryption_method != ZIP_EM_NONE))
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: zip archive: entry '%s' is compressed or encrypted; torch.save stores its entries as they are",
                       path_of(f), name);
    if (st.size > f->base.input.size)
        return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: entry '%s' claims %" PRIu64 " bytes, the file has %" PRIu64,
                       path_of(f), name, (uint64_t)st.size, f->base.input.size);
    *index = (zip_uint64_t)found;
    *size = st.size;
    return BB_OK;
}

/* Reads `size` bytes. At the entry's end it reads once more, because only then does libzip verify the checksum. */
static bool read_up_to_end(zip_file_t *entry, void *out, size_t size, bool to_end) {
    uint8_t past_end;
    zip_int64_t got = zip_fread(entry, out, size);
    return got >= 0 && (uint64_t)got == size && (!to_end || zip_fread(entry, &past_end, 1) == 0);
}

static const char *entry_failure(zip_file_t *entry) {
    zip_error_t *error = zip_file_get_error(entry);
    return zip_error_code_zip(error) == ZIP_ER_OK ? "unexpected end" : zip_error_strerror(error);
}

/* Reads a small entry whole and appends a NUL. */
static bb_status read_entry(const torch_pt *f, const char *name, uint64_t max, uint8_t **out, size_t *size, bb_error *err) {
    zip_uint64_t index = 0;
    uint64_t bytes = 0;
    BB_TRY(find_entry(f, name, &index, &bytes, err));
    if (bytes > max)
        return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: entry '%s' of %" PRIu64 " bytes is too large", path_of(f), name,
                       bytes);
    uint8_t *data = malloc((size_t)bytes + 1);
    if (!data) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read '%s'", path_of(f), name);
    zip_file_t *entry = zip_fopen_index(f->zip, index, 0);
    if (!entry || !read_up_to_end(entry, data, (size_t)bytes, true)) {
        bb_status status =
            entry ? bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: entry '%s': %s", path_of(f), name, entry_failure(entry))
                  : zip_failure(f, name, err);
        if (entry) (void)zip_fclose(entry);
        free(data);
        return status;
    }
    (void)zip_fclose(entry);
    data[bytes] = 0;
    *out = data;
    *size = (size_t)bytes;
    return BB_OK;
}

/* Finds the one entry that ends with "data.pkl"; its folder is the prefix of all others. */
static bb_status find_prefix(torch_pt *f, bb_error *err) {
    static const char pickle[] = "/data.pkl";
    zip_int64_t count = zip_get_num_entries(f->zip, 0);
    for (zip_int64_t i = 0; i < count; i++) {
        const char *name = zip_get_name(f->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        size_t length = name ? strlen(name) : 0;
        if (length < sizeof pickle || strcmp(name + length - (sizeof pickle - 1), pickle) != 0) continue;
        if (f->prefix) return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: expected one data.pkl, found two", path_of(f));
        f->prefix = strndup(name, length - (sizeof pickle - 2));
        if (!f->prefix) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path_of(f));
        if (length > MAX_NAME) return bb_fail(err, BB_ERR_FORMAT, "%s: zip archive: the folder's name is too long", path_of(f));
    }
    if (f->prefix) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: a zip archive without data.pkl: expected a file of torch.save", path_of(f));
}

/* ---- tensors and values ------------------------------------------------------------------------------------------------------ */

static const bb_pickle_value *value(const torch_pt *f, uint32_t index) { return &f->pickle.values[index]; }

static bb_status count_leaf(torch_pt *f, bb_error *err) {
    return ++f->leaves <= MAX_LEAVES ? BB_OK
                                     : bb_fail(err, BB_ERR_FORMAT, "%s: pickle: more than %d values", path_of(f), MAX_LEAVES);
}

static bb_status add_tensor(torch_pt *f, const char *name, const bb_pickle_tensor *place, bb_error *err) {
    const bb_pickle_value *storage = value(f, place->storage);
    bb_file_tensor t = {.dtype = storage->as.storage.dtype, .rank = place->rank, .offset = (uint64_t)place->offset};
    bb_tensor_source *s = &f->base;
    if ((s->count & (s->count - 1)) == 0) { /* the capacity doubles at every power of two */
        size_t capacity = s->count ? 2 * (size_t)s->count : 1;
        bb_file_tensor *tensors = realloc(s->tensors, capacity * sizeof *tensors);
        if (tensors) s->tensors = tensors;
        const bb_pickle_tensor **places = realloc(f->places, capacity * sizeof *places);
        if (places) f->places = places;
        if (!tensors || !places) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for its tensors", path_of(f));
    }
    memcpy(t.shape, place->shape, sizeof t.shape);
    t.name = strdup(name);
    if (!t.name) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for its tensors", path_of(f));
    f->places[s->count] = place;
    s->tensors[s->count++] = t;
    if (!bb_file_tensor_bytes(&s->tensors[s->count - 1], &s->tensors[s->count - 1].bytes))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': shape %s overflows", path_of(f), name,
                       bb_shape_format(t.rank, t.shape).text);
    char entry[2 * MAX_NAME];
    zip_uint64_t index = 0;
    uint64_t bytes = 0;
    const char *key = value(f, storage->as.storage.key)->as.text;
    if (strlen(key) >= MAX_NAME)
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': its storage's name is too long", path_of(f), name);
    (void)snprintf(entry, sizeof entry, "%sdata/%s", f->prefix, key);
    BB_TRY(find_entry(f, entry, &index, &bytes, err));
    if ((uint64_t)storage->as.storage.count > bytes / bb_file_dtype_bytes(t.dtype))
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: tensor '%s': expected a storage of %" PRId64 " elements, found %" PRIu64 " bytes", path_of(f), name,
                       storage->as.storage.count, bytes);
    return BB_OK;
}

static bb_status add_key(const torch_pt *f, char *name, size_t used, uint32_t key, bb_error *err) {
    const bb_pickle_value *k = value(f, key);
    int n = -1;
    if (k->kind == BB_PICKLE_STRING)
        n = snprintf(name + used, MAX_NAME - used, "%s%s", used ? "." : "", k->as.text);
    else if (k->kind == BB_PICKLE_INT)
        n = snprintf(name + used, MAX_NAME - used, "%s%" PRId64, used ? "." : "", k->as.integer);
    if (n < 0 || (size_t)n >= MAX_NAME - used)
        return bb_fail(err, BB_ERR_FORMAT, "%s: pickle: under '%s': expected keys that are short strings or integers",
                       path_of(f), name);
    return BB_OK;
}

static json_t *to_json(torch_pt *f, uint32_t index, int depth);

static json_t *items_to_json(torch_pt *f, const bb_pickle_value *v, int depth) {
    json_t *out = v->kind == BB_PICKLE_DICT ? json_object() : json_array();
    size_t each = v->kind == BB_PICKLE_DICT ? 2 : 1;
    for (uint32_t i = 0; out && i + each <= v->as.items.count; i += (uint32_t)each) {
        char key[MAX_NAME] = "";
        json_t *item = to_json(f, v->as.items.values[i + each - 1], depth + 1);
        if (each == 2 && add_key(f, key, 0, v->as.items.values[i], NULL) != BB_OK) {
            json_decref(item);
            item = NULL;
        }
        /* both take the item, also on failure, and fail without one */
        if ((each == 2 ? json_object_set_new(out, key, item) : json_array_append_new(out, item)) == 0) continue;
        json_decref(out);
        out = NULL;
    }
    return out;
}

/* Returns NULL if a value cannot be represented in JSON, or is too large. */
static json_t *to_json(torch_pt *f, uint32_t index, int depth) {
    const bb_pickle_value *v = value(f, index);
    if (depth > MAX_DEPTH || count_leaf(f, NULL) != BB_OK) return NULL;
    switch (v->kind) {
    case BB_PICKLE_NONE: return json_null();
    case BB_PICKLE_BOOL: return json_boolean(v->as.integer);
    case BB_PICKLE_INT: return json_integer(v->as.integer);
    case BB_PICKLE_FLOAT: {
        json_t *real = json_real(v->as.real);
        return real ? real : json_null(); /* not finite */
    }
    case BB_PICKLE_STRING: {
        json_t *text = json_string(v->as.text);
        return text ? text : json_null(); /* not UTF-8 */
    }
    case BB_PICKLE_LIST:
    case BB_PICKLE_DICT: return items_to_json(f, v, depth);
    default: return json_null(); /* tensors are listed by name instead */
    }
}

/* Collects the tensors under a value; their names are the keys that lead to them. */
static bb_status walk(torch_pt *f, uint32_t index, char *name, int depth, bb_error *err) {
    const bb_pickle_value *v = value(f, index);
    size_t used = strlen(name);
    if (v->kind == BB_PICKLE_TENSOR) {
        BB_TRY(count_leaf(f, err));
        return add_tensor(f, name, v->as.tensor, err);
    }
    if (v->kind != BB_PICKLE_DICT) return BB_OK;
    if (depth > MAX_DEPTH) return bb_fail(err, BB_ERR_FORMAT, "%s: pickle: dicts more than %d deep", path_of(f), MAX_DEPTH);
    for (uint32_t i = 0; i + 2 <= v->as.items.count; i += 2) {
        BB_TRY(count_leaf(f, err));
        BB_TRY(add_key(f, name, used, v->as.items.values[i], err));
        BB_TRY(walk(f, v->as.items.values[i + 1], name, depth + 1, err));
        name[used] = 0;
    }
    return BB_OK;
}

static bb_status add_metadata(torch_pt *f, bb_error *err) {
    const bb_pickle_value *root = value(f, f->pickle.root);
    f->metadata = json_object();
    for (uint32_t i = 0; f->metadata && i + 2 <= root->as.items.count; i += 2) {
        const bb_pickle_value *key = value(f, root->as.items.values[i]);
        if (key->kind != BB_PICKLE_STRING || value(f, root->as.items.values[i + 1])->kind == BB_PICKLE_TENSOR) continue;
        json_t *json = to_json(f, root->as.items.values[i + 1], 0);
        char *text = json ? bb_json_text(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        json_decref(json);
        if (!text) continue;
        int failed = json_object_set_new(f->metadata, key->as.text, json_string(text));
        free(text);
        if (failed) return bb_fail(err, BB_ERR_FORMAT, "%s: pickle: a key that is not a string", path_of(f));
    }
    return f->metadata ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path_of(f));
}

static bb_status check_byte_order(const torch_pt *f, bb_error *err) {
    char name[2 * MAX_NAME];
    uint8_t *text = NULL;
    size_t size = 0;
    (void)snprintf(name, sizeof name, "%sbyteorder", f->prefix);
    if (zip_name_locate(f->zip, name, 0) < 0) return BB_OK;
    BB_TRY(read_entry(f, name, 64, &text, &size, err));
    bool little = size == 6 && memcmp(text, "little", 6) == 0;
    free(text);
    return little ? BB_OK : bb_fail(err, BB_ERR_UNSUPPORTED, "%s: the file was written on a big-endian machine", path_of(f));
}

static bb_status read_contents(torch_pt *f, bb_error *err) {
    char name[2 * MAX_NAME];
    uint8_t *data = NULL;
    size_t size = 0;
    BB_TRY(open_archive(f, err));
    BB_TRY(find_prefix(f, err));
    BB_TRY(check_byte_order(f, err));
    (void)snprintf(name, sizeof name, "%sdata.pkl", f->prefix);
    BB_TRY(read_entry(f, name, MAX_PICKLE_BYTES, &data, &size, err));
    bb_status status = bb_pickle_read(data, size, path_of(f), &f->pickle, err);
    free(data);
    BB_TRY(status);
    if (value(f, f->pickle.root)->kind != BB_PICKLE_DICT)
        return bb_fail(err, BB_ERR_FORMAT, "%s: pickle: expected a dict: a checkpoint or a state_dict()", path_of(f));
    char path[MAX_NAME] = "";
    BB_TRY(walk(f, f->pickle.root, path, 0, err));
    BB_TRY(add_metadata(f, err));
    return bb_tensor_source_index(&f->base, err);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

static void close_entry(torch_pt *f) {
    if (f->entry) (void)zip_fclose(f->entry);
    f->entry = NULL;
}

/* Reads bytes of a storage from `at` on. A read that continues the last one keeps the entry open, so that a sequential read of
 * the whole entry verifies its checksum. */
static bb_status read_storage(torch_pt *f, const bb_file_tensor *t, uint64_t at, void *out, size_t size, bb_error *err) {
    const bb_pickle_value *storage = value(f, f->places[t - f->base.tensors]->storage);
    char name[2 * MAX_NAME];
    (void)snprintf(name, sizeof name, "%sdata/%s", f->prefix, value(f, storage->as.storage.key)->as.text);
    if (!f->entry || f->entry_tensor != t || f->entry_at != at) {
        zip_uint64_t index = 0;
        uint64_t bytes = 0;
        close_entry(f);
        BB_TRY(find_entry(f, name, &index, &bytes, err));
        f->entry = zip_fopen_index(f->zip, index, 0);
        if (!f->entry) return zip_failure(f, name, err);
        if (at && zip_fseek(f->entry, (zip_int64_t)at, SEEK_SET) != 0) return zip_failure(f, name, err);
        f->entry_tensor = t;
        f->entry_at = at;
        f->entry_bytes = bytes;
    }
    if (!read_up_to_end(f->entry, out, size, at + size == f->entry_bytes))
        return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': cannot read entry '%s' at byte %" PRIu64 ": %s", path_of(f),
                       t->name, name, at, entry_failure(f->entry));
    f->entry_at += size;
    return BB_OK;
}

static bool is_contiguous(const bb_pickle_tensor *p) {
    int64_t expected = 1;
    for (int i = p->rank - 1; i >= 0; i--) {
        if (p->shape[i] != 1 && p->stride[i] != expected) return false;
        expected *= p->shape[i];
    }
    return true;
}

/* Reads elements first .. first+n-1 of a view that is not contiguous, one by one. */
static bb_status gather(torch_pt *f, const bb_file_tensor *t, uint64_t first, uint64_t n, uint8_t *out, bb_error *err) {
    const bb_pickle_tensor *p = f->places[t - f->base.tensors];
    size_t bytes = bb_file_dtype_bytes(t->dtype);
    int64_t last = 0;
    for (int i = 0; i < p->rank; i++) last += (p->shape[i] - 1) * p->stride[i];
    size_t span = (size_t)(last + 1) * bytes;
    uint8_t *all = malloc(span);
    if (!all) return bb_fail(err, BB_ERR_MEMORY, "%s: tensor '%s': no memory to read it", path_of(f), t->name);
    bb_status status = read_storage(f, t, (uint64_t)p->offset * bytes, all, span, err);
    for (uint64_t e = first; e < first + n && status == BB_OK; e++) {
        uint64_t rest = e;
        int64_t at = 0;
        for (int i = p->rank - 1; i >= 0; i--) {
            at += (int64_t)(rest % (uint64_t)p->shape[i]) * p->stride[i];
            rest /= (uint64_t)p->shape[i];
        }
        memcpy(out + (e - first) * bytes, all + (size_t)at * bytes, bytes);
    }
    free(all);
    return status;
}

static bb_status read_bytes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                            bb_error *err) {
    torch_pt *f = (torch_pt *)(void *)(uintptr_t)s; /* the open entry is a cache */
    const bb_pickle_tensor *p = f->places[t - s->tensors];
    size_t bytes = bb_file_dtype_bytes(t->dtype);
    if (size == 0) return BB_OK;
    if (is_contiguous(p)) return read_storage(f, t, (uint64_t)p->offset * bytes + at, out, size, err);
    return gather(f, t, at / bytes, size / bytes, out, err);
}

static const char *metadata_text(const bb_tensor_source *s, const char *key) {
    return json_string_value(json_object_get(((const torch_pt *)s)->metadata, key));
}

static void close_source(bb_tensor_source *s) {
    torch_pt *f = (torch_pt *)s;
    close_entry(f);
    if (f->zip) zip_discard(f->zip);
    for (int i = 0; i < s->count; i++) free((char *)(uintptr_t)s->tensors[i].name);
    bb_pickle_free(&f->pickle);
    json_decref(f->metadata);
    bb_input_close(&s->input);
    free(f->prefix);
    free(f->places);
    free(s->by_name);
    free(s->tensors);
    free(f);
}

static const bb_tensor_source_ops ops = {
    .format = "torch", .close = close_source, .metadata = metadata_text, .read = read_bytes};

bb_status bb_torch_pt_open_input(bb_input *input, bb_tensor_source **out, bb_error *err) {
    *out = NULL;
    uint8_t head[2] = {0};
    torch_pt *f = calloc(1, sizeof *f);
    bb_status status = BB_OK;
    if (!f) {
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", input->path);
        bb_input_close(input);
        return status;
    }
    f->base.ops = &ops;
    f->base.input = *input;
    *input = (bb_input){.fd = -1};
    BB_TRY_GOTO(status, failed, bb_input_read(&f->base.input, 0, head, sizeof head, err));
    if (head[0] != 'P') {
        status = bb_fail(err, BB_ERR_UNSUPPORTED,
                         "%s: a file of torch.save from before PyTorch 1.6; load it in PyTorch and save it again: "
                         "torch.save(torch.load(FILE, weights_only=True), NEW)",
                         path_of(f));
        goto failed;
    }
    BB_TRY_GOTO(status, failed, read_contents(f, err));
    *out = &f->base;
    return BB_OK;
failed:
    close_source(&f->base);
    return status;
}
