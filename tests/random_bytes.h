// SPDX-License-Identifier: MIT
/* Random input for models. */
#ifndef BB_TESTS_RANDOM_BYTES_H
#define BB_TESTS_RANDOM_BYTES_H

#include "core/rng.h"

/* Fills x with the same bytes in every call. */
static inline void fill_bytes(uint8_t *x, int n) {
    for (int i = 0; i < n; i++) x[i] = (uint8_t)bb_rng_below(7, BB_STREAM_TEST, (uint64_t)i, 256);
}

#endif
