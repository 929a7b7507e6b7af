// SPDX-License-Identifier: MIT
/* Codes blocks of bytes. Each block is cut into lanes of equal length, which are coded independently and read by the model
 * together. A coded block: the number of lanes as u16, the sizes of all lanes but the last as u32, then the lanes; all numbers
 * are little-endian. */
#ifndef BB_CODING_LANES_H
#define BB_CODING_LANES_H

#include "core/status.h"

enum { BB_MAX_LANES = 64 };

typedef struct bb_lanes bb_lanes;
typedef struct bb_lanes_options {
    int lanes;  /* maximum number of lanes of an encoded block, 1 to BB_MAX_LANES */
    int window; /* context length of the model's passes, in bytes */
    bb_kv_type kv_cache;
    bool mix;                                   /* encoding: mix predictions with the contexts of mixer.h */
    const volatile int *stop;                   /* may be NULL */
    void (*on_bytes)(void *user, int64_t done); /* done: bytes coded by this call so far; may be NULL */
    void *user;
} bb_lanes_options;

bb_status bb_lanes_open(bb_model *model, const bb_lanes_options *options, bb_lanes **out, bb_error *err);
void bb_lanes_close(bb_lanes *lanes);
/* Encodes a block. coded: valid until the next call; NULL if the result would be larger than `limit`, or is about to be. */
bb_status bb_lanes_encode(bb_lanes *lanes, const uint8_t *bytes, size_t size, size_t limit, bb_bytes *coded, bb_error *err);

/* A block to decode. */
typedef struct bb_lanes_block {
    bb_bytes coded;
    uint8_t *bytes; /* (size) */
    size_t size;
    bool mixed;
    int first, lanes; /* set by bb_lanes_decode: its lanes among the lanes of all blocks */
    bb_status status; /* BB_OK: decoded, although not verified. BB_ERR_FORMAT: damaged */
    bb_error error;
} bb_lanes_block;

/* Returns the number of lanes of a coded block of `size` decoded bytes, 1 to BB_MAX_LANES, or 0 if it is damaged. */
int bb_lanes_count(bb_bytes coded, size_t size);
/* Returns the memory that the contexts of a mixed block of `size` bytes take. */
size_t bb_lanes_context_bytes(size_t size);
/* Decodes blocks together, sharing the passes of the model. They may have at most BB_MAX_LANES lanes in all. */
bb_status bb_lanes_decode(bb_lanes *lanes, bb_lanes_block *blocks, int count, bb_error *err);

#endif
