// SPDX-License-Identifier: MIT
/* Access to six-bit blocks of the cache: 16 cells of four codes each in 48 bytes (kv_layout.h). */
#ifndef BB_OPS_CPU_KV_INT6_H
#define BB_OPS_CPU_KV_INT6_H

#include <stdint.h>
#include <string.h>

enum { BB_INT6_BIAS = 32, BB_INT6_MAX = 31 };

typedef uint8_t bb_int6_bytes __attribute__((vector_size(16)));

/* The first, second and third bytes of a block's cells. */
typedef struct bb_int6_block {
    bb_int6_bytes low, middle, high;
} bb_int6_block;

#define BB_INT6_INLINE static inline __attribute__((always_inline))

BB_INT6_INLINE bb_int6_bytes bb_int6_biased(const int8_t *values) {
    bb_int6_bytes x;
    memcpy(&x, values, sizeof x);
    return (x + BB_INT6_BIAS) & 63;
}

/* Stores 16 values at place 0..3 of the cells, a constant; the other places are unchanged. */
BB_INT6_INLINE void bb_int6_store(void *block, int place, const int8_t *values) {
    bb_int6_block b;
    memcpy(&b, block, sizeof b);
    bb_int6_bytes u = bb_int6_biased(values);
    if (place == 0) {
        b.low = (b.low & 0xc0) | u;
    } else if (place == 1) {
        b.low = (b.low & 0x3f) | (u << 6);
        b.middle = (b.middle & 0xf0) | (u >> 2);
    } else if (place == 2) {
        b.middle = (b.middle & 0x0f) | (u << 4);
        b.high = (b.high & 0xfc) | (u >> 4);
    } else {
        b.high = (b.high & 0x03) | (u << 2);
    }
    memcpy(block, &b, sizeof b);
}

/* Loads the first `places` places. values: (4, 16), `stride` from one place to the next. */
BB_INT6_INLINE void bb_int6_load(int8_t *values, int64_t stride, int64_t places, const void *block) {
    bb_int6_block b;
    memcpy(&b, block, sizeof b);
    bb_int6_bytes u[4] = {b.low & 63, ((b.low >> 6) | (b.middle << 2)) & 63, ((b.middle >> 4) | (b.high << 4)) & 63,
                          b.high >> 2};
    for (int64_t i = 0; i < places; i++) {
        bb_int6_bytes x = u[i] - BB_INT6_BIAS;
        memcpy(values + i * stride, &x, sizeof x);
    }
}

#endif
