// SPDX-License-Identifier: MIT
/* How the cpu backend keeps a ternary matrix (N,K): at 2 bits a weight, in panels of 64 rows, as the integer dot products read
 * it. Those take a step at a time: four columns k of each of the 64 rows, a byte q + 1 each, byte row*4 + k%4 of 256. Four
 * steps share a block of as many bytes, step i in the bits 2i and 2i+1. What lies past the last row or column is zero. Segments
 * begin a panel, so that all rows of one share a scale. ternary_dense.h has another layout. */
#ifndef BB_OPS_CPU_TERNARY_H
#define BB_OPS_CPU_TERNARY_H

#include "ops/cpu/device/cpu.h"

/* The dense layout (ternary_dense.h) has every five blocks' codes in four blocks' bytes. */
enum { BB_DENSE_OF = 5, BB_DENSE_IN = 4 };

enum { BB_PANEL = 64, BB_BLOCK_COLUMNS = 16, BB_BLOCK_BYTES = 4 * BB_PANEL, BB_STEP_BYTES = 4 * BB_PANEL };

typedef struct bb_ternary_panel {
    int64_t first, rows; /* rows first .. first+rows-1 of the matrix, at most BB_PANEL */
    int segment;
    uint8_t *data;
} bb_ternary_panel;

/* Of a panel. */
static inline int64_t bb_ternary_blocks(const bb_ternary *t) { return (t->k + BB_BLOCK_COLUMNS - 1) / BB_BLOCK_COLUMNS; }
static inline int64_t bb_ternary_steps(const bb_ternary *t) { return 4 * bb_ternary_blocks(t); }
static inline size_t bb_ternary_panel_bytes(const bb_ternary *t) {
    int64_t blocks = bb_ternary_blocks(t);
    if (t->dense) blocks = blocks / BB_DENSE_OF * BB_DENSE_IN + blocks % BB_DENSE_OF;
    return (size_t)blocks * BB_BLOCK_BYTES;
}

static inline int64_t bb_panels_of(int64_t rows) { return (rows + BB_PANEL - 1) / BB_PANEL; }

static inline int64_t bb_segment_begin(const bb_ternary *t, int segment) { return segment ? t->segment_end[segment - 1] : 0; }

static inline int64_t bb_ternary_panels(const bb_ternary *t) {
    int64_t panels = 0;
    for (int i = 0; i < t->segments; i++) panels += bb_panels_of(t->segment_end[i] - bb_segment_begin(t, i));
    return panels;
}

/* 0 <= index < bb_ternary_panels */
static inline bb_ternary_panel bb_ternary_panel_at(const bb_ternary *t, int64_t index) {
    int64_t in_segment = index, begin = 0;
    int i = 0;
    for (;; i++) {
        int64_t panels = bb_panels_of(t->segment_end[i] - begin);
        if (in_segment < panels) break;
        in_segment -= panels;
        begin = t->segment_end[i];
    }
    int64_t first = begin + in_segment * BB_PANEL, left = t->segment_end[i] - first;
    return (bb_ternary_panel){.first = first,
                              .rows = left < BB_PANEL ? left : BB_PANEL,
                              .segment = i,
                              .data = (uint8_t *)t->data + (size_t)index * bb_ternary_panel_bytes(t)};
}

/* The steps of `blocks` blocks: four of BB_STEP_BYTES each. */
void bb_ternary_expand(bb_simd simd, uint8_t *steps, const uint8_t *panel, int64_t blocks);
/* The same of all of t's blocks, from a panel in t's layout. */
void bb_ternary_expand_panel(bb_simd simd, uint8_t *steps, const bb_ternary *t, const uint8_t *panel);
/* q of a row and column of expanded steps. */
static inline int8_t bb_ternary_value(const uint8_t *steps, int64_t row, int64_t k) {
    return (int8_t)(steps[(k / 4 * BB_PANEL + row) * 4 + k % 4] - 1);
}

#endif
