// SPDX-License-Identifier: MIT
/* Packing: files in, one stream of documents, shards out. Memory holds only a piece of one file, a line or a JSON file, and the
 * list of files. A file gets its final name when it is complete on disk, and manifest.json is written last. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/clock.h"
#include "core/options.h"
#include "data/input_stream.h"
#include "data/packer_dir.h"
#include "data/packer_inputs.h"
#include "data/packer_job.h"
#include "data/packer_json.h"
#include "data/packer_manifest.h"
#include "data/packer_shards.h"

enum {
    PIECE_BYTES = 1 << 18,
    MALFORMED_LINES_REPORTED = 20 /* per file; more are only counted */
};
#define RECORD_LIMIT_BYTES ((size_t)1 << 30) /* limit of a .json file or a line, which is in memory both as text and parsed */

typedef struct packer {
    bb_pack_job *job;
    bb_pack_input *input; /* the input being packed */
    bb_pack_writer shards, val_shards;
    bb_pack_mark mark; /* the start of `input` in the output */
    uint8_t *record;   /* (record_capacity) */
    size_t record_capacity;
} packer;

static const char *const default_exts[] = {
    "txt",  "text",  "md",     "rst",  "tex", "org",  "html", "htm", "xml", "csv",  "tsv",   "log",   "srt",
    "json", "jsonl", "ndjson", "yaml", "yml", "toml", "ini",  "c",   "h",   "cc",   "cpp",   "cxx",   "hpp",
    "cu",   "cuh",   "s",      "py",   "js",  "jsx",  "ts",   "tsx", "css", "java", "kt",    "go",    "rs",
    "rb",   "php",   "pl",     "lua",  "sh",  "sql",  "r",    "jl",  "m",   "cs",   "swift", "scala", "hs",
    "ml",   "clj",   "el",     "lisp", "scm", "erl",  "ex",   "f90", "v",   "vhd",  "cmake", "mk",
};
static const char *const default_json_keys[] = {"text", "story", "completion", "content"};

BB_OPTIONS_DEFAULTS(bb_pack_options, .shard_size_gb = 2, .exts = default_exts,
                    .ext_count = (int)(sizeof default_exts / sizeof *default_exts), .json_keys = default_json_keys,
                    .json_key_count = (int)(sizeof default_json_keys / sizeof *default_json_keys));

/* ---- Documents -------------------------------------------------------------------------------------------------------- */

static bb_status write_text(packer *p, const void *text, size_t size, bb_error *err) {
    p->input->bytes += (int64_t)size;
    bb_status status = bb_pack_writer_write(&p->shards, text, size, err);
    p->job->bytes_done = p->shards.total;
    return status;
}

/* Writes a separator before each document but the first. Empty documents do not count. */
static bb_status begin_document(packer *p, bb_error *err) {
    bool is_first = p->job->result->documents == 0;
    p->job->result->documents++;
    p->input->documents++;
    uint8_t separator = (uint8_t)p->job->options->sep_byte;
    return is_first || p->job->options->sep_byte < 0 ? BB_OK : bb_pack_writer_write(&p->shards, &separator, 1, err);
}

static bb_status emit_document(void *user, const void *text, size_t size, bb_error *err) {
    packer *p = user;
    BB_TRY(begin_document(p, err));
    BB_TRY(write_text(p, text, size, err));
    return bb_pack_tick(p->job, err);
}

/* Discards everything packed of the current input. */
static bb_status discard_input(packer *p, bb_error *err) {
    p->job->result->documents -= p->input->documents;
    p->input->documents = p->input->bytes = 0;
    p->input->skipped = true;
    BB_TRY(bb_pack_writer_rewind(&p->shards, &p->mark, err));
    p->job->bytes_done = p->shards.total;
    return BB_OK;
}

/* ---- One input -------------------------------------------------------------------------------------------------------- */

/* A read error affects one input, a write error the whole pack. */
typedef struct outcome {
    bb_status status;
    bool fatal;
} outcome;

