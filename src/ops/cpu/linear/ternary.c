// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/ternary.h"

#include "ops/cpu/vector/simd.h"

BB_SIMD_INLINE void expand_body(uint8_t *k_steps, const uint8_t *panel, int64_t blocks) {
    for (int64_t i = 0; i < blocks; i++, panel += BB_BLOCK_BYTES)
        for (int step = 0; step < 4; step++, k_steps += BB_K_STEP_BYTES)
#pragma omp simd
            for (int j = 0; j < BB_K_STEP_BYTES; j++) k_steps[j] = (uint8_t)(panel[j] >> 2 * step & 3);
}
BB_SIMD_VARIANTS(expand, (uint8_t * k_steps, const uint8_t *panel, int64_t blocks), (k_steps, panel, blocks))

void bb_ternary_expand(bb_simd simd, uint8_t *k_steps, const uint8_t *panel, int64_t blocks) {
    expand_for(simd)(k_steps, panel, blocks);
}
