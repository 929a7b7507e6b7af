// SPDX-License-Identifier: MIT
#if defined(__x86_64__)

#include "ops/cpu/optimizer/muon_set.h"
#include "ops/cpu/vector/amx.h"

enum { SIDE = BB_MUON_SIDE, HALF = SIDE / 2, ROW_BYTES = SIDE * 4 };

static void multiply(float *c, bool add, const uint32_t *left, int64_t stride, const uint32_t *right, int64_t k_tiles) {
    if (add) {
        BB_AMX_LOAD(0, c, ROW_BYTES);
        BB_AMX_LOAD(1, c + HALF, ROW_BYTES);
        BB_AMX_LOAD(2, c + HALF * SIDE, ROW_BYTES);
        BB_AMX_LOAD(3, c + HALF * SIDE + HALF, ROW_BYTES);
    } else {
        BB_AMX_ZERO(0);
        BB_AMX_ZERO(1);
        BB_AMX_ZERO(2);
        BB_AMX_ZERO(3);
    }
    for (int64_t i = 0; i < k_tiles; i++, left += HALF, right += HALF * SIDE) {
        BB_AMX_LOAD(6, right, ROW_BYTES);
        BB_AMX_LOAD(4, left, stride * 4);
        BB_AMX_LOAD(7, right + HALF, ROW_BYTES);
        BB_AMX_LOAD(5, left + HALF * stride, stride * 4);
        BB_AMX_BF16(0, 4, 6);
        BB_AMX_BF16(1, 4, 7);
        BB_AMX_BF16(2, 5, 6);
        BB_AMX_BF16(3, 5, 7);
    }
    BB_AMX_STORE(0, c, ROW_BYTES);
    BB_AMX_STORE(1, c + HALF, ROW_BYTES);
    BB_AMX_STORE(2, c + HALF * SIDE, ROW_BYTES);
    BB_AMX_STORE(3, c + HALF * SIDE + HALF, ROW_BYTES);
}

const bb_muon_blocks bb_muon_blocks_amx = {.open = bb_amx_open, .close = bb_amx_close, .multiply = multiply};

#endif
