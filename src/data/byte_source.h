// SPDX-License-Identifier: MIT
/* Byte files found from one --data argument: what datasets and evaluation read. They are read, not mapped, so that a file that
 * shrinks or a disk that fails is an error and does not kill the process. */
#ifndef BB_DATA_BYTE_SOURCE_H
#define BB_DATA_BYTE_SOURCE_H

#include "core/file.h"

typedef struct bb_byte_file {
    char *path;
    int64_t size;   /* when it was opened; bytes that are added later are not looked at */
    uint8_t *owned; /* contents that were read already (standard input), or NULL */
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
    int64_t total_bytes;
} bb_byte_source;

enum { BB_BYTE_SOURCE_OPEN = 256 }; /* files held open at once, well below the usual limit of 1024 descriptors */

/* data: a directory (its shard_*.bin), a glob, one file, or "-" for standard input where allow_stdin. A name that exists is
 * never read as a glob. No match is BB_ERR_DATA, naming the pattern. */
bb_status bb_byte_source_open(const char *data, bool allow_stdin, bb_byte_source *out, bb_error *err);
/* Exactly this regular file. */
bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err);
/* `size` bytes of file number `file` from `offset` on. A file that shrank, was removed or replaced, or cannot be read is an
 * error that names it and the place. */
bb_status bb_byte_source_read(bb_byte_source *source, int file, int64_t offset, void *bytes, size_t size, bb_error *err);
void bb_byte_source_close(bb_byte_source *source);

#endif