static outcome from_reading(bb_status s) { return (outcome){s, s != BB_OK && s != BB_ERR_IO && s != BB_ERR_FORMAT}; }
static outcome from_writing(bb_status s) { return (outcome){s, s != BB_OK}; }

#define TRY_READING(expr)                                                                                                      \
    do {                                                                                                                       \
        outcome try_outcome_ = from_reading(expr);                                                                             \
        if (try_outcome_.status != BB_OK) return try_outcome_;                                                                 \
    } while (0)
#define TRY_WRITING(expr)                                                                                                      \
    do {                                                                                                                       \
        outcome try_outcome_ = from_writing(expr);                                                                             \
        if (try_outcome_.status != BB_OK) return try_outcome_;                                                                 \
    } while (0)

static bb_status grow_record(packer *p, bb_error *err) {
    if (p->record_capacity >= RECORD_LIMIT_BYTES)
        return bb_fail(err, BB_ERR_FORMAT, "a JSON text of more than %zu bytes", RECORD_LIMIT_BYTES);
    size_t capacity = p->record_capacity ? p->record_capacity * 2 : PIECE_BYTES;
    uint8_t *moved = realloc(p->record, capacity);
    if (!moved) return bb_fail(err, BB_ERR_MEMORY, "no memory for a JSON text of %zu bytes", capacity);
    p->record = moved;
    p->record_capacity = capacity;
    return BB_OK;
}

static outcome pack_raw(packer *p, bb_input_stream *stream, bb_error *err) {
    size_t size;
    for (bool first = true;; first = false) {
        TRY_READING(bb_input_stream_read(stream, p->record, PIECE_BYTES, &size, err));
        if (size == 0) return from_writing(BB_OK);
        if (first) TRY_WRITING(begin_document(p, err));
        TRY_WRITING(write_text(p, p->record, size, err));
        TRY_WRITING(bb_pack_tick(p->job, err));
    }
}

/* Malformed JSON is the input's fault; any other failure is a write error or a lack of memory. */
static outcome extract(bb_pack_extractor *x, uint8_t *text, size_t size, bool one_value, int64_t line, bb_error *err) {
    bb_status status = bb_pack_extract(x, (char *)text, size, one_value, line, err);
    return status == BB_ERR_FORMAT ? from_reading(status) : from_writing(status);
}

static bb_pack_extractor new_extractor(packer *p) {
    const bb_pack_options *o = p->job->options;
    return (bb_pack_extractor){.keys = o->json_keys, .key_count = o->json_key_count, .emit = emit_document, .user = p};
}

/* Reports all records of a file without text at once: either the keys are wrong, or a few records are unusual. */
static bb_status report_empty_records(packer *p, const bb_pack_extractor *x, int64_t line, bb_error *err) {
    const bb_pack_options *o = p->job->options;
    if (x->empty_records == 0) return BB_OK;
    char keys[256] = "";
    for (int i = 0; i < o->json_key_count; i++) {
        size_t used = strlen(keys);
        snprintf(keys + used, sizeof keys - used, "%s%s", i ? "," : "", o->json_keys[i]);
    }
    char first[48] = "";
    if (line > 0) snprintf(first, sizeof first, "; the first is line %" PRId64, line);
    bb_fail(err, BB_ERR_FORMAT, "%" PRId64 " of %" PRId64 " records have no text under %s%s", x->empty_records, x->records,
            keys, first);
    return bb_pack_skip_input(p->job, p->input->path, x->empty_records, BB_ERR_FORMAT, err);
}

static outcome pack_json(packer *p, bb_input_stream *stream, bb_error *err) {
    size_t used = 0, size;
    do {
        if (used == p->record_capacity) TRY_READING(grow_record(p, err));
        TRY_READING(bb_input_stream_read(stream, p->record + used, p->record_capacity - used, &size, err));
        used += size;
        TRY_WRITING(bb_pack_tick(p->job, err));
    } while (size > 0);
    bb_pack_extractor x = new_extractor(p);
    outcome done = extract(&x, p->record, used, false, 1, err);
    if (done.status != BB_OK) return done;
    return from_writing(report_empty_records(p, &x, 0, err));
}

