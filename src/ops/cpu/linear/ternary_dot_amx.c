// SPDX-License-Identifier: MIT
/* AMX: sixteen rows for a third more than eight. A run of four blocks, expanded, is a right side of 16 steps for
 * each of the panel's four groups of 16 rows. */
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/amx.h"

#if defined(__x86_64__)

enum {
    LEAST = 8,    /* rows; fewer are read as fast without */
    RUN = 4,      /* blocks */
    GROUPS = 4,   /* of BB_AMX_ROWS of a panel's rows */
    RUNS = 4,     /* buffers that take turns, so that expanding does not wait for products */
    AHEAD = 10240 /* as in ternary_dot_vnni.c */
};
_Static_assert(RUN *BB_BLOCK_COLUMNS == BB_AMX_BYTES && GROUPS * BB_AMX_ROWS == BB_PANEL, "a run fills the registers");

BB_AMX_TARGET static void add_run(const int8_t *a, int64_t a_stride, const uint8_t *steps) {
    BB_AMX_LOAD(4, a, a_stride);
    BB_AMX_LOAD(6, steps, BB_STEP_BYTES);
    BB_AMX_LOAD(7, steps + BB_AMX_BYTES, BB_STEP_BYTES);
    BB_AMX_INT8(0, 4, 6);
    BB_AMX_INT8(1, 4, 7);
    BB_AMX_LOAD(6, steps + 2 * BB_AMX_BYTES, BB_STEP_BYTES);
    BB_AMX_LOAD(7, steps + 3 * BB_AMX_BYTES, BB_STEP_BYTES);
    BB_AMX_INT8(2, 4, 6);
    BB_AMX_INT8(3, 4, 7);
}

BB_AMX_TARGET void bb_ternary_dot_amx(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                      const uint8_t *panel) {
    if (rows < LEAST || rows > BB_AMX_ROWS) {
        bb_ternary_dot_vnni(sums, a, a_stride, rows, blocks, panel);
        return;
    }
    _Alignas(64) uint8_t steps[RUNS][RUN * 4 * BB_STEP_BYTES];
    bb_amx_configure((int)rows, (int)rows); /* all sums are zero */
    int64_t whole = blocks / RUN, rest = blocks % RUN;
    for (int64_t i = 0; i < whole; i++, a += BB_AMX_BYTES, panel += RUN * BB_BLOCK_BYTES) {
        for (int line = 0; line < RUN * BB_BLOCK_BYTES; line += 64) __builtin_prefetch(panel + AHEAD + line, 0, 2);
        bb_ternary_expand(BB_SIMD_AVX512, steps[i % RUNS], panel, RUN);
        add_run(a, a_stride, steps[i % RUNS]);
    }
    if (rest) { /* nothing past the last column is read */
        _Alignas(64) int8_t last[BB_AMX_ROWS][BB_AMX_BYTES] = {{0}};
        for (int64_t r = 0; r < rows; r++) memcpy(last[r], a + r * a_stride, (size_t)(rest * BB_BLOCK_COLUMNS));
        memset(steps[0], 0, sizeof steps[0]);
        bb_ternary_expand(BB_SIMD_AVX512, steps[0], panel, rest);
        add_run(last[0], BB_AMX_BYTES, steps[0]);
    }
    BB_AMX_STORE(0, sums, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(1, sums + BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(2, sums + 2 * BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    BB_AMX_STORE(3, sums + 3 * BB_AMX_WORDS, BB_PANEL * sizeof *sums);
    bb_amx_close();
}

#endif
