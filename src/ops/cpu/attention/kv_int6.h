// SPDX-License-Identifier: MIT
/* Blocks of the cache in six bits, 16 cells of four codes each in 48 bytes (kv_layout.h), and what was put into them. */
#ifndef BB_OPS_CPU_KV_INT6_H
#define BB_OPS_CPU_KV_INT6_H

#include <stdint.h>
#include <string.h>

enum { BB_INT6_BIAS = 32, BB_INT6_MOST = 31 };

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

/* Puts 16 values into the cells' place 0..3, a constant; the other places stay as they are. */
BB_INT6_INLINE void bb_int6_put(void *block, int place, const int8_t *values) {
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

/* values: (4, 16), those of place i `stride` after those of place i - 1; of the first `places`. */
BB_INT6_INLINE void bb_int6_take(int8_t *values, int64_t stride, int64_t places, const void *block) {
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
