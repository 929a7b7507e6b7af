// SPDX-License-Identifier: MIT
/* How the cpu backend stores a ternary matrix (N,K): 2 bits per weight, in panels of 64 rows, in the order in which the integer
 * dot products read it. These take one k-step at a time: four columns k of each of the 64 rows, as bytes q + 1, byte row*4 +
 * k%4 of 256. Four k-steps share a block of 256 bytes, k-step i in bits 2i and 2i+1. Padding past the last row or column is
 * zero. Each segment begins a panel, so that all rows of a panel share a scale. ternary_dense.h has another layout. */
#ifndef BB_OPS_CPU_TERNARY_H
#define BB_OPS_CPU_TERNARY_H

#include "ops/cpu/device/cpu.h"

/* The dense layout (ternary_dense.h) stores the codes of every five blocks in the bytes of four. */
enum { BB_DENSE_BLOCKS = 5, BB_DENSE_STORED_BLOCKS = 4, BB_DENSE_LINE = 64, BB_DENSE_GROUPS = 4, BB_DENSE_FIFTH = 85 };

enum { BB_PANEL = 64, BB_BLOCK_COLUMNS = 16, BB_BLOCK_BYTES = 4 * BB_PANEL, BB_K_STEP_BYTES = 4 * BB_PANEL };

typedef struct bb_ternary_panel {
    int64_t first, rows; /* rows first .. first+rows-1 of the matrix, at most BB_PANEL */
    int segment;
    uint8_t *data;
} bb_ternary_panel;

/* In a panel. */
static inline int64_t bb_ternary_blocks(const bb_ternary *t) { return (t->k + BB_BLOCK_COLUMNS - 1) / BB_BLOCK_COLUMNS; }
static inline int64_t bb_ternary_k_steps(const bb_ternary *t) { return 4 * bb_ternary_blocks(t); }
static inline size_t bb_ternary_panel_bytes(const bb_ternary *t) {
    int64_t blocks = bb_ternary_blocks(t);
    if (t->dense) blocks = blocks / BB_DENSE_BLOCKS * BB_DENSE_STORED_BLOCKS + blocks % BB_DENSE_BLOCKS;
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

/* Expands all of t's blocks to k-steps, from a panel in t's layout. */
void bb_ternary_expand_panel(const bb_cpu_kernels *kernels, uint8_t *k_steps, const bb_ternary *t, const uint8_t *panel);
/* q of a row and column of expanded k-steps. */
static inline int8_t bb_ternary_value(const uint8_t *k_steps, int64_t row, int64_t k) {
    return (int8_t)(k_steps[(k / 4 * BB_PANEL + row) * 4 + k % 4] - 1);
}

#endif
