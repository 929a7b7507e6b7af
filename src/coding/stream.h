// SPDX-License-Identifier: MIT
/* The bytes of a compressed stream, as docs/FORMAT.md defines them: a header, blocks, an end. Numbers are little-endian. */
#ifndef BB_CODING_STREAM_H
#define BB_CODING_STREAM_H

#include "coding/model_hash.h"

enum {
    BB_STREAM_VERSION = 1,
    BB_STREAM_HEADER_BYTES = 39,
    BB_STREAM_BLOCK_BYTES = 13, /* of a block's head; a stored block's has 9 */
    BB_STREAM_STORED_BYTES = 9,
    BB_STREAM_END_BYTES = 15,
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

typedef enum bb_block_kind { BB_BLOCK_END = 0, BB_BLOCK_STORED = 1, BB_BLOCK_ZSTD = 2, BB_BLOCK_MODEL = 3 } bb_block_kind;

typedef struct bb_stream_block {
    bb_block_kind kind;
    uint32_t size, coded; /* bytes, and bytes in the stream */
    uint32_t check;       /* see bb_stream_check */
    uint64_t total, hash; /* of the end: bytes in all (48 bits), and their XXH3 */
} bb_stream_block;

/* BB_ERR_UNSUPPORTED where a model's predictions are not the same everywhere. */
bb_status bb_stream_arithmetic(const bb_model *model, bb_arithmetic *out, bb_error *err);
const char *bb_arithmetic_name(bb_arithmetic arithmetic); /* "cpu" */
void bb_stream_write_header(const bb_stream_header *header, uint8_t out[BB_STREAM_HEADER_BYTES]);
bb_status bb_stream_read_header(const uint8_t in[BB_STREAM_HEADER_BYTES], bb_stream_header *out, bb_error *err);
/* Returns the number of bytes written, at most BB_STREAM_END_BYTES. */
size_t bb_stream_write_block(const bb_stream_block *block, uint8_t *out);
/* Bytes of a block's head, or of the end, by its first byte; 0: no block begins with it. */
size_t bb_stream_block_bytes(uint8_t first);
/* in: so many bytes. block_bits: of the header. */
bb_status bb_stream_read_block(const uint8_t *in, int block_bits, bb_stream_block *out, bb_error *err);
/* The low half of XXH3 of the block's bytes, seeded with that of its bytes in the stream, seeded with kind and sizes: the last bits
 * of a coded lane may be changed without changing what it decodes to. */
uint32_t bb_stream_check(const bb_stream_block *block, const uint8_t *coded, const uint8_t *bytes);

#endif
