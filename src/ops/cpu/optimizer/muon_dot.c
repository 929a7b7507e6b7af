// SPDX-License-Identifier: MIT
#include "core/math.h"
#include "ops/cpu/linear/dot_product.h"
#include "ops/cpu/optimizer/muon.h"
#include "ops/cpu/vector/transpose.h"

#if defined(__x86_64__)

/* In squares of 16. */
__attribute__((target("avx512f"))) static void transpose(float *y, int64_t y_stride, const float *x, int64_t x_stride,
                                                         int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            int64_t high = bb_min(rows - i, 16), wide = bb_min(columns - j, 16);
            __mmask16 in = (__mmask16)((1u << wide) - 1), out = (__mmask16)((1u << high) - 1);
            __m512i block[16];
            for (int r = 0; r < 16; r++)
                block[r] = r < high ? _mm512_maskz_loadu_epi32(in, x + (i + r) * x_stride + j) : _mm512_setzero_si512();
            bb_transpose16(block);
            for (int c = 0; c < wide; c++) _mm512_mask_storeu_epi32(y + (j + c) * y_stride + i, out, block[c]);
        }
}

static size_t room(bb_device *dev, int64_t m, int64_t n) {
    size_t panels_m = bb_dot_product_room(dev, m, n), panels_n = bb_dot_product_room(dev, n, m);
    return panels_m > panels_n ? panels_m : panels_n; /* (m, m) is smaller than either */
}

static void product(const bb_muon_work *w, bb_dot_factors f) {
    f.a_dtype = f.b_dtype = BB_F32;
    f.room = w->room;
    bb_dot_product(w->dev, &f);
}

static void gram(const bb_muon_work *w) {
    const float *x = w->x;
    if (!w->tall) {
        bb_muon_transpose(w->dev, w->y, x, w->m, w->n);
        x = w->y;
    }
    product(w, (bb_dot_factors){.c = w->a, .a = x, .b = x, .rows = w->m, .columns = w->m, .k = w->n, .lower = true});
}

static void multiply(const bb_muon_work *w, float *out, const float *left, const float *right) {
    product(w, (bb_dot_factors){.c = out, .a = left, .b = right, .rows = w->m, .columns = w->m, .k = w->m, .lower = true});
}

static void apply(bb_muon_work *w) {
    bb_dot_factors f = {.c = w->y, .a = w->q, .b = w->x, .rows = w->m, .columns = w->n, .k = w->m};
    if (w->tall) { /* what is multiplied from the right must be transposed */
        bb_muon_transpose(w->dev, w->y, w->x, w->n, w->m);
        f = (bb_dot_factors){.c = w->x, .a = w->y, .b = w->q, .rows = w->n, .columns = w->m, .k = w->m};
    }
    product(w, f);
    if (w->tall) return;
    float *x = w->y;
    w->y = w->x;
    w->x = x;
}

const bb_muon_set bb_muon_dot = {
    .runs = {2, 3}, .transpose = transpose, .room = room, .gram = gram, .multiply = multiply, .apply = apply};

#endif
