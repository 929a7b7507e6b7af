// SPDX-License-Identifier: MIT
/* Writes manifest.json, the last file of a pack. */
#include "data/packer_manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "data/packer_dir.h"

/* Takes ownership of value. When out of memory, *list becomes NULL and stays NULL. */
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

static bb_status no_memory(bb_error *err) { return bb_fail(err, BB_ERR_MEMORY, "no memory to write %s", BB_PACK_MANIFEST); }

/* Takes ownership of value. layout: JSON_INDENT(n), or 0 for one line. */
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

/* Writes one input a line, without building a JSON tree: there may be millions. */
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
    char *path = bb_file_join(job->options->out_dir, BB_PACK_MANIFEST);
    if (!path) return no_memory(err);
    bb_status status = bb_file_writer_open(path, out, err);
    free(path);
    BB_TRY(status);
    return write_members(out, job, inputs, shards, val_shards, err);
}
