// SPDX-License-Identifier: MIT
/* Products in bf16 with f32 sums on AVX-512 BF16 or AMX, and what prepares their operands. A k-step of a panel has 2 k, of 4
 * bytes per column (dot.h). */
#ifndef BB_OPS_CPU_DOT_BF16_H
#define BB_OPS_CPU_DOT_BF16_H

#include "ops/cpu/linear/dot.h"

#if defined(__x86_64__)

/* Where AT B is added: what differs between instruction sets. */
typedef struct bb_bf16_set {
    int64_t k_steps; /* k_steps of add() must be a multiple of this */
    /* largest tile of C: its rows and columns, whose sums stay in the second-level cache together with the rows of `tokens`
     * tokens, which are packed anew for each tile */
    int64_t rows, columns, tokens;
    /* Called on each thread before and after these products; NULL: nothing to do. */
    void (*open)(void);
    void (*close)(void);
    /* Adds sum_k a * b.  panel: bf16; next: the panel of the next call, or NULL. left: `rows` rows, packed by pack_left: */
    void (*add)(bb_dot_sums out, const uint32_t *left, int64_t rows, int64_t k_steps, const void *panel, const void *next);
    /* packs x (tokens, columns): k-step i has tokens 2i and 2i + 1, zeros for missing ones. left: `k_steps` times the set's
     * `rows` words. x->s may be NULL, for ones. */
    void (*pack_left)(uint32_t *left, const bb_dot_tokens *x, int64_t k_steps);
} bb_bf16_set;

extern const bb_bf16_set bb_bf16_avx512, bb_bf16_amx;

/* A run of k with its own scale. */
typedef struct bb_dot_part {
    const bb_bf16 *a;
    const void *panel; /* bf16 */
    int64_t k_steps;
    float g;
} bb_dot_part;

/* Rows times panels, and what prepares operands. */
typedef struct bb_bf16_operands {
    /* y = sum over parts of g * (sum_k a * b). Rows of each part's a are a_stride elements apart. */
    void (*multiply)(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts, int count);
    /* pairs[p * pairs_stride + i] = (s[2p] * x[2p,i], s[2p+1] * x[2p+1,i]) in bf16, for 0 <= 2p < tokens; x may be BB_I8 too.
     * An odd last token is paired with zeros. Writes the columns rounded up to a multiple of 16, padded with zeros. s NULL:
     * ones. */
    void (*pack_pairs)(uint32_t *pairs, int64_t pairs_stride, const bb_dot_tokens *x);
    /* Converts expanded k-steps of a panel of ternary.h (64 rows of W, as columns of B) to bf16: two k-steps from each. */
    void (*expand_panel)(bb_bf16 *out, const uint8_t *from, int64_t k_steps);
    /* Transposes the first 64 columns of these 64 rows into rows of B, with the rows of W as k: 32 k-steps. Missing columns are
     * zero. */
    void (*expand_rows)(bb_bf16 *out, const uint8_t *from, int64_t columns);
} bb_bf16_operands;

extern const bb_bf16_operands bb_bf16_operands_avx512;

#endif

#endif
