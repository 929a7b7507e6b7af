// SPDX-License-Identifier: MIT
/* AMX: eight tile registers of 16 rows of 64 bytes. Each thread configures their shapes before use and releases them when done.
 * For processors that have AMX. In assembler, with a memory clobber: GCC 12's intrinsics for loading tiles lack it, and
 * preceding stores may be reordered past the load. */
#ifndef BB_OPS_CPU_AMX_H
#define BB_OPS_CPU_AMX_H

#include <stdint.h>

#if defined(__x86_64__)

enum { BB_AMX_ROWS = 16, BB_AMX_BYTES = 64, BB_AMX_WORDS = 16 };

#define BB_AMX_TARGET __attribute__((target("amx-tile,amx-int8,amx-bf16")))

/* The operand of LDTILECFG. */
typedef struct bb_amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} bb_amx_config;

/* Registers 0..3 are sums, 4 and 5 left operands, 6 and 7 right operands: 0 = 4 * 6, 1 = 4 * 7, 2 = 5 * 6, 3 = 5 * 7. The left
 * operands and their sums have `rows0` and `rows1` rows, 1..16 each. All are zeroed. */
static inline void bb_amx_configure(int rows0, int rows1) {
    bb_amx_config c = {.palette = 1};
    const int rows[8] = {rows0, rows0, rows1, rows1, rows0, rows1, BB_AMX_ROWS, BB_AMX_ROWS};
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = BB_AMX_BYTES;
        c.rows[i] = (uint8_t)rows[i];
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(c));
}

static inline void bb_amx_open(void) { bb_amx_configure(BB_AMX_ROWS, BB_AMX_ROWS); }
static inline void bb_amx_close(void) { __asm__ volatile("tilerelease" : :); }

#define BB_AMX_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
#define BB_AMX_LOAD(tile, from, stride_bytes)                                                                                  \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((int64_t)(stride_bytes)) : "memory")
#define BB_AMX_STORE(tile, to, stride_bytes)                                                                                   \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((int64_t)(stride_bytes)) : "memory")
/* sums += left (signed bytes) * right (unsigned bytes), or in bf16 with f32 sums */
#define BB_AMX_INT8(sums, left, right) __asm__ volatile("tdpbsud %%tmm" #right ", %%tmm" #left ", %%tmm" #sums : :)
/* Likewise with signed bytes on both sides, or with unsigned bytes on the left and signed ones on the right. */
#define BB_AMX_SIGNED(sums, left, right) __asm__ volatile("tdpbssd %%tmm" #right ", %%tmm" #left ", %%tmm" #sums : :)
#define BB_AMX_UNSIGNED(sums, left, right) __asm__ volatile("tdpbusd %%tmm" #right ", %%tmm" #left ", %%tmm" #sums : :)
#define BB_AMX_BF16(sums, left, right) __asm__ volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sums : :)

#endif

#endif
