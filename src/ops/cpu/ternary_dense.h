/* The dense layout of a ternary matrix: 1.6 bits a weight instead of 2, for what only forward products read. Where few rows are
 * multiplied, memory decides, and a fifth less of it is read; taking the codes apart hides behind that. Five blocks of a panel
 * (ternary.h), a byte of which is four codes, lie in the bytes of four: byte j of block i is
 *     85 times code i of byte j of the fifth block, plus the number that the codes of byte j of block i are in base 3.
 * What is left over after the last five is as in ternary.h. SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_TERNARY_DENSE_H
#define BB_OPS_CPU_TERNARY_DENSE_H

#include "ops/cpu/ternary.h"

/* Whether this processor decodes sooner with it: one that has AVX-512 VBMI, and permutes the bytes of two registers by a single
 * operation, as AMD's do. */
bool bb_ternary_dense_pays(bb_cpu_level level);

/* A panel of `blocks` blocks. */
void bb_ternary_dense_pack(bb_cpu_level level, uint8_t *dense, const uint8_t *panel, int64_t blocks);
/* Blocks of it from one on that begins five, or the first. Returns where the next five begin in the dense panel. */
const uint8_t *bb_ternary_dense_unpack(uint8_t *panel, const uint8_t *dense, int64_t blocks);

#endif
