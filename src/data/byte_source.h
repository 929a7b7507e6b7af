// SPDX-License-Identifier: MIT
/* The files that one --data argument names, as datasets and evaluation read them. They are read, not mapped, so that a file
 * that shrinks or a disk that fails is an error and does not kill the process. */
#ifndef BB_DATA_BYTE_SOURCE_H
#define BB_DATA_BYTE_SOURCE_H

#include "core/file.h"
#include "data/input_stream.h"

typedef enum bb_byte_use {
    BB_BYTES_TRAINING, /* regular files of plain bytes, read at random offsets; in a directory shard_*.bin */
    BB_BYTES_HELD_OUT  /* read from start to end; may also be pipes, standard input ("-") and compressed text; in a directory
                        * val_*.bin, or shard_*.bin if there is none */
} bb_byte_use;

typedef struct bb_byte_file {
    char *path;
    bool is_stream; /* a pipe or compressed text, read through an input stream; the members below are unused */
    int64_t size;   /* size when it was opened; bytes appended later are ignored */
    int fd;         /* -1: currently closed */
    uint64_t used;  /* time of the last read, to choose which file to close */
    dev_t device;
    ino_t inode;
    bool named; /* it had a link in some directory, so a link count of 0 means that it was removed */
} bb_byte_file;

typedef struct bb_byte_source {
    bb_byte_file *files; /* (count), sorted by path, bytewise */
    int count, open;     /* open: number of files with an open descriptor */
    uint64_t reads;
    int64_t total_bytes; /* of the files that are not streams */
    int streams;         /* number of streams; their sizes are unknown */
    bb_byte_use use;
    const char *pattern; /* pattern of the files taken from a directory, e.g. "val_*.bin"; NULL: data was not a directory */
    int current;         /* the file that bb_byte_source_read_on reads; its position or stream follows */
    int64_t position;
    bb_input_stream *stream;
    const volatile int *stop; /* may be NULL; nonzero interrupts waiting for a pipe */
} bb_byte_source;

enum { BB_BYTE_SOURCE_OPEN = 256 }; /* maximum number of open files, well below the usual limit of 1024 descriptors */

/* data: a directory, a glob, or one file. An existing name is never treated as a glob. If nothing matches, BB_ERR_DATA names
 * the pattern; if data has the wrong kind, BB_ERR_DATA says what to do. Files named like packed shards are plain bytes,
 * whatever their first bytes are. */
bb_status bb_byte_source_open(const char *data, bb_byte_use use, bb_byte_source *out, bb_error *err);
/* Opens this regular file for training. `path` is never treated as a glob. */
bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err);
/* Reads `size` bytes of file number `file` at `offset`. If the file shrank, was removed or replaced, or cannot be read, the
 * error names the file and the offset. */
bb_status bb_byte_source_read(bb_byte_source *source, int file, int64_t offset, void *bytes, size_t size, bb_error *err);
/* Reads the next `size` bytes of file number `file`, starting at its beginning if another file was read before. *got is smaller
 * at the end of the file. */
bb_status bb_byte_source_read_on(bb_byte_source *source, int file, uint8_t *bytes, size_t size, size_t *got, bb_error *err);
/* BB_ERR_DATA unless a file has 2 bytes or more, or is a stream: the first byte of a file is not scored. */
bb_status bb_byte_source_check_to_score(const bb_byte_source *source, const char *data, bb_error *err);
bb_status bb_byte_source_nothing_to_score(const bb_byte_source *source, const char *data, bb_error *err); /* BB_ERR_DATA */
void bb_byte_source_close(bb_byte_source *source);

#endif
