// SPDX-License-Identifier: MIT
/* Reads Hugging Face folders. The index is not trusted: its entries are checked against the shards. */
#include "modelfile/hf.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_INDEX_BYTES = 1 << 26, MAX_SHARDS = 1024, MAX_NAME_BYTES = 255 };

typedef struct place {
    const bb_tensor_source *shard;
    const bb_file_tensor *tensor; /* the tensor in that shard */
} place;

typedef struct hf {
    bb_tensor_source base;
    char *config;        /* text of config.json */
    char *chat_template; /* of it; NULL: none */
    char length[16];
    const char *names[MAX_SHARDS]; /* names of the shards, owned by the index */
    bb_tensor_source *shards[MAX_SHARDS];
    int shard_count;
    json_t *index;
    place *places; /* (count), in the order of the tensors */
} hf;

bool bb_hf_matches(const uint8_t *head, size_t size) {
    size_t i = 0;
    while (i < size && (head[i] == ' ' || head[i] == '\t' || head[i] == '\r' || head[i] == '\n')) i++;
    return i < size && head[i] == '{' && !memchr(head, 0, size);
}

static const char *path_of(const hf *f) { return f->base.input.path; }

/* ---- files ------------------------------------------------------------------------------------------------------------- */

/* Reads a whole text file; *out is NULL if it does not exist. */
static bb_status read_text(const bb_hf_files *files, const char *name, uint64_t max, char **out, size_t *size, bb_error *err) {
    bb_input input = {.fd = -1};
    bool found = false;
    *out = NULL;
    bb_status status = files->open(files->user, name, &found, &input, err);
    if (status == BB_OK && found && input.size > max)
        status = bb_fail(err, BB_ERR_FORMAT, "%s/%s: expected at most %" PRIu64 " bytes, found %" PRIu64, files->path, name,
                         max, input.size);
    if (status == BB_OK && found) {
        *size = (size_t)input.size;
        *out = malloc(*size + 1);
        status = *out ? bb_input_read(&input, 0, *out, *size, err)
                      : bb_fail(err, BB_ERR_MEMORY, "%s/%s: no memory to read it", files->path, name);
        if (*out) (*out)[*size] = 0;
    }
    bb_input_close(&input);
    if (status == BB_OK) return BB_OK;
    free(*out);
    *out = NULL;
    return status;
}

static bb_status read_json(const bb_hf_files *files, const char *name, const char *text, size_t size, json_t **out,
                           bb_error *err) {
    bb_status status = bb_json_parse(text, size, name, 0, out, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", files->path);
    return json_is_object(*out)
               ? BB_OK
               : bb_fail(err, BB_ERR_FORMAT, "%s/%s: expected an object, found %s", files->path, name, bb_json_type_name(*out));
}

static bb_status read_config(hf *f, const bb_hf_files *files, bb_error *err) {
    size_t size = 0;
    json_t *json = NULL;
    BB_TRY(read_text(files, BB_HF_CONFIG, MAX_CONFIG_BYTES, &f->config, &size, err));
    if (!f->config)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: a folder without " BB_HF_CONFIG
                       ": expected the folder of a run or of a Hugging Face transformers model",
                       path_of(f));
    bb_status status = read_json(files, BB_HF_CONFIG, f->config, size, &json, err);
    if (status == BB_OK && json_string_value(json_object_get(json, "format")) &&
        strcmp(json_string_value(json_object_get(json, "format")), "bitbyte-run") == 0)
        status = bb_fail(err, BB_ERR_ARGUMENT,
                         "%s/" BB_HF_CONFIG ": is the configuration of a run, not of a model: name a checkpoint in its folder",
                         path_of(f));
    const json_t *length = json_object_get(json, BB_HF_LENGTH);
    if (json_is_integer(length) && json_integer_value(length) > 0 && json_integer_value(length) <= INT32_MAX)
        (void)snprintf(f->length, sizeof f->length, "%d", (int)json_integer_value(length));
    const char *own = json_string_value(json_object_get(json_object_get(json, BB_HF_OWN_KEY), BB_CHAT_TEMPLATE));
    if (own && !(f->chat_template = strdup(own))) status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path_of(f));
    json_decref(json);
    return status;
}

/* ---- shards ------------------------------------------------------------------------------------------------------------ */

