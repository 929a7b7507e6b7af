// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"

/* One k-step: 4 columns of 64 rows. The sum of four products of codes 0..2 and int8 fits in 16 bits. */
static inline void k_step(int32_t *restrict sums, const int8_t *restrict a, const uint8_t *restrict codes) {
    for (int n = 0; n < BB_PANEL; n++) {
        const uint8_t *four = codes + 4 * n;
        sums[n] += (int16_t)(a[0] * four[0] + a[1] * four[1] + a[2] * four[2] + a[3] * four[3]);
    }
}

void bb_ternary_dot_generic(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                            const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    for (int64_t i = 0; i < blocks; i++, a += BB_BLOCK_COLUMNS, panel += BB_BLOCK_BYTES) {
        uint8_t k_steps[4 * BB_K_STEP_BYTES];
        bb_ternary_generic.expand(k_steps, panel, 1);
        for (int c = 0; c < 4; c++)
            for (int64_t r = 0; r < rows; r++)
                k_step(sums + r * BB_PANEL, a + r * a_stride + 4 * c, k_steps + c * BB_K_STEP_BYTES);
    }
}
