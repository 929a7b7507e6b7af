// SPDX-License-Identifier: MIT
/* The files that one --data argument names, as datasets and evaluation read them. They are read, not mapped, so that a file
 * that shrinks or a disk that fails is an error and does not kill the process. */
#ifndef BB_DATA_BYTE_SOURCE_H
#define BB_DATA_BYTE_SOURCE_H

#include "core/file.h"
#include "data/input_stream.h"

typedef enum bb_byte_use {
    BB_BYTES_TRAINING, /* read at random offsets: regular files of plain bytes; in a directory shard_*.bin */
    BB_BYTES_HELD_OUT  /* read from start to end: also pipes, standard input ("-") and compressed text; in a directory
                        * val_*.bin, or shard_*.bin if there is none */
} bb_byte_use;

typedef struct bb_byte_file {
    char *path;
    bool is_stream; /* read by an input stream: a pipe, or compressed; the members below are unused */
    int64_t size;   /* when it was opened; bytes appended later are ignored */
    int fd;         /* -1: not open at the moment */
    uint64_t used;  /* when it was last read, to choose the file to close */
    dev_t device;
    ino_t inode;
    bool named; /* it had a link in some directory: losing the last one means that it was removed */
} bb_byte_file;

typedef struct bb_byte_source {
    bb_byte_file *files; /* (count), sorted by path, bytewise */
    int count, open;     /* open: files that have a descriptor */
    uint64_t reads;
    int64_t total_bytes; /* of the files that are not streams */
    int streams;         /* number of streams; their sizes are unknown */
    bb_byte_use use;
    const char *pattern; /* the files taken from a directory, e.g. "val_*.bin"; NULL: data was no directory */
    int current;         /* the file that bb_byte_source_read_on reads; its next byte or its stream follow */
    int64_t position;
    bb_input_stream *stream;
    const volatile int *stop; /* may be NULL; non-zero ends waiting for a pipe */
} bb_byte_source;

enum { BB_BYTE_SOURCE_OPEN = 256 }; /* files held open at once, well below the usual limit of 1024 descriptors */

/* data: a directory, a glob, or one file. A name that exists is never a glob. If nothing matches, BB_ERR_DATA names the
 * pattern; if data has the wrong kind, BB_ERR_DATA says what to do. Files with the names of packed shards are bytes, whatever
 * they begin with. */
bb_status bb_byte_source_open(const char *data, bb_byte_use use, bb_byte_source *out, bb_error *err);
/* This regular file, for training. `path` is never a glob. */
bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err);
/* Reads `size` bytes of file number `file` at `offset`. A file that shrank, was removed or replaced, or cannot be read is an
 * error that names the file and the place. */
bb_status bb_byte_source_read(bb_byte_source *source, int file, int64_t offset, void *bytes, size_t size, bb_error *err);
/* Reads the next `size` bytes of file number `file`, from its start if another was read before. *got is less at its end. */
bb_status bb_byte_source_read_on(bb_byte_source *source, int file, uint8_t *bytes, size_t size, size_t *got, bb_error *err);
void bb_byte_source_close(bb_byte_source *source);

#endif
