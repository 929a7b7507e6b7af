// SPDX-License-Identifier: MIT
/* A stream of bytes cut into shards, which can be rewound to a mark. */
#ifndef BB_DATA_PACKER_SHARDS_H
#define BB_DATA_PACKER_SHARDS_H

#include <xxhash.h>

#include "data/packer_job.h"

typedef struct bb_pack_shard {
    int64_t bytes;
    uint64_t xxh3; /* XXH3-64 of the whole shard; set when it is closed */
} bb_pack_shard;

/* A stream of bytes cut into files of shard_bytes: `prefix`_00000.bin.part, …, until they are published. */
typedef struct bb_pack_writer {
    const char *dir, *prefix;
    int64_t shard_bytes, total;
    bb_pack_shard *shards; /* (count); the last one is open while fd >= 0 */
    int count, capacity, published;
    int fd;
    uint8_t *buffer; /* the last `buffered` bytes of the open shard */
    size_t buffered;
    XXH3_state_t *hash; /* hash of the open shard so far */
} bb_pack_writer;

/* A position of the stream to rewind to. */
typedef struct bb_pack_mark {
    int64_t total, shard_bytes;
    int count;
    XXH3_state_t *hash;
} bb_pack_mark;

bb_status bb_pack_writer_open(const char *dir, const char *prefix, int64_t shard_bytes, bb_pack_writer *out, bb_error *err);
bb_status bb_pack_writer_write(bb_pack_writer *writer, const void *data, size_t size, bb_error *err);
/* Open a mark once, set it any number of times, and close it. */
bb_status bb_pack_mark_open(bb_pack_mark *mark, bb_error *err);
void bb_pack_mark_set(bb_pack_mark *mark, const bb_pack_writer *writer);
void bb_pack_mark_close(bb_pack_mark *mark);
/* Discards everything written after the mark. */
bb_status bb_pack_writer_rewind(bb_pack_writer *writer, const bb_pack_mark *mark, bb_error *err);
/* Flushes the last shard to disk and closes it. */
bb_status bb_pack_writer_finish(bb_pack_writer *writer, bb_error *err);
/* Moves the last `bytes` bytes of a finished stream to `to`, and finishes `to`. */
bb_status bb_pack_writer_move_tail(bb_pack_writer *from, int64_t bytes, bb_pack_writer *to, bb_pack_job *job, bb_error *err);
/* Gives the shards of a finished stream their final names. */
bb_status bb_pack_writer_publish(bb_pack_writer *writer, bb_error *err);
/* Frees the writer. Unless keep, removes every file that it created, published or not. */
void bb_pack_writer_close(bb_pack_writer *writer, bool keep);

/* Writes a name such as "shard_00042.bin". */
void bb_pack_shard_name(char *name, size_t size, const char *prefix, int index);

#endif
