// SPDX-License-Identifier: MIT
#include "coding/range_coder.h"

#include <stdlib.h>

#include "coding/counts.h"

/* The range is at least BOTTOM before each symbol, so one count is at least 2^24. */
#define TOP ((uint64_t)1 << 56)
#define BOTTOM ((uint64_t)1 << 48)

/* Returns whether the highest byte of low is final. Truncates a range that has become too small, which makes the byte final. */
static bool settled(uint64_t low, uint64_t *range) {
    if ((low ^ (low + *range)) < TOP) return true;
    if (*range >= BOTTOM) return false;
    *range = -low & (BOTTOM - 1);
    return true;
}

static void put(bb_range_encoder *e, uint8_t byte) {
    if (e->size == e->capacity) {
        size_t capacity = e->capacity ? 2 * e->capacity : 4096;
        uint8_t *grown = realloc(e->bytes, capacity);
        if (!grown) {
            e->no_memory = true;
            return;
        }
        e->bytes = grown;
        e->capacity = capacity;
    }
    e->bytes[e->size++] = byte;
}

void bb_range_encoder_begin(bb_range_encoder *e) {
    e->low = 0;
    e->range = UINT64_MAX;
    e->size = 0;
    e->no_memory = false;
}

void bb_range_encode(bb_range_encoder *e, uint32_t low, uint32_t count) {
    e->range >>= BB_COUNTS_BITS;
    e->low += low * e->range;
    e->range *= count;
    while (settled(e->low, &e->range)) {
        put(e, (uint8_t)(e->low >> 56));
        e->low <<= 8;
        e->range <<= 8;
    }
}

void bb_range_encoder_end(bb_range_encoder *e) {
    for (int bytes = 0; bytes <= 8; bytes++) {
        uint64_t rest = bytes < 8 ? UINT64_MAX >> 8 * bytes : 0; /* low bits that will be zero */
        uint64_t value = (e->low + rest) & ~rest;
        if (value < e->low || value - e->low >= e->range) continue; /* outside the range, or overflow */
        for (int i = 0; i < bytes; i++) put(e, (uint8_t)(value >> (56 - 8 * i)));
        break;
    }
    while (e->size > 0 && e->bytes[e->size - 1] == 0) e->size--;
}

void bb_range_encoder_free(bb_range_encoder *e) {
    free(e->bytes);
    *e = (bb_range_encoder){.bytes = NULL};
}

static uint8_t next_byte(bb_range_decoder *d) { return d->at < d->end ? *d->at++ : 0; }

void bb_range_decoder_begin(bb_range_decoder *d, const uint8_t *bytes, size_t size) {
    *d = (bb_range_decoder){.range = UINT64_MAX, .at = bytes, .end = bytes + size};
    for (int i = 0; i < 8; i++) d->code = d->code << 8 | next_byte(d);
}

uint32_t bb_range_decode_target(bb_range_decoder *d) {
    d->range >>= BB_COUNTS_BITS;
    uint64_t target = (d->code - d->low) / d->range;
    return target < BB_COUNTS_TOTAL ? (uint32_t)target : BB_COUNTS_TOTAL - 1; /* larger only in damaged streams */
}

void bb_range_decode_consume(bb_range_decoder *d, uint32_t low, uint32_t count) {
    d->low += low * d->range;
    d->range *= count;
    while (settled(d->low, &d->range)) {
        d->code = d->code << 8 | next_byte(d);
        d->low <<= 8;
        d->range <<= 8;
    }
}
