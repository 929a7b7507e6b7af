// SPDX-License-Identifier: MIT
/* Finds values that are not finite in f32 data. */
#ifndef BB_CORE_FINITE_H
#define BB_CORE_FINITE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Returns the index of the first of n f32 values that is NaN or infinite, or n if all are finite. x need not be aligned. */
static inline int64_t bb_find_not_finite(const void *x, int64_t n) {
    const unsigned char *bytes = x;
    uint32_t bits, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        memcpy(&bits, bytes + i * (int64_t)sizeof bits, sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    for (int64_t i = 0; largest >= 0x7f800000u && i < n; i++) {
        memcpy(&bits, bytes + i * (int64_t)sizeof bits, sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u) return i;
    }
    return n;
}

/* For messages. `value` is not finite. */
static inline const char *bb_not_finite_name(float value) { return isnan(value) ? "NaN" : "infinite"; }

#endif
