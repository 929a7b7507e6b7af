// SPDX-License-Identifier: MIT
/* A range coder with 64-bit state, after Subbotin (1999): carries are avoided by cutting the range short. Symbols are intervals
 * [low, low + count) of BB_COUNTS_TOTAL. The encoder's memory is the caller's. */
#ifndef BB_CODING_RANGE_CODER_H
#define BB_CODING_RANGE_CODER_H

#include "core/status.h"

typedef struct bb_range_encoder {
    uint64_t low, range;
    uint8_t *bytes; /* malloc'd */
    size_t size, capacity;
    bool no_memory; /* bytes were lost */
} bb_range_encoder;

void bb_range_encoder_begin(bb_range_encoder *e); /* keeps the memory */
void bb_range_encode(bb_range_encoder *e, uint32_t low, uint32_t count);
/* Writes as few bytes as tell the last symbol; behind them the decoder reads zeros. */
void bb_range_encoder_end(bb_range_encoder *e);
void bb_range_encoder_free(bb_range_encoder *e);

typedef struct bb_range_decoder {
    uint64_t low, range, code;
    const uint8_t *at, *end;
} bb_range_decoder;

void bb_range_decoder_begin(bb_range_decoder *d, const uint8_t *bytes, size_t size);
/* Where the next symbol's interval is: below BB_COUNTS_TOTAL, whatever the bytes are. */
uint32_t bb_range_decode_target(bb_range_decoder *d);
/* Takes the symbol whose interval that was in. */
void bb_range_decode_take(bb_range_decoder *d, uint32_t low, uint32_t count);

#endif