static bb_status open_shard(hf *f, const bb_hf_files *files, const char *name, bb_error *err) {
    bb_input input = {.fd = -1};
    bool found = false;
    bb_status status = files->open(files->user, name, &found, &input, err);
    if (status == BB_OK && !found)
        status = bb_fail(err, BB_ERR_FORMAT, "%s: '%s' is missing, which " BB_HF_INDEX " names", path_of(f), name);
    if (status != BB_OK) {
        bb_input_close(&input);
        return status;
    }
    BB_TRY(bb_safetensors_open_input(&input, &f->shards[f->shard_count], err));
    f->names[f->shard_count] = name;
    f->base.input.size += bb_tensor_source_file_bytes(f->shards[f->shard_count]);
    f->shard_count++;
    return BB_OK;
}

/* Returns whether a name in the index is that of a file in the folder itself. */
static bool is_shard_name(const char *name) {
    static const char end[] = ".safetensors";
    size_t n = strlen(name);
    return n >= sizeof end && n <= MAX_NAME_BYTES && name[0] != '.' && !strchr(name, '/') &&
           strcmp(name + n - (sizeof end - 1), end) == 0;
}

static bb_status open_shards(hf *f, const bb_hf_files *files, bb_error *err) {
    const json_t *map = json_object_get(f->index, "weight_map");
    const char *tensor;
    json_t *file, *seen;
    if (!json_is_object(map))
        return bb_fail(err, BB_ERR_FORMAT, "%s/" BB_HF_INDEX ": 'weight_map': expected an object, found %s", path_of(f),
                       bb_json_type_name(map));
    seen = json_object();
    bb_status status = seen ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path_of(f));
    json_object_foreach((json_t *)map, tensor, file) {
        const char *name = json_string_value(file);
        if (status != BB_OK) break;
        if (!name || !is_shard_name(name)) {
            status = bb_fail(err, BB_ERR_FORMAT,
                             "%s/" BB_HF_INDEX
                             ": tensor '%s': expected the name of a .safetensors file in this folder, found %s%.80s%s",
                             path_of(f), tensor, name ? "'" : "", name ? name : bb_json_type_name(file), name ? "'" : "");
        } else if (!json_object_get(seen, name)) {
            if (f->shard_count == MAX_SHARDS)
                status = bb_fail(err, BB_ERR_FORMAT, "%s/" BB_HF_INDEX ": more than %d shards", path_of(f), MAX_SHARDS);
            else if (json_object_set_new(seen, name, json_true()) != 0)
                status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", path_of(f));
            else
                status = open_shard(f, files, name, err);
        }
    }
    json_decref(seen);
    return status;
}

static bb_status open_weights(hf *f, const bb_hf_files *files, bb_error *err) {
    char *text = NULL;
    size_t size = 0;
    bool found = false;
    bb_input input = {.fd = -1};
    bb_status status = files->open(files->user, BB_HF_WEIGHTS, &found, &input, err);
    bb_input_close(&input);
    BB_TRY(status);
    if (found) return open_shard(f, files, BB_HF_WEIGHTS, err);
    BB_TRY(read_text(files, BB_HF_INDEX, MAX_INDEX_BYTES, &text, &size, err));
    if (!text)
        return bb_fail(err, BB_ERR_FORMAT, "%s: expected " BB_HF_WEIGHTS " or " BB_HF_INDEX ", found neither", path_of(f));
    status = read_json(files, BB_HF_INDEX, text, size, &f->index, err);
    free(text);
    return status == BB_OK ? open_shards(f, files, err) : status;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------------- */

static bb_status collect_tensors(hf *f, bb_error *err) {
    int count = 0;
    for (int i = 0; i < f->shard_count; i++) count += bb_tensor_source_count(f->shards[i]);
    f->base.tensors = calloc((size_t)count + 1, sizeof *f->base.tensors);
    f->places = calloc((size_t)count + 1, sizeof *f->places);
    if (!f->base.tensors || !f->places) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %d tensors", path_of(f), count);
    for (int i = 0; i < f->shard_count; i++)
        for (int k = 0; k < bb_tensor_source_count(f->shards[i]); k++) {
            const bb_file_tensor *t = bb_tensor_source_at(f->shards[i], k);
            f->places[f->base.count] = (place){f->shards[i], t};
            f->base.tensors[f->base.count++] = *t;
        }
    return bb_tensor_source_index(&f->base, err);
}

/* Checks that every tensor is in the shard that the index names, and that the shards have no others. */
static bb_status check_index(const hf *f, bb_error *err) {
    const json_t *map = json_object_get(f->index, "weight_map"), *total;
    const char *tensor;
    json_t *file;
    uint64_t bytes = 0;
    if (!f->index) return BB_OK;
    json_object_foreach((json_t *)map, tensor, file) {
        if (!bb_tensor_source_find(&f->base, tensor))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing from '%s', where " BB_HF_INDEX " has it", path_of(f),
                           tensor, json_string_value(file));
    }
    for (int i = 0, k = 0; i < f->shard_count; i++)
        for (int end = k + bb_tensor_source_count(f->shards[i]); k < end; k++) {
            const char *name = json_string_value(json_object_get(map, f->base.tensors[k].name));
            bytes += f->base.tensors[k].bytes;
            if (!name || strcmp(name, f->names[i]) != 0)
                return bb_fail(err, BB_ERR_FORMAT, "%s: '%s' has the tensor '%s', which " BB_HF_INDEX " has %s%s", path_of(f),
                               f->names[i], f->base.tensors[k].name, name ? "in " : "nowhere", name ? name : "");
        }
    total = json_object_get(json_object_get(f->index, "metadata"), "total_size");
    if (json_is_integer(total) && (uint64_t)json_integer_value(total) != bytes)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s/" BB_HF_INDEX ": total_size: expected the %" PRIu64
                       " bytes of the tensors, found %" JSON_INTEGER_FORMAT,
                       path_of(f), bytes, json_integer_value(total));
    return BB_OK;
}