typedef struct line_state {
    bb_pack_extractor extractor;
    int64_t line, malformed, first_empty_line;
} line_state;

static bb_status pack_line(packer *p, line_state *s, uint8_t *text, size_t size, bb_error *err) {
    s->line++;
    int64_t empty_before = s->extractor.empty_records;
    outcome done = extract(&s->extractor, text, size, true, s->line, err);
    if (done.fatal) return done.status;
    if (done.status != BB_OK) {
        if (s->malformed++ >= MALFORMED_LINES_REPORTED) return BB_OK;
        return bb_pack_skip_input(p->job, p->input->path, 1, done.status, err);
    }
    if (s->first_empty_line == 0 && s->extractor.empty_records > empty_before) s->first_empty_line = s->line;
    if (s->first_empty_line == s->line && p->job->options->strict)
        return report_empty_records(p, &s->extractor, s->first_empty_line, err);
    return BB_OK;
}

/* Packs the complete lines of record[0..used). *taken: their size in bytes. record[0..searched) contains no line feed. */
static bb_status pack_lines(packer *p, line_state *s, size_t used, size_t searched, size_t *taken, bb_error *err) {
    *taken = 0;
    for (const uint8_t *end; (end = memchr(p->record + searched, '\n', used - searched)); searched = *taken) {
        size_t next = (size_t)(end - p->record) + 1;
        BB_TRY(pack_line(p, s, p->record + *taken, next - *taken, err));
        *taken = next;
    }
    return BB_OK;
}

static outcome pack_json_lines(packer *p, bb_input_stream *stream, bb_error *err) {
    line_state s = {.extractor = new_extractor(p)};
    size_t used = 0, size, taken;
    for (;;) {
        if (used == p->record_capacity) TRY_READING(grow_record(p, err));
        TRY_READING(bb_input_stream_read(stream, p->record + used, p->record_capacity - used, &size, err));
        TRY_WRITING(bb_pack_tick(p->job, err));
        if (size == 0) break;
        TRY_WRITING(pack_lines(p, &s, used + size, used, &taken, err));
        used += size;
        if (taken > 0) memmove(p->record, p->record + taken, used - taken);
        used -= taken;
    }
    if (used > 0) TRY_WRITING(pack_line(p, &s, p->record, used, err));
    if (s.malformed > MALFORMED_LINES_REPORTED) {
        int64_t more = s.malformed - MALFORMED_LINES_REPORTED;
        bb_fail(err, BB_ERR_FORMAT, "and %" PRId64 " more malformed lines", more);
        TRY_WRITING(bb_pack_skip_input(p->job, p->input->path, more, BB_ERR_FORMAT, err));
    }
    return from_writing(report_empty_records(p, &s.extractor, s.first_empty_line, err));
}

static bb_status pack_input(packer *p, bb_error *err) {
    bb_input_stream stream;
    bb_pack_mark_set(&p->mark, &p->shards);
    outcome done = from_reading(bb_input_stream_open(p->input->path, p->job->options->stop, &stream, err));
    if (done.status == BB_OK) {
        done = p->input->kind == BB_PACK_JSON         ? pack_json(p, &stream, err)
               : p->input->kind == BB_PACK_JSON_LINES ? pack_json_lines(p, &stream, err)
                                                      : pack_raw(p, &stream, err);
        bb_input_stream_close(&stream);
    }
    if (done.fatal) return done.status;
    if (done.status != BB_OK) {
        BB_TRY(bb_pack_skip_input(p->job, p->input->path, 1, done.status, err));
        return discard_input(p, err);
    }
    p->job->result->files++;
    return BB_OK;
}

/* ---- The whole -------------------------------------------------------------------------------------------------------- */

