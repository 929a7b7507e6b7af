// SPDX-License-Identifier: MIT
#include "data/identity.h"

#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "core/json.h"
#include "core/math.h"

enum {
    BLOCK_BYTES = 1 << 16,
    BLOCKS_IN_ALL = 1024,      /* read in an unnoticeable time at startup */
    MANIFEST_LIMIT = 16 << 20, /* parsing a longer one would take too long */
    DIFFERENCES_SHOWN = 3
};

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bb_status no_memory(bb_error *err) { return bb_fail(err, BB_ERR_MEMORY, "out of memory for the hashes of the data"); }

/* Hashes a file: all of it up to `blocks` blocks, else blocks at equal distances, including the first and the last. */
static bb_status hash_sample(bb_byte_source *source, int number, int64_t blocks, XXH3_state_t *state, uint8_t *buffer,
                             bb_error *err) {
    int64_t size = source->files[number].size;
    bool whole = size <= blocks * BLOCK_BYTES;
    int64_t count = whole ? bb_ceil_div(size, BLOCK_BYTES) : blocks;
    XXH3_64bits_reset(state);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = whole ? i * BLOCK_BYTES : count > 1 ? (int64_t)((__int128)i * (size - BLOCK_BYTES) / (count - 1)) : 0;
        size_t length = (size_t)bb_min(BLOCK_BYTES, size - at);
        BB_TRY(bb_byte_source_read(source, number, at, buffer, length, err));
        XXH3_64bits_update(state, buffer, length);
    }
    return BB_OK;
}

/* The entries of all shards in a directory's manifest, by name; empty if there is no readable manifest. */
typedef struct packed_files {
    char *directory; /* NULL: none was read yet */
    json_t *by_name;
} packed_files;

static void free_packed(packed_files *p) {
    free(p->directory);
    json_decref(p->by_name);
    *p = (packed_files){0};
}

/* Reads the manifest beside `path`, unless it is that of the file before. */
static bb_status read_manifest(const char *path, packed_files *p, bb_error *err) {
    const char *const lists[] = {"shards", "val_shards"};
    size_t length = (size_t)(base_name(path) - path);
    if (p->directory && strlen(p->directory) == length && memcmp(p->directory, path, length) == 0) return BB_OK;
    free_packed(p);
    p->directory = strndup(path, length);
    p->by_name = json_object();
    char *manifest_path = p->directory ? bb_file_join(length ? p->directory : ".", "manifest.json") : NULL;
    uint8_t *text = NULL;
    json_t *manifest = NULL;
    bb_status status = p->by_name && manifest_path ? BB_OK : BB_ERR_MEMORY;
    if (status == BB_OK) status = bb_file_read_all(manifest_path, MANIFEST_LIMIT, &text, &length, NULL);
    if (status == BB_OK) status = bb_json_parse((const char *)text, length, manifest_path, 0, &manifest, NULL);
    for (int i = 0; i < 2; i++) {
        size_t k;
        json_t *entry;
        json_array_foreach(json_object_get(manifest, lists[i]), k, entry) {
            const char *name = json_string_value(json_object_get(entry, "name"));
            if (name && json_object_set(p->by_name, name, entry) != 0) status = BB_ERR_MEMORY;
        }
    }
    json_decref(manifest);
    free(text);
    free(manifest_path);
    return status == BB_ERR_MEMORY ? no_memory(err) : BB_OK;
}

static json_t *describe_file(const bb_byte_file *file, XXH64_hash_t sample, const packed_files *packed) {
    char hash[17];
    const char *name = base_name(file->path);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)sample);
    const json_t *entry = json_object_get(packed->by_name, name);
    json_t *whole = json_object_get(entry, "xxh3");
    /* A different size means that the file has changed since the manifest was written. */
    if (!json_is_string(whole) || json_integer_value(json_object_get(entry, "bytes")) != file->size) whole = NULL;
    return json_pack("{s:o,s:I,s:s,s:O*}", "name", bb_json_path(name), "bytes", (json_int_t)file->size, "sample_xxh3", hash,
                     "xxh3", whole);
}

