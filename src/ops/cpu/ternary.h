/* How the cpu backend keeps a ternary matrix (N,K): in panels of 64 rows, as the integer dot products read it. A panel holds,
 * for each four columns k, the four values of each of its rows: byte (k/4*64 + row)*4 + k%4 is q + 1. Packed, four such groups
 * of columns share their bytes: of byte (k/16*64 + row)*4 + k%4 the bits 2i and 2i+1, i = k/4%4. What lies past the last row or
 * column is zero. Segments begin a panel, so that all rows of one share a scale.
 * SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_TERNARY_H
#define BB_OPS_CPU_TERNARY_H

#include "ops/cpu/cpu.h"

enum { BB_PANEL = 64 };

typedef struct bb_ternary_panel {
    int64_t first, rows; /* rows first .. first+rows-1 of the matrix, at most BB_PANEL */
    int segment;
    uint8_t *data;
} bb_ternary_panel;

/* Groups of four columns, in a packed matrix as many as whole bytes hold. */
static inline int64_t bb_ternary_steps(const bb_ternary *t) { return t->packed ? (t->k + 15) / 16 * 4 : (t->k + 3) / 4; }

static inline size_t bb_ternary_panel_bytes(const bb_ternary *t) {
    return (size_t)bb_ternary_steps(t) * (t->packed ? BB_PANEL : 4 * BB_PANEL);
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

#endif
