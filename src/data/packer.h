// SPDX-License-Identifier: MIT
/* The packer's parts: finding inputs, finding text in JSON, writing shards, the manifest. data/input_stream.h reads; packer.c puts them together. Paths in messages are as the caller gave them. */
#ifndef BB_DATA_PACKER_H
#define BB_DATA_PACKER_H

#include <sys/types.h>
#include <xxhash.h>

#include "core/file.h"

/* ---- One pack: what all parts report to -------------------------------------------------------------------------------- */

typedef struct bb_pack_skip {
    char *path, *reason;
} bb_pack_skip;

enum { BB_PACK_SKIPS_KEPT = 1000 }; /* for the manifest; more are counted */

/* Files of folders that were not taken, by their extension in lower case, without the dot; "" has none. */
typedef struct bb_pack_left_out {
    char ext[16];
    int64_t count;
} bb_pack_left_out;

enum { BB_PACK_EXTS_LEFT_OUT = 64 }; /* told apart; the last one holds all further ones and is named "other" */

typedef struct bb_pack_job {
    const bb_pack_options *options;
    bb_pack_result *result;
    bb_pack_skip skips[BB_PACK_SKIPS_KEPT];
    int skips_kept;
    bb_pack_left_out left_out[BB_PACK_EXTS_LEFT_OUT];
    int left_out_count;                          /* extensions */
    int64_t files_done, files_total, bytes_done; /* for on_progress */
    int64_t last_progress_ns;
} bb_pack_job;

/* Called between pieces of work: reports progress every 0.1 s, and returns BB_ERR_INTERRUPTED once the caller asks to stop. */
bb_status bb_pack_tick(bb_pack_job *job, bb_error *err);
/* Counts `count` inputs or records of `path` as skipped, for the reason in err, which lacks the path. A strict pack stops: then
 * code comes back, with the path put before the reason. */
bb_status bb_pack_skip_input(bb_pack_job *job, const char *path, int64_t count, bb_status code, bb_error *err);

/* "12 .bin, 3 .pdf, 1 without an extension", the most frequent first. */
void bb_pack_left_out_text(const bb_pack_job *job, char *out, size_t size);

/* ---- Inputs ------------------------------------------------------------------------------------------------------------ */

typedef enum bb_pack_kind {
    BB_PACK_RAW,       /* the bytes are one document */
    BB_PACK_JSON,      /* .json: one or more JSON values, each searched for texts */
    BB_PACK_JSON_LINES /* .jsonl, .ndjson: one JSON value a line */
} bb_pack_kind;

typedef struct bb_pack_input {
    char *path;
    bb_pack_kind kind;
    int64_t documents, bytes; /* what it gave, separators not counted */
    bool skipped;
} bb_pack_input;

typedef struct bb_pack_inputs {
    bb_pack_input *items; /* (count), in the order of packing */
    int64_t count, capacity;
    int64_t duplicates; /* paths to a file that is packed already */
} bb_pack_inputs;

/* Inputs keep the caller's order; what a folder holds is sorted by path, bytewise. Each file is packed once, however many paths
 * lead to it; links are followed, and loops end there. Names that begin with a dot are left out in folders, and so is out_dir.
 */
bb_status bb_pack_find_inputs(bb_pack_job *job, bb_pack_inputs *out, bb_error *err);
void bb_pack_inputs_free(bb_pack_inputs *inputs);

/* ---- JSON -------------------------------------------------------------------------------------------------------------- */

typedef bb_status (*bb_pack_emit)(void *user, const void *text, size_t size, bb_error *err);

typedef struct bb_pack_extractor {
    const char *const *keys; /* (key_count), the first wins */
    int key_count;
    bb_pack_emit emit;
    void *user;
    int64_t records, empty_records; /* empty: no text under any key */
} bb_pack_extractor;

/* Takes all JSON values in text, or one and nothing else; line: the number of text's first line, for messages.
 * What strict JSON forbids and other programs write does not cost the record: NaN, Infinity and numbers past the range of a
 * double are numbers, and half a surrogate pair is U+FFFD; they are overwritten in text.
 * The elements of an array at the top are a record each, any other value is one record.
 * A record that has one of the keys itself gives the text there: a string, or all strings of an array. Otherwise whatever it
 * holds is searched in the same way, so an object that holds an array of records gives them all. BB_ERR_FORMAT when malformed;
 * one value is then not taken at all, of several those before it are. */