static void close_source(bb_tensor_source *s) {
    hf *f = (hf *)s;
    for (int i = 0; i < f->shard_count; i++) bb_tensor_source_close(f->shards[i]);
    json_decref(f->index);
    bb_input_close(&s->input);
    free(s->by_name);
    free(s->tensors);
    free(f->places);
    free(f->config);
    free(f->chat_template);
    free(f);
}

static const char *metadata_text(const bb_tensor_source *s, const char *key) {
    const hf *f = (const hf *)s;
    if (strcmp(key, BB_HF_CHAT_TEMPLATE) == 0) return f->chat_template;
    if (strcmp(key, BB_HF_LENGTH) == 0) return f->length[0] ? f->length : NULL;
    return strcmp(key, BB_HF_CONFIG) == 0 ? f->config : NULL;
}

static const place *place_of(const bb_tensor_source *s, const bb_file_tensor *t) {
    return &((const hf *)s)->places[t - s->tensors];
}

static bb_status read_bytes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                            bb_error *err) {
    const place *p = place_of(s, t);
    return bb_tensor_source_read_range(p->shard, p->tensor, at, out, size, err);
}

static const char *checksum(const bb_tensor_source *s, const bb_file_tensor *t) {
    const place *p = place_of(s, t);
    return p->shard->ops->checksum(p->shard, p->tensor);
}

static bb_status check_metadata(const bb_tensor_source *s, bb_error *err) {
    const hf *f = (const hf *)s;
    for (int i = 0; i < f->shard_count; i++) BB_TRY(bb_tensor_source_check_metadata(f->shards[i], err));
    return BB_OK;
}

static const bb_tensor_source_ops ops = {.format = "hf",
                                         .close = close_source,
                                         .metadata = metadata_text,
                                         .read = read_bytes,
                                         .checksum = checksum,
                                         .check_metadata = check_metadata};

bb_status bb_hf_open(const bb_hf_files *files, bb_tensor_source **out, bb_error *err) {
    bb_status status = BB_OK;
    *out = NULL;
    hf *f = calloc(1, sizeof *f);
    if (f) f->base = (bb_tensor_source){.ops = &ops, .input = {.fd = -1, .path = strdup(files->path)}};
    if (!f || !f->base.input.path) {
        free(f);
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", files->path);
    }
    BB_TRY_GOTO(status, failed, read_config(f, files, err));
    BB_TRY_GOTO(status, failed, open_weights(f, files, err));
    BB_TRY_GOTO(status, failed, collect_tensors(f, err));
    BB_TRY_GOTO(status, failed, check_index(f, err));
    *out = &f->base;
    return BB_OK;
failed:
    close_source(&f->base);
    return status;
}
