// SPDX-License-Identifier: MIT
/* A range coder with 64-bit state, after Subbotin (1999): it truncates the range to avoid carries. Symbols are intervals [low,
 * low + count) of BB_COUNTS_TOTAL. The caller frees the encoder's memory. */
#ifndef BB_CODING_RANGE_CODER_H
#define BB_CODING_RANGE_CODER_H

#include "core/status.h"

typedef struct bb_range_encoder {
    uint64_t low, range;
    uint8_t *bytes; /* malloc'd */
    size_t size, capacity;
    bool no_memory; /* an allocation failed; the output is incomplete */
} bb_range_encoder;

void bb_range_encoder_begin(bb_range_encoder *e); /* keeps the memory */
void bb_range_encode(bb_range_encoder *e, uint32_t low, uint32_t count);
/* Writes the fewest bytes that identify the last symbol; the decoder reads zeros after them. */
void bb_range_encoder_end(bb_range_encoder *e);
void bb_range_encoder_free(bb_range_encoder *e);

typedef struct bb_range_decoder {
    uint64_t low, range, code;
    const uint8_t *at, *end;
} bb_range_decoder;

void bb_range_decoder_begin(bb_range_decoder *d, const uint8_t *bytes, size_t size);
/* Returns the position within the next symbol's interval, always below BB_COUNTS_TOTAL, even if the bytes are damaged. */
uint32_t bb_range_decode_target(bb_range_decoder *d);
/* Consumes the symbol with that interval. */
void bb_range_decode_consume(bb_range_decoder *d, uint32_t low, uint32_t count);

#endif
