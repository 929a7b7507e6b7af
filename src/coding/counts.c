// SPDX-License-Identifier: MIT
#include "coding/counts.h"

/* Weights have 30 fractional bits; a byte less likely than 2^-30 times the likeliest one has weight 0. */
enum { WEIGHT_BITS = 30 };

static const double log2_e = 1.4426950408889634;

/* 2^-f for 0 <= f < 1: the Taylor series of exp(-f ln 2), to 1e-8. Only additions and multiplications of doubles, which IEEE 754
 * defines to the last bit; the build does not fuse them (-ffp-contract=off). */
static inline double exp2_minus(double f) {
    double x = -0.6931471805599453 * f;
    return 1 + x * (1 + x * (1.0 / 2 + x * (1.0 / 6 + x * (1.0 / 24 + x * (1.0 / 120 + x * (1.0 / 720 + x * (1.0 / 5040)))))));
}

static inline uint32_t weight_of(float max, float logit) {
    double t = ((double)max - (double)logit) * log2_e;
    int whole = t < WEIGHT_BITS ? (int)t : WEIGHT_BITS; /* t may be NaN, too */
    double p = t < WEIGHT_BITS ? exp2_minus(t - whole) : 0;
    return (uint32_t)(p * (1 << WEIGHT_BITS)) >> whole;
}

void bb_counts_from_logits(const float *logits, uint32_t *counts) {
    uint64_t sum = 0;
    int best = 0;
    for (int i = 1; i < BB_COUNTS_SYMBOLS; i++)
        if (logits[i] > logits[best]) best = i;
    for (int i = 0; i < BB_COUNTS_SYMBOLS; i++) {
        counts[i] = weight_of(logits[best], logits[i]);
        sum += counts[i];
    }
    /* sum >= 2^30 unless the logits are NaN, so the factor is below 2^26 and the products fit */
    uint64_t spread = BB_COUNTS_TOTAL - BB_COUNTS_SYMBOLS, factor = sum >> WEIGHT_BITS ? (spread << 32) / sum : 0;
    uint32_t total = 0;
    for (int i = 0; i < BB_COUNTS_SYMBOLS; i++) {
        counts[i] = 1 + (uint32_t)((uint64_t)counts[i] * factor >> 32);
        total += counts[i];
    }
    counts[best] += BB_COUNTS_TOTAL - total;
}
