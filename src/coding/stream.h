// SPDX-License-Identifier: MIT
/* The format of a compressed stream, as docs/FORMAT.md defines it: a header, blocks with tables of their sizes, an end record.
 * Numbers are little-endian. */
#ifndef BB_CODING_STREAM_H
#define BB_CODING_STREAM_H

#include "coding/model_hash.h"

enum {
    BB_STREAM_VERSION = 2,
    BB_STREAM_HEADER_BYTES = 39,
    BB_STREAM_BLOCK_BYTES = 13, /* head of a coded block */
    BB_STREAM_STORED_BYTES = 9,
    BB_STREAM_END_BYTES = 15,
    BB_STREAM_TABLE_HEAD_BYTES = 11,
    BB_STREAM_TABLE_BLOCKS = 1024, /* blocks of each table but the last */
    BB_STREAM_TABLE_BYTES = BB_STREAM_TABLE_HEAD_BYTES + 4 * BB_STREAM_TABLE_BLOCKS + 4,
    BB_STREAM_MIN_BLOCK_BITS = 16,
    BB_STREAM_MAX_BLOCK_BITS = 24,
    BB_STREAM_MAX_WINDOW = 1 << 20
};

/* Which arithmetic computed the logits: cpu and ref differ in their bits, and other devices may differ from one another. */
typedef enum bb_arithmetic { BB_ARITHMETIC_CPU = 0, BB_ARITHMETIC_REF = 1, BB_ARITHMETIC_COUNT } bb_arithmetic;

typedef struct bb_stream_header {
    bb_arithmetic arithmetic;
    bb_kv_type kv_cache;
    int block_bits; /* all blocks but the last have 1 << block_bits bytes */
    int window;
    uint64_t parameters; /* of the model */
    uint8_t model[BB_MODEL_HASH_BYTES];
} bb_stream_header;

typedef enum bb_block_kind {
    BB_BLOCK_END = 0,
    BB_BLOCK_STORED = 1,
    BB_BLOCK_ZSTD = 2,
    BB_BLOCK_MODEL = 3,
    BB_BLOCK_TABLE = 4,
    BB_BLOCK_MIXED = 5, /* the model mixed with contexts */
    BB_BLOCK_KINDS
} bb_block_kind;

typedef struct bb_stream_block {
    bb_block_kind kind;
    uint32_t size;        /* decoded bytes; 0 for a table */
    uint32_t coded;       /* bytes after the head */
    uint32_t check;       /* see bb_stream_check */
    uint64_t total, hash; /* end record: decoded bytes of the stream (48 bits) and their XXH3 */
    int entries;          /* table: number of blocks */
    uint64_t previous;    /* table: offset in the stream of the previous table; 0: none */
} bb_stream_block;

/* Sizes in the stream, heads included, of the blocks since the previous table. Tables make it possible to find a block without
 * reading those before it, with constant memory in the writer and the reader. Both collect one. */
typedef struct bb_stream_table {
    uint32_t sizes[BB_STREAM_TABLE_BLOCKS];
    int entries;
    uint64_t previous;
    uint64_t blocks; /* of the stream so far */
    bool last;       /* no block may follow: the last one was short, or the table was */
} bb_stream_table;

/* Fails with BB_ERR_UNSUPPORTED if the model's predictions are not the same everywhere. */
bb_status bb_stream_arithmetic(const bb_model *model, bb_arithmetic *out, bb_error *err);
const char *bb_arithmetic_name(bb_arithmetic arithmetic); /* "cpu" */
void bb_stream_write_header(const bb_stream_header *header, uint8_t out[BB_STREAM_HEADER_BYTES]);
bb_status bb_stream_read_header(const uint8_t in[BB_STREAM_HEADER_BYTES], bb_stream_header *out, bb_error *err);
/* Writes any head but that of a table. Returns the number of bytes written, at most BB_STREAM_END_BYTES. */
size_t bb_stream_write_block(const bb_stream_block *block, uint8_t *out);
/* Returns the size of the head (of a block, a table or the end) whose first byte is `first`; 0: none begins with it. */
size_t bb_stream_block_bytes(uint8_t first);
/* The same for a parsed head. */
static inline size_t bb_stream_head_bytes(const bb_stream_block *block) { return bb_stream_block_bytes((uint8_t)block->kind); }
/* in: a whole head (bb_stream_block_bytes). block_bits: from the header. */
bb_status bb_stream_read_block(const uint8_t *in, int block_bits, bb_stream_block *out, bb_error *err);
/* The checksum of a block: the low half of the XXH3 of its decoded bytes, seeded with the XXH3 of its coded bytes, seeded with
 * kind and sizes. It covers the coded bytes, because the last bits of a coded lane can change without changing the decoded
 * bytes. */
uint32_t bb_stream_check(const bb_stream_block *block, const uint8_t *coded, const uint8_t *bytes);

/* Adds a block to the table. block_bits: from the header. */
void bb_stream_table_add(bb_stream_table *table, const bb_stream_block *block, int block_bits);
/* Returns whether a table must come next: after BB_STREAM_TABLE_BLOCKS blocks, and (end) before the end of a stream of several
 * blocks. */
bool bb_stream_table_due(const bb_stream_table *table, bool end);
size_t bb_stream_table_bytes(int entries);
/* Writes the table, at offset `at` of the stream, and starts the next one. Returns the number of bytes. */
size_t bb_stream_write_table(bb_stream_table *table, uint64_t at, uint8_t out[BB_STREAM_TABLE_BYTES]);
/* Parses the sizes of a table and verifies its checksum. in: the bytes after the head. sizes: (head->entries). */
bb_status bb_stream_read_table(const bb_stream_block *head, const uint8_t *in, uint32_t *sizes, bb_error *err);
/* Checks that `next` may follow the blocks seen so far. */
bb_status bb_stream_check_order(const bb_stream_table *seen, const bb_stream_block *next, bb_error *err);
/* Compares the table at offset `at` of the stream with the blocks seen so far, and starts the next one. */
bb_status bb_stream_match_table(bb_stream_table *seen, const bb_stream_block *head, const uint8_t *in, uint64_t at,
                                bb_error *err);

#endif
