// SPDX-License-Identifier: MIT
/* Blocks of bytes, each cut into lanes of equal length that are coded independently and read by the model together. The coded block:
 * the number of lanes as u16, the sizes of all lanes but the last as u32, then the lanes; all numbers little-endian. */
#ifndef BB_CODING_LANES_H
#define BB_CODING_LANES_H

#include "core/status.h"

enum { BB_MAX_LANES = 64 };

typedef struct bb_lanes bb_lanes;
typedef struct bb_lanes_options {
    int lanes;  /* of a block that is encoded, at most; 1 to BB_MAX_LANES */
    int window; /* bytes that the model sees at once */
    bb_kv_type kv_cache;
    bool mix;                                   /* encoding: with the contexts of mixer.h */
    const volatile int *stop;                   /* may be NULL */
    void (*on_bytes)(void *user, int64_t done); /* bytes done by this call; may be NULL */
    void *user;
} bb_lanes_options;

bb_status bb_lanes_open(bb_model *model, const bb_lanes_options *options, bb_lanes **out, bb_error *err);
void bb_lanes_close(bb_lanes *lanes);
/* coded: valid until the next call. NULL where the model does not compress: it would be larger than `most`, or promises to be. */
bb_status bb_lanes_encode(bb_lanes *lanes, const uint8_t *bytes, size_t size, size_t most, bb_bytes *coded, bb_error *err);

/* A block to be decoded. */
typedef struct bb_lanes_block {
    bb_bytes coded;
    uint8_t *bytes; /* (size) */
    size_t size;
    bool mixed;
    int first, lanes; /* set by bb_lanes_decode: its lanes among those of all */
    bb_status status; /* BB_OK: these bytes decode to some block. BB_ERR_FORMAT: they do not */
    bb_error error;
} bb_lanes_block;

/* Lanes of a coded block of so many bytes, 1 to BB_MAX_LANES; 0: none is coded so. */
int bb_lanes_of(bb_bytes coded, size_t size);
/* Memory of the contexts of a mixed block. */
size_t bb_lanes_context_bytes(size_t size);
/* Decodes blocks side by side: they share the passes of the model. They have at most BB_MAX_LANES lanes in all. */
bb_status bb_lanes_decode(bb_lanes *lanes, bb_lanes_block *blocks, int count, bb_error *err);

#endif