bb_status bb_pack_extract(bb_pack_extractor *extractor, char *text, size_t size, bool one_value, int64_t line, bb_error *err);

/* ---- Shards ------------------------------------------------------------------------------------------------------------ */

typedef struct bb_pack_shard {
    int64_t bytes;
    uint64_t xxh3; /* XXH3, 64 bits, of all of it; set when the shard is closed */
} bb_pack_shard;

/* One stream of bytes cut into files of shard_bytes, `prefix`_00000.bin.part and so on until they are published. */
typedef struct bb_pack_writer {
    const char *dir, *prefix;
    int64_t shard_bytes, total;
    bb_pack_shard *shards; /* (count); the last one is open while fd >= 0 */
    int count, capacity, published;
    int fd;
    uint8_t *buffer; /* the last `buffered` bytes of the open shard */
    size_t buffered;
    XXH3_state_t *hash; /* of the open shard so far */
} bb_pack_writer;

/* A place in the stream to come back to. */
typedef struct bb_pack_mark {
    int64_t total, shard_bytes;
    int count;
    XXH3_state_t *hash;
} bb_pack_mark;

bb_status bb_pack_writer_open(const char *dir, const char *prefix, int64_t shard_bytes, bb_pack_writer *out, bb_error *err);
bb_status bb_pack_writer_write(bb_pack_writer *writer, const void *data, size_t size, bb_error *err);
/* A mark is made by bb_pack_mark_open, set as often as wanted, and freed by bb_pack_mark_close. */
bb_status bb_pack_mark_open(bb_pack_mark *mark, bb_error *err);
void bb_pack_mark_set(bb_pack_mark *mark, const bb_pack_writer *writer);
void bb_pack_mark_close(bb_pack_mark *mark);
/* Forgets everything written after the mark. */
bb_status bb_pack_writer_rewind(bb_pack_writer *writer, const bb_pack_mark *mark, bb_error *err);
/* Flushes the last shard to disk and closes it. */
bb_status bb_pack_writer_finish(bb_pack_writer *writer, bb_error *err);
/* Moves the last `bytes` bytes of a finished stream to `to`, which is then finished too. */
bb_status bb_pack_writer_move_tail(bb_pack_writer *from, int64_t bytes, bb_pack_writer *to, bb_pack_job *job, bb_error *err);
/* Gives the shards of a finished stream their final names. */
bb_status bb_pack_writer_publish(bb_pack_writer *writer, bb_error *err);
/* Frees the writer; unless keep, every file that it made is removed, published or not. */
void bb_pack_writer_close(bb_pack_writer *writer, bool keep);

/* "shard_00042.bin". */
void bb_pack_shard_name(char *name, size_t size, const char *prefix, int index);

/* ---- Output directory and manifest ------------------------------------------------------------------------------------- */

typedef enum bb_pack_name {
    BB_PACK_NAME_OTHER,  /* nothing of ours */
    BB_PACK_NAME_WHOLE,  /* shard_NNNNN.bin, val_NNNNN.bin, manifest.json */
    BB_PACK_NAME_PARTIAL /* the same, not yet whole */
} bb_pack_name;

bb_pack_name bb_pack_name_kind(const char *name);

typedef struct bb_pack_dir {
    const char *path;
    int lock;     /* held while the pack runs, or -1 */
    bool created; /* by us: goes away with a failed pack */
} bb_pack_dir;

/* Makes the directory where needed, takes its lock, refuses an earlier pack unless overwrite, and removes what an earlier pack
 * that was killed left half done. */
bb_status bb_pack_dir_open(const char *path, bool overwrite, bb_pack_dir *out, bb_error *err);
/* Removes every whole file of an earlier pack, the manifest first. */
bb_status bb_pack_dir_clear(const bb_pack_dir *dir, bb_error *err);
void bb_pack_dir_close(bb_pack_dir *dir, bool keep);

/* Writes manifest.json up to its commit, which the caller makes once all the shards stand. */
bb_status bb_pack_write_manifest(const bb_pack_job *job, const bb_pack_inputs *inputs, const bb_pack_writer *shards,
                                 const bb_pack_writer *val_shards, bb_file_writer *out, bb_error *err);

#endif