bb_status bb_data_identity(bb_byte_source *source, int64_t blocks, json_t **out, bb_error *err) {
    *out = NULL;
    if (blocks == 0) blocks = bb_clamp(BLOCKS_IN_ALL / source->count, 1, BLOCKS_IN_ALL);
    bb_status status = BB_OK;
    XXH3_state_t *state = XXH3_createState();
    uint8_t *buffer = malloc(BLOCK_BYTES);
    packed_files packed = {0};
    json_t *files = json_array(), *identity = json_pack("{s:I,s:O}", "blocks", (json_int_t)blocks, "files", files);
    if (!state || !buffer || !identity) {
        status = no_memory(err);
        goto done;
    }
    for (int i = 0; i < source->count; i++) {
        BB_TRY_GOTO(status, done, read_manifest(source->files[i].path, &packed, err));
        BB_TRY_GOTO(status, done, hash_sample(source, i, blocks, state, buffer, err));
        if (json_array_append_new(files, describe_file(&source->files[i], XXH3_64bits_digest(state), &packed)) != 0) {
            status = no_memory(err);
            goto done;
        }
    }
    *out = json_incref(identity);
done:
    json_decref(identity);
    json_decref(files);
    free_packed(&packed);
    free(buffer);
    XXH3_freeState(state);
    return status;
}

int64_t bb_data_identity_blocks(const json_t *identity) {
    int64_t blocks = json_integer_value(json_object_get(identity, "blocks"));
    return blocks > 0 && json_is_array(json_object_get(identity, "files")) ? blocks : 0;
}

/* ---- comparing -------------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *entry, const char *key) {
    const char *text = json_string_value(json_object_get(entry, key));
    return text ? text : "";
}

static json_int_t bytes_of(const json_t *entry) { return json_integer_value(json_object_get(entry, "bytes")); }

static bool same_content(const json_t *a, const json_t *b) {
    const char *whole_a = text_of(a, "xxh3"), *whole_b = text_of(b, "xxh3");
    return bytes_of(a) == bytes_of(b) && strcmp(text_of(a, "sample_xxh3"), text_of(b, "sample_xxh3")) == 0 &&
           (!*whole_a || !*whole_b || strcmp(whole_a, whole_b) == 0);
}

typedef struct differences {
    char *text;
    size_t size, used;
    int64_t count;
} differences;

static void add(differences *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(differences *d, const char *fmt, ...) {
    va_list args;
    if (d->count++ >= DIFFERENCES_SHOWN || d->used + 1 >= d->size) return;
    if (d->count > 1) d->used += (size_t)snprintf(d->text + d->used, d->size - d->used, ", ");
    if (d->used >= d->size) return;
    va_start(args, fmt);
    d->used += (size_t)vsnprintf(d->text + d->used, d->size - d->used, fmt, args);
    va_end(args);
}

/* Files of several directories may have the same name: the second "a" has the key "a/2", which is the name of no file. */
static json_t *index_by_name(const json_t *files) {
    json_t *index = json_object(), *entry;
    size_t i;
    json_array_foreach(files, i, entry) {
        char key[4 * NAME_MAX + 16];
        const char *name = text_of(entry, "name");
        snprintf(key, sizeof key, "%s", name);
        for (int number = 2; json_object_get(index, key); number++)
            snprintf(key, sizeof key, "%.*s/%d", 4 * NAME_MAX, name, number);
        (void)json_object_set(index, key, entry);
    }
    return index;
}

static void describe_differences(const json_t *before, const json_t *now, differences *d) {
    json_t *index_before = index_by_name(before), *index_now = index_by_name(now), *entry;
    const char *key;
    json_object_foreach(index_before, key, entry) { /* in the order of the files */
        const char *name = text_of(entry, "name");
        const json_t *other = json_object_get(index_now, key);
        if (!other)
            add(d, "%s is missing", name);
        else if (bytes_of(other) != bytes_of(entry))
            add(d, "%s has %lld bytes, had %lld", name, (long long)bytes_of(other), (long long)bytes_of(entry));
        else if (!same_content(entry, other))
            add(d, "the content of %s changed", name);
    }
    json_object_foreach(index_now, key, entry) if (!json_object_get(index_before, key))
        add(d, "%s is new (%lld bytes)", text_of(entry, "name"), (long long)bytes_of(entry));
    if (d->count == 0) add(d, "the files are in a different order");
    if (d->count > DIFFERENCES_SHOWN && d->used < d->size)
        snprintf(d->text + d->used, d->size - d->used, ", and %lld more", (long long)(d->count - DIFFERENCES_SHOWN));
    json_decref(index_before);
    json_decref(index_now);
}

bool bb_data_identity_same(const json_t *before, const json_t *now, char *changes, size_t size) {
    const json_t *a = json_object_get(before, "files"), *b = json_object_get(now, "files");
    bool same = json_array_size(a) == json_array_size(b);
    for (size_t i = 0; i < json_array_size(a) && same; i++) same = same_content(json_array_get(a, i), json_array_get(b, i));
    changes[0] = '\0';
    if (!same) describe_differences(a, b, &(differences){.text = changes, .size = size});
    return same;
}