static bb_status check_options(const bb_pack_options *o, bb_error *err) {
    if (o->input_count < 1 || !o->inputs) return bb_fail(err, BB_ERR_ARGUMENT, "inputs: expected a file or folder, found none");
    for (int i = 0; i < o->input_count; i++)
        if (!o->inputs[i]) return bb_fail(err, BB_ERR_ARGUMENT, "inputs: input %d is NULL", i);
    if (o->ext_count < 0 || (o->ext_count > 0 && !o->exts))
        return bb_fail(err, BB_ERR_ARGUMENT, "exts: ext_count is %d, and the list is %s", o->ext_count,
                       o->exts ? "there" : "NULL");
    if (o->json_key_count < 0 || (o->json_key_count > 0 && !o->json_keys))
        return bb_fail(err, BB_ERR_ARGUMENT, "json_keys: json_key_count is %d, and the list is %s", o->json_key_count,
                       o->json_keys ? "there" : "NULL");
    if (!o->out_dir || !*o->out_dir) return bb_fail(err, BB_ERR_ARGUMENT, "out_dir: expected a directory, found nothing");
    if (!(o->shard_size_gb * 1e9 >= 1 && o->shard_size_gb <= 1e9))
        return bb_fail(err, BB_ERR_ARGUMENT, "shard_size_gb: expected at least one byte (1e-9) and at most 1e9, found %g",
                       o->shard_size_gb);
    if (o->sep_byte < -1 || o->sep_byte > 255)
        return bb_fail(err, BB_ERR_ARGUMENT, "sep_byte: expected 0 to 255, or -1 for none, found %d", o->sep_byte);
    if (o->input_format >= BB_INPUT_JSON_LINES && o->json_key_count == 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "json_keys: expected the keys of the records' text, found none");
    if (!(o->val_frac >= 0 && o->val_frac < 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "val_frac: expected 0 <= val_frac < 1, found %g", o->val_frac);
    return BB_OK;
}

static bb_status no_bytes(const bb_pack_job *job, bb_error *err) {
    const char *input = job->options->inputs[0];
    if (job->skips_kept > 0)
        return bb_fail(err, BB_ERR_DATA, "the inputs contain no bytes: %" PRId64 " skipped, the first %s: %s",
                       job->result->skipped, job->skips[0].path, job->skips[0].reason);
    char left_out[512];
    bb_pack_left_out_text(job, left_out, sizeof left_out);
    if (job->files_total == 0)
        return bb_fail(err, BB_ERR_DATA, "%s: no file with one of the %d given extensions (exts); found: %s", input,
                       job->options->ext_count, left_out[0] ? left_out : "no files");
    return bb_fail(err, BB_ERR_DATA,
                   "the inputs contain no bytes: %" PRId64 " files, all of them empty (the first input is %s)",
                   job->files_total, input);
}

static bb_status pack_all(packer *p, bb_pack_inputs *inputs, bb_error *err) {
    bb_pack_job *job = p->job;
    const bb_pack_options *o = job->options;
    BB_TRY(bb_pack_find_inputs(job, inputs, err));
    job->files_total = inputs->count;
    for (; job->files_done < inputs->count; job->files_done++) {
        p->input = &inputs->items[job->files_done];
        BB_TRY(bb_pack_tick(job, err));
        BB_TRY(pack_input(p, err));
    }
    if (p->shards.total == 0) return no_bytes(job, err);
    BB_TRY(bb_pack_writer_finish(&p->shards, err));

    bb_pack_result *r = job->result;
    r->bytes = p->shards.total;
    r->val_bytes = (int64_t)(o->val_frac * (double)r->bytes);
    if (r->val_bytes >= r->bytes) r->val_bytes = r->bytes - 1; /* rounded up */
    BB_TRY(bb_pack_writer_move_tail(&p->shards, r->val_bytes, &p->val_shards, job, err));
    r->shards = p->shards.count;
    r->val_shards = p->val_shards.count;
    return BB_OK;
}

/* Once files are being renamed, which takes no time, a request to stop is ignored. */
static bb_status publish(packer *p, const bb_pack_inputs *inputs, const bb_pack_dir *dir, bb_error *err) {
    bb_status status = BB_OK;
    bool changing = false;
    bb_file_writer manifest = {.fd = -1};
    BB_TRY_GOTO(status, done, bb_pack_write_manifest(p->job, inputs, &p->shards, &p->val_shards, &manifest, err));
    BB_TRY_GOTO(status, done, bb_pack_tick(p->job, err));
    changing = true;
    BB_TRY_GOTO(status, done, bb_pack_dir_clear(dir, err));
    BB_TRY_GOTO(status, done, bb_pack_writer_publish(&p->shards, err));
    BB_TRY_GOTO(status, done, bb_pack_writer_publish(&p->val_shards, err));
    BB_TRY_GOTO(status, done, bb_file_writer_commit(&manifest, err));
    bb_pack_report_progress(p->job);
done:
    bb_file_writer_abort(&manifest);
    if (status != BB_OK && changing) (void)bb_pack_dir_clear(dir, NULL); /* a partial pack is worse than none */
    return status;
}

static void free_job(bb_pack_job *job) {
    for (int i = 0; job && i < job->skips_kept; i++) {
        free(job->skips[i].path);
        free(job->skips[i].reason);
    }
    free(job);
}

/* The files of a previous pack are replaced by the new one, so they must not be inputs. */
static bb_status check_inputs_survive(const bb_pack_options *o, bb_error *err) {
    struct stat out, parent;
    if (!o->overwrite || stat(o->out_dir, &out) != 0) return BB_OK;
    for (int i = 0; i < o->input_count; i++) {
        const char *path = o->inputs[i], *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
        if (bb_pack_name_kind(base) == BB_PACK_NAME_OTHER) continue;
        char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
        if (!dir) return bb_fail(err, BB_ERR_MEMORY, "no memory to pack");
        bool same = stat(dir, &parent) == 0 && parent.st_dev == out.st_dev && parent.st_ino == out.st_ino;
        free(dir);
        if (same)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: is an input, and would be overwritten in %s: choose another directory",
                           path, o->out_dir);
    }
    return BB_OK;
}

