// SPDX-License-Identifier: MIT
/* AMX: sixteen rows cost a third more than eight. A run of four blocks, expanded, is a right operand of 16 k-steps for each of
 * the panel's four groups of 16 rows. */
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"
#include "ops/cpu/vector/amx.h"

#if defined(__x86_64__)

enum {
    MIN_ROWS = 8,          /* with fewer rows, VNNI is as fast */
    RUN = 4,               /* blocks */
    GROUPS = 4,            /* of BB_AMX_ROWS of a panel's rows */
    BUFFERS = 4,           /* used in turn, so that expanding does not wait for products */
    PREFETCH_BYTES = 10240 /* as in ternary_dot_vnni.c */
};
_Static_assert(RUN *BB_BLOCK_COLUMNS == BB_AMX_BYTES && GROUPS * BB_AMX_ROWS == BB_PANEL, "a run fills the registers");

BB_AMX_TARGET static void add_run(const int8_t *a, int64_t a_stride, const uint8_t *k_steps) {
    BB_AMX_LOAD(4, a, a_stride);
    BB_AMX_LOAD(6, k_steps, BB_K_STEP_BYTES);
    BB_AMX_LOAD(7, k_steps + BB_AMX_BYTES, BB_K_STEP_BYTES);
    BB_AMX_INT8(0, 4, 6);
    BB_AMX_INT8(1, 4, 7);
    BB_AMX_LOAD(6, k_steps + 2 * BB_AMX_BYTES, BB_K_STEP_BYTES);
    BB_AMX_LOAD(7, k_steps + 3 * BB_AMX_BYTES, BB_K_STEP_BYTES);
    BB_AMX_INT8(2, 4, 6);
    BB_AMX_INT8(3, 4, 7);
}

BB_AMX_TARGET void bb_ternary_dot_amx(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                      const uint8_t *panel) {
    if (rows < MIN_ROWS || rows > BB_AMX_ROWS) {
        bb_ternary_dot_vnni(sums, a, a_stride, rows, blocks, panel);
        return;
    }
    _Alignas(64) uint8_t k_steps[BUFFERS][RUN * 4 * BB_K_STEP_BYTES];
    bb_amx_configure((int)rows, (int)rows); /* zeroes all sums */
    int64_t whole = blocks / RUN, rest = blocks % RUN;
    for (int64_t i = 0; i < whole; i++, a += BB_AMX_BYTES, panel += RUN * BB_BLOCK_BYTES) {
        for (int line = 0; line < RUN * BB_BLOCK_BYTES; line += 64) __builtin_prefetch(panel + PREFETCH_BYTES + line, 0, 2);
        bb_ternary_avx512.expand(k_steps[i % BUFFERS], panel, RUN);
        add_run(a, a_stride, k_steps[i % BUFFERS]);
    }
    if (rest) { /* reads nothing past the last column */
        _Alignas(64) int8_t last[BB_AMX_ROWS][BB_AMX_BYTES] = {{0}};
        for (int64_t r = 0; r < rows; r++) memcpy(last[r], a + r * a_stride, (size_t)(rest * BB_BLOCK_COLUMNS));
        memset(k_steps[0], 0, sizeof k_steps[0]);
        bb_ternary_avx512.expand(k_steps[0], panel, rest);
        add_run(last[0], BB_AMX_BYTES, k_steps[0]);
    }
    BB_AMX_STORE(0, sums, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(1, sums + BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(2, sums + 2 * BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(3, sums + 3 * BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    bb_amx_close();
}

#endif
