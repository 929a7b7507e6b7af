// SPDX-License-Identifier: MIT
/* The directory that a pack writes to, and its manifest: the last file to appear, so where it stands the pack is whole. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "data/packer.h"

static const char manifest_name[] = "manifest.json";

/* ---- Directory -------------------------------------------------------------------------------------------------------- */

/* What follows the number of a shard's name, or NULL. */
static const char *after_shard_number(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0) return NULL;
    const char *digits = name + length;
    const char *end = digits;
    while (isdigit((unsigned char)*end)) end++;
    return end - digits >= 5 ? end : NULL;
}

bb_pack_name bb_pack_name_kind(const char *name) {
    size_t length = strlen(manifest_name);
    if (strncmp(name, manifest_name, length) == 0) {
        if (name[length] == '\0') return BB_PACK_NAME_WHOLE;
        return strncmp(name + length, ".tmp.", 5) == 0 ? BB_PACK_NAME_PARTIAL : BB_PACK_NAME_OTHER;
    }
    const char *rest = after_shard_number(name, "shard_");
    if (!rest) rest = after_shard_number(name, "val_");
    if (!rest) return BB_PACK_NAME_OTHER;
    return strcmp(rest, ".bin") == 0        ? BB_PACK_NAME_WHOLE
           : strcmp(rest, ".bin.part") == 0 ? BB_PACK_NAME_PARTIAL
                                            : BB_PACK_NAME_OTHER;
}

