// SPDX-License-Identifier: MIT
/* Philox4x32-10, counter-based: every random number is a pure function of (seed, stream, index). No state.
 * Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#ifndef BB_CORE_RNG_H
#define BB_CORE_RNG_H

#include <stdint.h>

/* Streams never overlap. Parameter tensors use BB_STREAM_INIT + their index in the parameter table. */
enum {
    BB_STREAM_DATA = 1,
    BB_STREAM_SAMPLER = 2,
    BB_STREAM_BITLINEAR = 3,
    BB_STREAM_BENCH = 4,
    BB_STREAM_TEST = 5,
    BB_STREAM_SAMPLER_REST = 6, /* the lower bits of the sampler's numbers */
    BB_STREAM_EPOCH_OFFSETS = 7,
    BB_STREAM_EPOCH_WINDOWS = 8,
    BB_STREAM_PERMUTATION = 9,
    BB_STREAM_INIT = 1 << 16
};

void bb_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
uint64_t bb_rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
/* [0, 1), 53 bits. */
double bb_rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* [0, n), unbiased to within 2^-64 (multiply-high). n >= 1. */
uint64_t bb_rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);
/* Returns the image of i < n under a permutation of 0 … n-1 selected by `key`. No table: a Feistel network over the next power
 * of four, repeated until the result is below n (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). */
uint64_t bb_rng_permute(uint64_t key, uint64_t i, uint64_t n);
/* N(0, 1), Box-Muller. */
double bb_rng_normal(uint64_t seed, uint64_t stream, uint64_t index);

#endif
