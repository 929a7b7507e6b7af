// SPDX-License-Identifier: MIT
/* Collects the bytes that generation gives. */
#ifndef BB_TESTS_GENERATION_OUTPUT_H
#define BB_TESTS_GENERATION_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

enum { OUTPUT_BYTES = 3000 };

typedef struct output {
    uint8_t bytes[OUTPUT_BYTES];
    int count, stop_after; /* stop_after 0: never */
} output;

/* A bb_generate_options.on_byte whose user is an output. */
static inline bool collect(void *user, uint8_t byte) {
    output *o = user;
    o->bytes[o->count++] = byte;
    return o->count != o->stop_after;
}

#endif
