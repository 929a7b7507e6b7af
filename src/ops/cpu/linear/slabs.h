// SPDX-License-Identifier: MIT
/* The driver of products of rows with panels of 64 columns (dot.h): panels are expanded in slabs that fit in the last-level
 * cache; then tiles of rows, each in a second-level cache, pass over them. However the work is partitioned, every sum runs over
 * k in the same order. */
#ifndef BB_OPS_CPU_SLABS_H
#define BB_OPS_CPU_SLABS_H

#include "ops/cpu/device/cpu.h"

enum { BB_SLAB_ROWS = 96 /* of a tile; a multiple of the micro-kernels' rows */ };

/* Rows m0 .. m0+rows-1 with panels first .. first+count-1, which lie at `panels`. */
typedef struct bb_slab_unit {
    int64_t m0, rows, first, count;
    const uint8_t *panels;
} bb_slab_unit;

/* A product. Operations begin their own structs with it. */
typedef struct bb_slabs bb_slabs;
struct bb_slabs {
    bb_device *dev;
    int64_t M, panels;
    int64_t multiplications;
    int64_t panel_bytes; /* expanded */
    int64_t pieces;      /* of each panel, which are expanded one by one */
    void (*expand)(const bb_slabs *s, uint8_t *panel, int64_t index, int64_t piece);
    void (*multiply)(const bb_slabs *s, const bb_slab_unit *u);
    /* Called on each thread before and after its units; NULL: nothing to do. */
    void (*open)(void);
    void (*close)(void);
};

void bb_slabs_multiply(const bb_slabs *s);

#endif
