// SPDX-License-Identifier: MIT
/* Byte files found from one --data argument: what datasets and evaluation read. They are read, not mapped, so that a file that
 * shrinks or a disk that fails is an error and does not kill the process. */
#ifndef BB_DATA_BYTE_SOURCE_H
#define BB_DATA_BYTE_SOURCE_H

#include "core/file.h"
#include "data/input_stream.h"

typedef enum bb_byte_use {
    BB_BYTES_TRAINING, /* read at random places: regular files of plain bytes; of a directory shard_*.bin */
    BB_BYTES_HELD_OUT  /* read from start to end: pipes, standard input ("-") and compressed text too; of a directory val_*.bin,
                        * or shard_*.bin where there is none */
} bb_byte_use;

typedef struct bb_byte_file {
    char *path;
    bool is_stream; /* read by an input stream: a pipe, or compressed; the members below mean nothing */
    int64_t size;   /* when it was opened; bytes that are added later are not looked at */
    int fd;         /* -1: not open now */
    uint64_t used;  /* when it was last read, for the choice of the one to close */
    dev_t device;
    ino_t inode;
    bool named; /* it had a name in some folder: losing the last one means that it was removed */
} bb_byte_file;

typedef struct bb_byte_source {
    bb_byte_file *files; /* (count), sorted by path, bytewise */
    int count, open;     /* open: files that have a descriptor */
    uint64_t reads;
    int64_t total_bytes; /* of the files that are no streams */
    int streams;         /* files that are: their sizes are not known */
    bb_byte_use use;
    const char *pattern; /* what was taken of a directory, e.g. "val_*.bin"; NULL: it was no directory */
    int current;         /* the file that bb_byte_source_read_on reads, with its next byte or its stream */
    int64_t position;
    bb_input_stream *stream;
    const volatile int *stop; /* NULL, or makes the wait for a pipe end */
} bb_byte_source;

enum { BB_BYTE_SOURCE_OPEN = 256 }; /* files held open at once, well below the usual limit of 1024 descriptors */

/* data: a directory, a glob, or one file. A name that exists is never read as a glob. No match is BB_ERR_DATA, naming the
 * pattern; data that cannot be used so is BB_ERR_DATA that says what to do. Files named as the packer names shards are bytes,
 * whatever they begin with. */
bb_status bb_byte_source_open(const char *data, bb_byte_use use, bb_byte_source *out, bb_error *err);
/* Exactly this regular file, for training. */
bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err);
/* `size` bytes of file number `file` from `offset` on. A file that shrank, was removed or replaced, or cannot be read is an
 * error that names it and the place. */
bb_status bb_byte_source_read(bb_byte_source *source, int file, int64_t offset, void *bytes, size_t size, bb_error *err);
/* The next `size` bytes of file number `file`, from its first byte on when another was read before; *got is less at its end. */
bb_status bb_byte_source_read_on(bb_byte_source *source, int file, uint8_t *bytes, size_t size, size_t *got, bb_error *err);
void bb_byte_source_close(bb_byte_source *source);

#endif