static bb_status fail_dir(const char *path, const char *what, bb_error *err) {
    return bb_fail(err, errno == ENOMEM ? BB_ERR_MEMORY : BB_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static bb_status remove_file(const char *dir, const char *name, bb_error *err) {
    char *path = bb_file_join(dir, name);
    if (!path) return fail_dir(dir, "make a name", err);
    bb_status status = unlink(path) == 0 || errno == ENOENT ? BB_OK : fail_dir(path, "remove", err);
    free(path);
    return status;
}

/* Calls visit for every name of this kind, until one fails. Names are read first: removing while reading may pass some over. */
static bb_status each_name(const char *dir, bb_pack_name kind,
                           bb_status (*visit)(const char *dir, const char *name, bb_error *err), bb_error *err) {
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, NULL, alphasort);
    if (count < 0) return fail_dir(dir, "read the directory", err);
    bb_status status = BB_OK;
    for (int i = 0; i < count; i++) {
        if (status == BB_OK && bb_pack_name_kind(entries[i]->d_name) == kind) status = visit(dir, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static bb_status refuse_whole(const char *dir, const char *name, bb_error *err) {
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: holds an earlier pack already (%s); choose another directory, or overwrite it",
                   dir, name);
}

static bb_status open_locked(bb_pack_dir *dir, bool overwrite, bb_error *err) {
    dir->lock = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->lock < 0) return fail_dir(dir->path, "open", err);
    /* Some network file systems lock no directories: go on without, as nothing but a second pack at once is at stake. */
    if (flock(dir->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return bb_fail(err, BB_ERR_IO, "%s: another pack is writing there", dir->path);
    if (!overwrite) BB_TRY(each_name(dir->path, BB_PACK_NAME_WHOLE, refuse_whole, err));
    return each_name(dir->path, BB_PACK_NAME_PARTIAL, remove_file, err); /* ours is the only pack, so these are left-overs */
}

bb_status bb_pack_dir_open(const char *path, bool overwrite, bb_pack_dir *out, bb_error *err) {
    struct stat st;
    *out = (bb_pack_dir){.path = path, .lock = -1, .created = stat(path, &st) != 0};
    BB_TRY(bb_file_make_dirs(path, err));
    bb_status status = open_locked(out, overwrite, err);
    if (status != BB_OK) bb_pack_dir_close(out, false);
    return status;
}

bb_status bb_pack_dir_clear(const bb_pack_dir *dir, bb_error *err) {
    BB_TRY(remove_file(dir->path, manifest_name, err));
    return each_name(dir->path, BB_PACK_NAME_WHOLE, remove_file, err);
}

void bb_pack_dir_close(bb_pack_dir *dir, bool keep) {
    if (dir->created && !keep) rmdir(dir->path);
    if (dir->lock >= 0) close(dir->lock);
    *dir = (bb_pack_dir){.lock = -1};
}

/* ---- Manifest --------------------------------------------------------------------------------------------------------- */

/* Takes value over; without memory *list becomes NULL and stays so. */
static void append(json_t **list, json_t *value) {
    if (json_array_append_new(*list, value) == 0) return;
    json_decref(*list);
    *list = NULL;
}

static json_t *name_list(const char *const *names, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) append(&list, bb_json_path(names[i]));
    return list;
}

static json_t *shard_list(const bb_pack_writer *w) {
    json_t *list = json_array();
    for (int i = 0; i < w->count; i++) {
        char name[48], hash[17];
        bb_pack_shard_name(name, sizeof name, w->prefix, i);
        snprintf(hash, sizeof hash, "%016" PRIx64, w->shards[i].xxh3);
        append(&list, json_pack("{s:s, s:I, s:s}", "name", name, "bytes", (json_int_t)w->shards[i].bytes, "xxh3", hash));
    }
    return list;
}

static json_t *skip_list(const bb_pack_job *job) {
    json_t *list = json_array();
    for (int i = 0; i < job->skips_kept; i++)
        append(&list,
               json_pack("{s:o, s:o}", "path", bb_json_path(job->skips[i].path), "reason", bb_json_path(job->skips[i].reason)));
    return list;
}

static json_t *left_out(const bb_pack_job *job) {
    json_t *counts = json_object();
    for (int i = 0; i < job->left_out_count; i++) {
        json_t *ext = bb_json_path(job->left_out[i].ext);
        if (!ext || json_object_set_new(counts, json_string_value(ext), json_integer(job->left_out[i].count)) != 0) {
            json_decref(counts);
            counts = NULL;
        }
        json_decref(ext);
    }
    return counts;
}

static bb_status no_memory(bb_error *err) { return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s", manifest_name); }

/* Takes value over. layout: JSON_INDENT(n), or 0 for one line. */
static bb_status write_member(bb_file_writer *file, const char *key, json_t *value, size_t layout, bb_error *err) {
    char *text = value ? bb_json_text(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15) | layout) : NULL;
    json_decref(value);
    char *line = NULL;
    if (!text || asprintf(&line, "\"%s\": %s,\n", key, text) < 0) line = NULL;
    bb_status status = line ? bb_file_writer_write(file, line, strlen(line), err) : no_memory(err);
    free(text);
    free(line);
    return status;
}

/* One line each, written as it is made: there may be millions. */
static bb_status write_inputs(bb_file_writer *file, const bb_pack_inputs *inputs, bb_error *err) {
    const char *before = "\"inputs\": [\n  ";
    for (int64_t i = 0; i < inputs->count; i++) {
        const bb_pack_input *input = &inputs->items[i];
        if (input->skipped) continue;
        json_t *entry = json_pack("{s:o, s:I, s:I}", "path", bb_json_path(input->path), "documents",
                                  (json_int_t)input->documents, "bytes", (json_int_t)input->bytes);
        char *text = entry ? bb_json_text(entry, 0) : NULL;
        json_decref(entry);
        bb_status status = text ? bb_file_writer_write(file, before, strlen(before), err) : no_memory(err);
        if (status == BB_OK) status = bb_file_writer_write(file, text, strlen(text), err);
        free(text);
        BB_TRY(status);
        before = ",\n  ";
    }
    return bb_file_writer_write(file, "\n]\n}\n", 5, err);
}

static bb_status write_members(bb_file_writer *file, const bb_pack_job *job, const bb_pack_inputs *inputs,
                               const bb_pack_writer *shards, const bb_pack_writer *val_shards, bb_error *err) {
    const bb_pack_options *o = job->options;
    const bb_pack_result *r = job->result;
    BB_TRY(bb_file_writer_write(file, "{\n", 2, err));
    BB_TRY(write_member(file, "format", json_string("bitbyte-pack-1"), 0, err));
    static const char *const formats[] = {"auto", "text", "jsonl", "json"};
    BB_TRY(write_member(file, "options",
                        json_pack("{s:o, s:f, s:i, s:o, s:f, s:o, s:s, s:b}", "inputs", name_list(o->inputs, o->input_count),
                                  "shard_size_gb", o->shard_size_gb, "sep_byte", o->sep_byte, "exts",
                                  name_list(o->exts, o->ext_count), "val_frac", o->val_frac, "json_keys",
                                  name_list(o->json_keys, o->json_key_count), "input_format", formats[o->input_format],
                                  "strict", (int)o->strict),
                        0, err));
    const struct {
        const char *key;
        int64_t value;
    } counts[] = {{"files", r->files},
                  {"documents", r->documents},
                  {"bytes", r->bytes},
                  {"val_bytes", r->val_bytes},
                  {"duplicates", inputs->duplicates},
                  {"skipped_count", r->skipped},
                  {"left_out_count", r->left_out}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        BB_TRY(write_member(file, counts[i].key, json_integer(counts[i].value), 0, err));
    BB_TRY(write_member(file, "skipped", skip_list(job), JSON_INDENT(2), err));
    BB_TRY(write_member(file, "left_out", left_out(job), 0, err));
    BB_TRY(write_member(file, "shards", shard_list(shards), JSON_INDENT(2), err));
    BB_TRY(write_member(file, "val_shards", shard_list(val_shards), JSON_INDENT(2), err));
    return write_inputs(file, inputs, err);
}

bb_status bb_pack_write_manifest(const bb_pack_job *job, const bb_pack_inputs *inputs, const bb_pack_writer *shards,
                                 const bb_pack_writer *val_shards, bb_file_writer *out, bb_error *err) {
    char *path = bb_file_join(job->options->out_dir, manifest_name);
    if (!path) return no_memory(err);
    bb_status status = bb_file_writer_open(path, out, err);
    free(path);
    BB_TRY(status);
    return write_members(out, job, inputs, shards, val_shards, err);
}
