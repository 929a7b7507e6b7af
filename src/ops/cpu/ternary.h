/* How the cpu backend keeps a ternary matrix (N,K): int8 in slabs of rows, each packed as the integer product wants it, for the
 * forward pass; two bits a weight, row-major, from which the backward pass expands bf16; and per row what the epilogue needs.
 * SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_TERNARY_H
#define BB_OPS_CPU_TERNARY_H

#include "ops/cpu/gemm.h"

enum { BB_SLAB = 512 }; /* rows of W (columns of the product) that a tile covers */

typedef struct bb_ternary_parts {
    int64_t slabs;
    size_t slab_bytes; /* packed bytes of a full slab; the last one may be smaller */
    uint8_t *packed;
    uint8_t *rows;    /* (N, ceil(K/4)): value + 1 in bits 2j, 2j+1 of byte k/4, j = k % 4 */
    int32_t *offsets; /* (N): 128 * sum of the row, what unsigned activations (code + 128) add to the product */
    float *scales;    /* (N): the segment's scale */
    size_t bytes;
} bb_ternary_parts;

/* Where the parts of data (may be NULL: sizes only) are. */
bb_ternary_parts bb_ternary_locate(bb_device *dev, void *data, int64_t N, int64_t K);

/* Rows of the slab that begins at row n0. */
static inline int64_t bb_slab_rows(int64_t N, int64_t n0) { return N - n0 < BB_SLAB ? N - n0 : BB_SLAB; }

/* Rows first .. first+n-1 as bf16 (dtype BB_BF16) or f32, (n,K) row-major. One thread. */
void bb_ternary_expand(const bb_ternary_parts *p, int64_t K, int64_t first, int64_t n, bb_dtype dtype, void *out);

#endif
