// SPDX-License-Identifier: MIT
/* The dense layout of a ternary matrix: 1.6 bits per weight instead of 2, for matrices that only forward products read. Small
 * batches are limited by memory, of which a fifth less is read; decoding hides behind it. It is used on AMD's processors with
 * AVX-512 VBMI, which look up four of five codes with one byte permutation; others need several instructions and keep two bits.
 *
 * A panel has 64 rows in four groups of 16, and blocks of four k-steps of four columns (ternary.h). Here a k-step of a block is
 * 64 bytes; byte l * 4 + k % 4 holds column k's codes of rows l, 16 + l, 32 + l, 48 + l. Five blocks, of 4 * 64 bytes each, are
 * stored in the bytes of four: k-step s of block i holds the number that its four codes form in base 3, the first group's being
 * the lowest digit, plus 85 times the code of group s in k-step i of the fifth block. The blocks left over after the last five
 * have two bits per code, the first group's the lowest. */
#ifndef BB_OPS_CPU_TERNARY_DENSE_H
#define BB_OPS_CPU_TERNARY_DENSE_H

#include "ops/cpu/linear/ternary.h"
#include "ops/cpu/linear/ternary_set.h"

/* Packs a panel of `blocks` blocks from the layout of ternary.h. */
void bb_ternary_dense_pack(const bb_ternary_set *set, uint8_t *dense, const uint8_t *panel, int64_t blocks);
/* bb_ternary_set's expand for a dense panel, where kernels.ternary_dot_dense is. */
void bb_ternary_dense_expand(uint8_t *k_steps, const uint8_t *dense, int64_t blocks);

#endif
