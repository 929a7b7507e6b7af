/* Byte files found from one --data argument and mapped read-only: what datasets and evaluation read.
 * SPDX-License-Identifier: MIT */
#ifndef BB_DATA_BYTE_SOURCE_H
#define BB_DATA_BYTE_SOURCE_H

#include "core/file.h"

/* A file must not shrink while it is mapped: reading past its new end kills the process with SIGBUS. */
typedef struct bb_byte_file {
    char *path;
    bb_file_map map;
    uint8_t *owned; /* contents that were read and not mapped (standard input), or NULL */
} bb_byte_file;

typedef struct bb_byte_source {
    bb_byte_file *files; /* (count), sorted by path, bytewise */
    int count;
    int64_t total_bytes;
} bb_byte_source;

/* data: a directory (its shard_*.bin), a glob, one file, or "-" for standard input where allow_stdin. A name that exists is
 * never read as a glob. No match is BB_ERR_DATA, naming the pattern. */
bb_status bb_byte_source_open(const char *data, bool allow_stdin, bb_byte_source *out, bb_error *err);
/* Exactly this regular file. */
bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err);
void bb_byte_source_close(bb_byte_source *source);

#endif
