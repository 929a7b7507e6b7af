// SPDX-License-Identifier: MIT
/* A block of bytes, cut into lanes of equal length that are coded independently and read by the model together. The coded block:
 * the number of lanes as u16, the sizes of all lanes but the last as u32, then the lanes; all numbers little-endian. */
#ifndef BB_CODING_LANES_H
#define BB_CODING_LANES_H

#include "core/status.h"

enum { BB_MAX_LANES = 64 };

typedef struct bb_lanes bb_lanes;
typedef struct bb_lanes_options {
    int lanes;  /* most of them, 1 to BB_MAX_LANES */
    int window; /* bytes that the model sees at once */
    bb_kv_type kv_cache;
    const volatile int *stop;                   /* may be NULL */
    void (*on_bytes)(void *user, int64_t done); /* bytes done of this block; may be NULL */
    void *user;
} bb_lanes_options;

bb_status bb_lanes_open(bb_model *model, const bb_lanes_options *options, bb_lanes **out, bb_error *err);
void bb_lanes_close(bb_lanes *lanes);
/* coded: valid until the next call. NULL where the model does not compress: it would be larger than `most`, or promises to be. */
bb_status bb_lanes_encode(bb_lanes *lanes, const uint8_t *bytes, size_t size, size_t most, bb_bytes *coded, bb_error *err);
/* Any bytes decode to some block, or fail with BB_ERR_FORMAT. */
bb_status bb_lanes_decode(bb_lanes *lanes, bb_bytes coded, uint8_t *bytes, size_t size, bb_error *err);

#endif
