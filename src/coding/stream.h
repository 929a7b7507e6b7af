// SPDX-License-Identifier: MIT
/* The bytes of a compressed stream, as docs/FORMAT.md defines them: a header, blocks with tables of their sizes, an end. Numbers are
 * little-endian. */
#ifndef BB_CODING_STREAM_H
#define BB_CODING_STREAM_H

#include "coding/model_hash.h"

enum {
    BB_STREAM_VERSION = 2,
    BB_STREAM_HEADER_BYTES = 39,
    BB_STREAM_BLOCK_BYTES = 13, /* of a block's head; a stored block's has 9 */
    BB_STREAM_STORED_BYTES = 9,
    BB_STREAM_END_BYTES = 15,
    BB_STREAM_TABLE_HEAD_BYTES = 11,
    BB_STREAM_TABLE_BLOCKS = 1024, /* of a table but the last */
    BB_STREAM_TABLE_BYTES = BB_STREAM_TABLE_HEAD_BYTES + 4 * BB_STREAM_TABLE_BLOCKS + 4,
    BB_STREAM_MIN_BLOCK_BITS = 16,
    BB_STREAM_MAX_BLOCK_BITS = 24,
    BB_STREAM_MAX_WINDOW = 1 << 20
};

/* Whose arithmetic the logits are of: the bits of cpu and of ref differ, and those of other devices may differ between two of them. */
typedef enum bb_arithmetic { BB_ARITHMETIC_CPU = 0, BB_ARITHMETIC_REF = 1, BB_ARITHMETIC_COUNT } bb_arithmetic;

typedef struct bb_stream_header {
    bb_arithmetic arithmetic;
    bb_kv_type kv_cache;
    int block_bits; /* blocks have 1 << block_bits bytes, but for the last */
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
    BB_BLOCK_MIXED = 5, /* the model, mixed with contexts */
    BB_BLOCK_KINDS
} bb_block_kind;

typedef struct bb_stream_block {
    bb_block_kind kind;
    uint32_t size;        /* bytes; 0 of a table */
    uint32_t coded;       /* bytes behind the head */
    uint32_t check;       /* see bb_stream_check */
    uint64_t total, hash; /* of the end: bytes in all (48 bits), and their XXH3 */
    int entries;          /* of a table */
    uint64_t previous;    /* of a table: byte of the stream at which the table before it begins; 0: there is none */
} bb_stream_block;

/* Sizes in the stream, with their heads, of the blocks since the table before: so that a block can be found without reading those
 * before it, in constant memory on either side. Both sides collect one. */
typedef struct bb_stream_table {
    uint32_t sizes[BB_STREAM_TABLE_BLOCKS];
    int entries;
    uint64_t previous;
    uint64_t blocks; /* of the stream so far */
    bool last;       /* no block follows: one was short, or a table */
} bb_stream_table;

/* BB_ERR_UNSUPPORTED where a model's predictions are not the same everywhere. */
bb_status bb_stream_arithmetic(const bb_model *model, bb_arithmetic *out, bb_error *err);
const char *bb_arithmetic_name(bb_arithmetic arithmetic); /* "cpu" */
void bb_stream_write_header(const bb_stream_header *header, uint8_t out[BB_STREAM_HEADER_BYTES]);
bb_status bb_stream_read_header(const uint8_t in[BB_STREAM_HEADER_BYTES], bb_stream_header *out, bb_error *err);
/* Not of a table. Returns the number of bytes written, at most BB_STREAM_END_BYTES. */
size_t bb_stream_write_block(const bb_stream_block *block, uint8_t *out);
/* Bytes of a block's or a table's head, or of the end, by its first byte; 0: nothing begins with it. */
size_t bb_stream_block_bytes(uint8_t first);
/* The same of a head that is whole. */
static inline size_t bb_stream_head_bytes(const bb_stream_block *block) { return bb_stream_block_bytes((uint8_t)block->kind); }
/* in: so many bytes. block_bits: of the header. */
bb_status bb_stream_read_block(const uint8_t *in, int block_bits, bb_stream_block *out, bb_error *err);
/* The low half of XXH3 of the block's bytes, seeded with that of its bytes in the stream, seeded with kind and sizes: the last bits
 * of a coded lane may be changed without changing what it decodes to. */
uint32_t bb_stream_check(const bb_stream_block *block, const uint8_t *coded, const uint8_t *bytes);

/* Puts a block into the table. block_bits: of the header. */
void bb_stream_table_add(bb_stream_table *table, const bb_stream_block *block, int block_bits);
/* Whether a table stands at this place: behind as many blocks as it holds, and (end) before the end of a stream of several blocks. */
bool bb_stream_table_due(const bb_stream_table *table, bool end);
size_t bb_stream_table_bytes(int entries);
/* Writes the table, which begins at byte `at` of the stream, and starts the next one. Returns the number of bytes. */
size_t bb_stream_write_table(bb_stream_table *table, uint64_t at, uint8_t out[BB_STREAM_TABLE_BYTES]);
/* Reads the sizes of a table from its head and what follows that, and checks them. sizes: (head->entries). */
bb_status bb_stream_read_table(const bb_stream_block *head, const uint8_t *in, uint32_t *sizes, bb_error *err);
/* Whether `next` may follow what has been seen. */
bb_status bb_stream_check_order(const bb_stream_table *seen, const bb_stream_block *next, bb_error *err);
/* Compares a table that begins at byte `at` of the stream with what has been seen, and starts the next one. */
bb_status bb_stream_match_table(bb_stream_table *seen, const bb_stream_block *head, const uint8_t *in, uint64_t at,
                                bb_error *err);

#endif
