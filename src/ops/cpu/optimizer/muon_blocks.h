// SPDX-License-Identifier: MIT
/* Products of 32 x 32 blocks in bf16 with f32 sums, for muon_bf16.c: one set of micro-kernels per instruction set.
 *
 * A matrix (rows, k) is stored in two forms, padded to whole blocks with zeros. As a left operand its rows are in order, `stride`
 * elements apart. As a right operand (k, columns) it is in panels of 32 columns, k / 2 rows of 32 words each: word c of row p
 * has elements 2p and 2p + 1 of column c. So the two forms of a matrix and its transpose are transposes of words. */
#ifndef BB_OPS_CPU_MUON_BLOCKS_H
#define BB_OPS_CPU_MUON_BLOCKS_H

#include "ops/cpu/device/cpu.h"

#if defined(__x86_64__)

enum { BB_MUON_SIDE = 32, BB_MUON_BLOCK = BB_MUON_SIDE * BB_MUON_SIDE };

/* Both forms of a symmetric matrix. */
typedef struct bb_muon_symmetric {
    bb_bf16 *rows;
    int64_t stride;
    uint32_t *panels;
    int64_t panel_words;
} bb_muon_symmetric;

typedef struct bb_muon_blocks {
    /* Called on each thread before and after multiply(); NULL: nothing to do. */
    void (*open)(void);
    void (*close)(void);
    /* c (32, 32) = (add ? c : 0) + left right, over k_tiles times 32 k; right: the panel's row for the first of these. */
    void (*multiply)(float *c, bool add, const bb_bf16 *left, int64_t stride, const uint32_t *right, int64_t k_tiles);
} bb_muon_blocks;

typedef struct bb_muon_forms {
    /* Rounds block c to a form at rows i, columns j, and its transpose at rows j, columns i. */
    void (*store_rows)(const bb_muon_symmetric *out, int64_t i, int64_t j, const float *c);
    void (*store_panels)(const bb_muon_symmetric *out, int64_t i, int64_t j, const float *c);
    /* c = b a + c c, blocks; plus `diagonal` on the diagonal */
    void (*polynomial)(float *c, const float *a, float diagonal);
    /* Transposes 16 rows of 16 words; strides in words. */
    void (*transpose)(uint32_t *to, int64_t to_stride, const uint32_t *from, int64_t from_stride);
} bb_muon_forms;

extern const bb_muon_blocks bb_muon_blocks_avx512_bf16, bb_muon_blocks_amx;
extern const bb_muon_forms bb_muon_forms_avx512_bf16;

#endif

#endif
