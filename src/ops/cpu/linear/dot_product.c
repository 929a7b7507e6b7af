// SPDX-License-Identifier: MIT
/* A run of k at a time, B is packed into panels of 64 columns with k in pairs; A is packed tile by tile. */
#include "ops/cpu/linear/dot_product.h"
#include "core/math.h"
#include "ops/cpu/linear/dot_bf16.h"

#if defined(__x86_64__)

enum {
    SLAB_BYTES = 8000000,  /* of B packed at a time: fits in the last-level cache */
    MIN_TILES = 6,         /* fewer tiles of C than this are divided further, */
    MIN_ROWS = 96,         /* down to this many rows */
    MIN_COLUMNS = 192,     /* and columns */
    PACK_K = 64,           /* rows of B packed at a time */
    MIN_PARALLEL = 1 << 18 /* multiplications that justify waking the threads */
};

/* A run of k, and the partition of C into tiles. */
typedef struct run {
    bb_device *dev;
    const bb_bf16_set *set;
    const bb_dot_factors *f;
    int64_t first, k, k_steps; /* rows first .. first+k-1 of A and B */
    int64_t tile_rows, tile_columns, row_tiles, tiles;
    uint32_t *panels;
} run;

static const void *element(const void *matrix, bb_dtype dtype, int64_t row, int64_t columns, int64_t column) {
    return (const uint8_t *)matrix + (size_t)(row * columns + column) * bb_dtype_bytes(dtype);
}

/* Packs PACK_K rows of B from k0 on, all columns; zeros past the last row. */
static void pack_b(const run *r, int64_t k0) {
    const bb_dot_factors *f = r->f;
    int64_t rows = bb_min(r->k - k0, PACK_K), pairs = (rows + 1) / 2;
    int64_t zeros = bb_min(r->k_steps - k0 / 2, PACK_K / 2) - pairs;
    for (int64_t column = 0; column < f->columns; column += BB_DOT_COLUMNS) {
        uint32_t *to = r->panels + column * r->k_steps + k0 / 2 * BB_DOT_COLUMNS;
        bb_dot_tokens from = {.x = element(f->b, f->b_dtype, r->first + k0, f->columns, column),
                              .dtype = f->b_dtype,
                              .stride = f->columns,
                              .tokens = rows,
                              .columns = bb_min(f->columns - column, BB_DOT_COLUMNS)};
        bb_cpu_of(r->dev)->kernels.bf16_operands->pack_pairs(to, BB_DOT_COLUMNS, &from);
        memset(to + pairs * BB_DOT_COLUMNS, 0, (size_t)(zeros * BB_DOT_COLUMNS) * sizeof *to);
    }
}

/* The set's largest tiles; smaller ones if there would be few. */
static void partition(run *r) {
    r->tile_rows = r->set->rows;
    r->tile_columns = bb_min(r->set->columns, bb_round_up(r->f->columns, BB_DOT_COLUMNS));
    for (;;) {
        r->row_tiles = bb_ceil_div(r->f->rows, r->tile_rows);
        r->tiles = r->row_tiles * bb_ceil_div(r->f->columns, r->tile_columns);
        if (r->tiles >= MIN_TILES || r->set->columns == INT64_MAX) return;
        if (r->tile_rows > MIN_ROWS && r->tile_rows >= r->tile_columns / 2)
            r->tile_rows /= 2;
        else if (r->tile_columns > MIN_COLUMNS)
            r->tile_columns = bb_round_up(r->tile_columns / 2, BB_DOT_COLUMNS);
        else
            return;
    }
}

static void multiply_tile(const run *r, int64_t index) {
    const bb_dot_factors *f = r->f;
    int64_t row = index % r->row_tiles * r->tile_rows, column = index / r->row_tiles * r->tile_columns;
    int64_t rows = bb_min(f->rows - row, r->tile_rows), end = bb_min(f->columns, column + r->tile_columns);
    int64_t max_k = r->set->tokens;
    uint32_t *left = bb_cpu_scratch(r->dev, (size_t)(bb_min(r->k_steps, max_k / 2) * r->set->rows) * sizeof *left);
    if (!left) return;
    for (int64_t k = 0; k < r->k; k += max_k) {
        int64_t k_steps = bb_min(r->k_steps - k / 2, max_k / 2), at = r->first + k;
        bb_dot_tokens from = {.x = element(f->a, f->a_dtype, at, f->rows, row),
                              .dtype = f->a_dtype,
                              .stride = f->rows,
                              .s = f->s ? f->s + at : NULL,
                              .tokens = bb_min(r->k - k, max_k),
                              .columns = rows};
        r->set->pack_left(left, &from, k_steps);
        for (int64_t j = column; j < end; j += BB_DOT_COLUMNS) {
            const uint32_t *panel = r->panels + j * r->k_steps + k / 2 * BB_DOT_COLUMNS;
            bb_dot_sums out = {f->c + row * f->columns + j, f->add || at > 0, f->columns,
                               bb_min(f->columns - j, BB_DOT_COLUMNS)};
            r->set->add(out, left, rows, k_steps, panel, j + BB_DOT_COLUMNS < end ? panel + BB_DOT_COLUMNS * r->k_steps : NULL);
        }
    }
}

static void multiply_run(const run *r) {
    int64_t packs = bb_ceil_div(r->k, PACK_K);
#pragma omp parallel num_threads(r->dev->threads) if (r->k * r->f->rows * r->f->columns > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < packs; i++) pack_b(r, i * PACK_K);
        if (r->set->open) r->set->open();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < r->tiles; i++) multiply_tile(r, i);
        if (r->set->close) r->set->close();
    }
}

/* The length of runs: within SLAB_BYTES of B, all about the same. */
static int64_t run_length(int64_t columns, int64_t k) {
    int64_t width = bb_round_up(columns, BB_DOT_COLUMNS);
    int64_t most = bb_max(SLAB_BYTES / (width * (int64_t)sizeof(bb_bf16)) / PACK_K, 1) * PACK_K;
    return bb_round_up(bb_ceil_div(k, bb_ceil_div(k, most)), PACK_K);
}

size_t bb_dot_product_scratch_bytes(bb_device *dev, int64_t columns, int64_t k) {
    int64_t longest = bb_min(run_length(columns, k), bb_round_up(k, 2 * bb_cpu_of(dev)->kernels.bf16->k_steps));
    return (size_t)(longest * bb_round_up(columns, BB_DOT_COLUMNS)) * sizeof(bb_bf16);
}

void bb_dot_product(bb_device *dev, const bb_dot_factors *f) {
    run r = {.dev = dev, .set = bb_cpu_of(dev)->kernels.bf16, .f = f, .panels = f->scratch};
    int64_t length = run_length(f->columns, f->k);
    partition(&r);
    for (r.first = 0; r.first < f->k; r.first += length) {
        r.k = bb_min(f->k - r.first, length);
        r.k_steps = bb_round_up((r.k + 1) / 2, r.set->k_steps);
        multiply_run(&r);
    }
}

#endif
