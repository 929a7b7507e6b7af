// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/slabs.h"

#include "core/math.h"

enum {
    MIN_ROW_TILES = 8,     /* per thread; with fewer row tiles, panels are divided too */
    SLAB_BYTES = 8000000,  /* of panels expanded at a time: fits in the last-level cache */
    MIN_PARALLEL = 1 << 18 /* multiplications that justify waking the threads */
};

/* Units of a row tile and a group of panels: all panels, or fewer if there are few row tiles. */
static int64_t panels_per_unit(const bb_slabs *s, int64_t panels, int64_t row_tiles) {
    int64_t min_tiles = (int64_t)MIN_ROW_TILES * s->dev->threads;
    return row_tiles < min_tiles ? bb_max(panels * row_tiles / min_tiles, 1) : panels;
}

static void multiply_slab(const bb_slabs *s, uint8_t *expanded, int64_t first, int64_t panels) {
    int64_t row_tiles = bb_ceil_div(s->M, BB_SLAB_ROWS), group = panels_per_unit(s, panels, row_tiles);
    int64_t units = row_tiles * bb_ceil_div(panels, group);
#pragma omp parallel num_threads(s->dev->threads) if (s->multiplications > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < panels * s->pieces; i++)
            s->expand(s, expanded + i / s->pieces * s->panel_bytes, first + i / s->pieces, i % s->pieces);
        if (s->open) s->open();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < units; i++) {
            int64_t m0 = i % row_tiles * BB_SLAB_ROWS, panel = i / row_tiles * group;
            s->multiply(s, &(bb_slab_unit){.m0 = m0,
                                           .rows = bb_min(s->M - m0, BB_SLAB_ROWS),
                                           .first = first + panel,
                                           .count = bb_min(panels - panel, group),
                                           .panels = expanded + panel * s->panel_bytes});
        }
        if (s->close) s->close();
    }
}

void bb_slabs_multiply(const bb_slabs *s) {
    int64_t slab = bb_clamp(SLAB_BYTES / bb_max(s->panel_bytes, 1), 1, s->panels);
    uint8_t *expanded = bb_cpu_shared(s->dev, (size_t)(slab * s->panel_bytes));
    if (!expanded) return;
    for (int64_t first = 0; first < s->panels; first += slab)
        multiply_slab(s, expanded, first, bb_min(s->panels - first, slab));
}
