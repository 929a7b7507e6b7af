// SPDX-License-Identifier: MIT
/* Register blocks of attention for training with VNNI. Tiles consist of whole ones: rows padded to MR, columns to VL, both with
 * zeros. A right operand (K, N) is packed in panels of PANEL columns: element (k, n) at (n / PANEL * k_steps + k) * PANEL + n %
 * PANEL. */
#ifndef BB_OPS_CPU_ATTENTION_GEMM_H
#define BB_OPS_CPU_ATTENTION_GEMM_H

#include "ops/cpu/attention/attention_simd.h"

enum { ATTENTION_MR = 4 /* rows of a register block; it is NR vectors wide */, PANEL = NR * VL };

enum { PREFETCH_ROWS = 16 };

/* Prefetches `bytes` at p. Rows are a whole activation row apart, too far for hardware prefetching. */
static inline void prefetch_row(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += BB_ALIGN) __builtin_prefetch((const char *)p + i);
}

#endif
