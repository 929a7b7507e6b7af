/* SPDX-License-Identifier: MIT */
#include "ops/cpu/ternary_dot.h"

bb_ternary_dot *bb_ternary_dot_for(bb_cpu_level level) {
#if defined(__x86_64__)
    if (level >= BB_CPU_AVX512_VNNI) return bb_ternary_dot_vnni;
    if (level >= BB_CPU_AVX2) return bb_ternary_dot_avx2;
#endif
    (void)level;
    return bb_ternary_dot_generic;
}

enum { STEP_BYTES = 4 * BB_PANEL, CRUMBS = 4 };

/* One step: 4 columns of 64 rows. Four products of codes 0..2 and int8 fit 16 bits. */
static inline void step(int32_t *restrict sums, const int8_t *restrict a, const uint8_t *restrict codes) {
    for (int n = 0; n < BB_PANEL; n++) {
        const uint8_t *four = codes + 4 * n;
        sums[n] += (int16_t)(a[0] * four[0] + a[1] * four[1] + a[2] * four[2] + a[3] * four[3]);
    }
}

void bb_ternary_dot_generic(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t steps, const uint8_t *panel,
                            bool packed) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    if (!packed) {
        for (int64_t i = 0; i < steps; i++, panel += STEP_BYTES)
            for (int64_t r = 0; r < rows; r++) step(sums + r * BB_PANEL, a + r * a_stride + 4 * i, panel);
        return;
    }
    for (int64_t i = 0; i < steps; i += CRUMBS, panel += STEP_BYTES)
        for (int c = 0; c < CRUMBS; c++) {
            uint8_t codes[STEP_BYTES];
            for (int j = 0; j < STEP_BYTES; j++) codes[j] = (uint8_t)(panel[j] >> 2 * c & 3);
            for (int64_t r = 0; r < rows; r++) step(sums + r * BB_PANEL, a + r * a_stride + 4 * (i + c), codes);
        }
}