bb_status bb_pack(const bb_pack_options *given, bb_pack_result *result, bb_error *err) {
    BB_REQUIRE("options", given);
    BB_OPTIONS_READ(bb_pack_options, options, given);
    bb_status status = BB_OK;
    bb_error own_err; /* reasons for skipping need it, even if the caller passes no err */
    bb_pack_result own_result;
    packer p = {0};
    bb_pack_inputs inputs = {0};
    bb_pack_dir dir = {.lock = -1};
    if (!err) err = &own_err;
    if (!result) result = &own_result;
    *result = (bb_pack_result){0};
    BB_TRY(check_options(options, err));

    p.shards.fd = p.val_shards.fd = -1;
    p.job = calloc(1, sizeof *p.job);
    if (!p.job) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory to pack");
        goto done;
    }
    *p.job = (bb_pack_job){.options = options, .result = result, .last_progress_ns = bb_clock_ns()};
    int64_t shard_bytes = (int64_t)llround(options->shard_size_gb * 1e9);
    BB_TRY_GOTO(status, done, grow_record(&p, err));
    BB_TRY_GOTO(status, done, bb_pack_mark_open(&p.mark, err));
    BB_TRY_GOTO(status, done, check_inputs_survive(options, err));
    BB_TRY_GOTO(status, done, bb_pack_dir_open(options->out_dir, options->overwrite, &dir, err));
    BB_TRY_GOTO(status, done, bb_pack_writer_open(options->out_dir, "shard", shard_bytes, &p.shards, err));
    BB_TRY_GOTO(status, done, bb_pack_writer_open(options->out_dir, "val", shard_bytes, &p.val_shards, err));
    BB_TRY_GOTO(status, done, pack_all(&p, &inputs, err));
    status = publish(&p, &inputs, &dir, err);
done:
    bb_pack_writer_close(&p.shards, status == BB_OK);
    bb_pack_writer_close(&p.val_shards, status == BB_OK);
    bb_pack_dir_close(&dir, status == BB_OK);
    bb_pack_mark_close(&p.mark);
    bb_pack_inputs_free(&inputs);
    free_job(p.job);
    free(p.record);
    return status;
}
