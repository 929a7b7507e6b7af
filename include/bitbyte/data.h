// SPDX-License-Identifier: MIT
/* Training data: datasets, texts of any format, and packing them into shards. */
#ifndef BITBYTE_DATA_H
#define BITBYTE_DATA_H

#include "base.h"

/* ---- Data ---------------------------------------------------------------------------------------------------------------- */

typedef struct bb_dataset bb_dataset;

/* How samples are drawn. A sample depends only on (seed, its number, seq_len). */
typedef enum bb_sampling {
    BB_SAMPLING_EPOCHS = 0,      /* each epoch draws an offset, then visits every window at stride seq_len once */
    BB_SAMPLING_WITH_REPLACEMENT /* any window each time; for runs started before epochs existed */
} bb_sampling;

/* Draws windows of seq_len + 1 bytes from raw byte shards. data: a directory (its shard_*.bin), a glob, or one file. */
BB_API bb_status bb_byte_shard_dataset_open(const char *data, int seq_len, uint64_t seed, int rank, int world_size,
                                            bb_dataset **out, bb_error *err);
/* Draws from one file of raw bytes. */
BB_API bb_status bb_byte_stream_dataset_open(const char *path, int seq_len, uint64_t seed, int rank, int world_size,
                                             bb_dataset **out, bb_error *err);
BB_API void bb_dataset_close(bb_dataset *dataset);
BB_API bb_status bb_dataset_set_seq_len(bb_dataset *dataset, int seq_len, bb_error *err);
BB_API int bb_dataset_seq_len(const bb_dataset *dataset);

typedef struct bb_dataset_info {
    int64_t shards, bytes;  /* usable shards and bytes */
    int64_t skipped_shards; /* shards shorter than seq_len + 1 */
    const char *warning;    /* NULL, or one line about skipped shards */
} bb_dataset_info;
BB_API bb_dataset_info bb_dataset_get_info(const bb_dataset *dataset);

/* Returns micro-batch `micro` (0 <= micro < grad_accum) of this rank in the current step. A step is the next grad_accum *
 * batch_size * world_size samples of the whole job. x, y: (batch_size, seq_len). bb_dataset_next_step advances. */
BB_API bb_status bb_dataset_batch(bb_dataset *dataset, int batch_size, int grad_accum, int micro, uint8_t *x, uint8_t *y,
                                  bb_error *err);
BB_API void bb_dataset_next_step(bb_dataset *dataset, int batch_size, int grad_accum);
/* Returns the number of samples drawn by the whole job, the only state of a dataset. */
BB_API uint64_t bb_dataset_position(const bb_dataset *dataset);
BB_API void bb_dataset_set_position(bb_dataset *dataset, uint64_t samples);
/* Returns how many passes over the data `samples` sequences of seq_len bytes make. */
BB_API double bb_dataset_epochs(const bb_dataset *dataset, int seq_len, double samples);

/* Reads a file, a pipe or standard input ("-"), decompressed and converted to UTF-8. BB_ERR_FORMAT if it is not text, such as a
 * model. *text has a NUL after its last byte; free it with bb_string_free. stop (may be NULL): nonzero cancels. */
BB_API bb_status bb_read_text(const char *path, const volatile int *stop, char **text, size_t *size, bb_error *err);
/* The same in pieces, for any length and in constant memory. read: at least one byte, or *size 0 at the end. */
typedef struct bb_text_reader bb_text_reader;
BB_API bb_status bb_text_reader_open(const char *path, const volatile int *stop, bb_text_reader **out, bb_error *err);
BB_API bb_status bb_text_reader_read(bb_text_reader *reader, char *buffer, size_t capacity, size_t *size, bb_error *err);
BB_API void bb_text_reader_close(bb_text_reader *reader);

/* Format of all inputs. AUTO goes by the extension: .json, .jsonl and .ndjson are JSON, everything else is text. */
typedef enum bb_input_format { BB_INPUT_AUTO = 0, BB_INPUT_TEXT, BB_INPUT_JSON_LINES, BB_INPUT_JSON } bb_input_format;

typedef struct bb_pack_options {
    size_t struct_size;
    const char *const *inputs; /* files and folders; "-": standard input */
    int input_count;
    const char *out_dir;
    double shard_size_gb;    /* default 2 (of 10^9 bytes) */
    int sep_byte;            /* separator between documents, 0 to 255; -1: none */
    const char *const *exts; /* without dot, for files found in folders; "all" or "*": every file */
    int ext_count;
    double val_frac;              /* share of validation data, from the end of the data; 0 <= val_frac < 1 */
    const char *const *json_keys; /* the first key found wins */
    int json_key_count;
    bb_input_format input_format;
    bool strict;    /* stop at the first unreadable or malformed input */
    bool overwrite; /* replace the shards of an existing pack */
    void (*on_progress)(void *user, int64_t files_done, int64_t files_total, int64_t bytes_done);
    void (*on_skip)(void *user, const char *path, const char *reason);
    /* Called once if files in folders are skipped because of their extension. */
    void (*on_note)(void *user, const char *message);
    void *user;
    const volatile int *stop; /* may be NULL; nonzero: stop and leave nothing that looks complete */
} bb_pack_options;

typedef struct bb_pack_result {
    int64_t files, documents; /* packed */
    int64_t bytes, val_bytes; /* bytes of all shards, and of the val shards among them */
    int64_t shards, val_shards;
    int64_t skipped, left_out; /* unreadable files and records; files in folders skipped because of their extension */
} bb_pack_result;
BB_OPTIONS(bb_pack_options);
BB_API bb_status bb_pack(const bb_pack_options *options, bb_pack_result *result, bb_error *err);

#endif
