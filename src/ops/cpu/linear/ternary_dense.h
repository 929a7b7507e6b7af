// SPDX-License-Identifier: MIT
/* The dense layout of a ternary matrix: 1.6 bits a weight instead of 2, for what only forward products read. Where few rows are
 * multiplied, memory decides, and a fifth less of it is read; taking the codes apart hides behind that.
 * It is used on AMD's processors with AVX-512 VBMI, which look up four of five codes by one byte permutation; others take
 * several instructions for that, and keep two bits.
 *
 * A panel has 64 rows in four groups of 16, and blocks of four steps of four columns (ternary.h). Here a step of a block is 64
 * bytes, byte l * 4 + k % 4 holding column k's codes of the rows l, 16 + l, 32 + l, 48 + l. Five blocks, of 4 * 64 bytes each,
 * lie in the bytes of four: step s of block i holds the number that its four codes are in base 3, the first group's the lowest
 * digit, plus 85 times the code that group s has in step i of the fifth block. What is left over after the last five has two
 * bits a code, the first group's the lowest. */
#ifndef BB_OPS_CPU_TERNARY_DENSE_H
#define BB_OPS_CPU_TERNARY_DENSE_H

#include "ops/cpu/linear/ternary.h"

/* A panel of `blocks` blocks, from one in the layout of ternary.h. */
void bb_ternary_dense_pack(bb_simd simd, uint8_t *dense, const uint8_t *panel, int64_t blocks);
/* bb_ternary_expand of a dense panel. */
void bb_ternary_dense_expand(bb_simd simd, uint8_t *steps, const uint8_t *dense, int64_t blocks);

#endif
