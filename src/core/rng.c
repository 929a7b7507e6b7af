// SPDX-License-Identifier: MIT
/* Philox4x32-10 and the distributions drawn from it. */
#include "core/rng.h"

#include <math.h>

/* The counter is (index, stream), the key is the seed: two streams share no counter, so they share no output block. */
void bb_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static uint64_t join_words(uint32_t low, uint32_t high) { return (uint64_t)high << 32 | low; }

static double unit_interval(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }

uint64_t bb_rng_u64(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t r[4];
    bb_philox(seed, stream, index, r);
    return join_words(r[0], r[1]);
}

double bb_rng_uniform(uint64_t seed, uint64_t stream, uint64_t index) { return unit_interval(bb_rng_u64(seed, stream, index)); }

uint64_t bb_rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n) {
    return (uint64_t)((unsigned __int128)bb_rng_u64(seed, stream, index) * n >> 64);
}

uint64_t bb_rng_permute(uint64_t key, uint64_t i, uint64_t n) {
    enum { ROUNDS = 8 };
    int half = 1; /* bits of each side; the domain, 4^half, is below 4n */
    while (half < 32 && n > (uint64_t)1 << 2 * half) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t mixed = left ^ (bb_rng_u64(key, BB_STREAM_PERMUTATION, round << 32 | right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

double bb_rng_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t r[4];
    bb_philox(seed, stream, index, r);
    double radius = 1.0 - unit_interval(join_words(r[0], r[1])); /* (0, 1]: the logarithm stays finite */
    double turn = unit_interval(join_words(r[2], r[3]));
    return sqrt(-2.0 * log(radius)) * cos(6.283185307179586 * turn);
}
