// SPDX-License-Identifier: MIT
/* Muon's products in blocks of 32 x 32, in either kind of elements (muon_set.h).
 *
 * In int16, codes have a scale for each row, so a product's operand forms wait until its rows are complete; until then it is kept in
 * f32. A Gram matrix is much larger on its diagonal, and so are its polynomials: what is kept and quantized are the others, and the
 * diagonal is multiplied in f32. */
#include "ops/cpu/optimizer/muon_products.h"

#include <string.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/optimizer/muon_set.h"

enum {
    SIDE = BB_MUON_SIDE,
    WORDS = BB_MUON_WORDS,
    PAD = 16,        /* words between rows, so that 16 of them do not fall on the same lines of a cache */
    BF16_TILES = 16, /* of 32 k that are multiplied at a time: 32 rows of them stay in the first-level cache, */
    INT16_TILES = 8, /* and sums of int16 do not overflow */
    GROUP = 32       /* blocks of sums that stay in the second-level cache meanwhile */
};

/* Both forms of a matrix; row i of the left one is column i of the right one. */
typedef struct operand {
    uint32_t *rows, *panels;
    int64_t stride, panel_words;
    float *scale, *inverse; /* of int16: by row; inverse: 0 where the scale is too small or NaN */
} operand;

typedef struct square {
    operand codes;
    float *blocks;   /* the lower blocks, one after the other, in f32; NULL: not kept */
    float *diagonal; /* (m) of int16, which the blocks lack */
} square;

typedef struct layout {
    const bb_cpu_kernels *kernels;
    const bb_muon_set *set;
    bool scaled;    /* int16 */
    int64_t blocks; /* of m */
    square squares[BB_MUON_SQUARES];
    operand x;
    uint32_t *maxima; /* of int16: (blocks, m) of row r in block column b, as bits */
} layout;

static size_t lay(layout *l, const bb_muon_work *w) {
    bb_arena arena = {.base = w->room};
    int64_t m = bb_round_up(w->m, SIDE), n = bb_round_up(w->n, SIDE);
    *l = (layout){.kernels = &bb_cpu_of(w->dev)->kernels, .blocks = m / SIDE};
    l->set = l->kernels->muon;
    l->scaled = l->set->code_max > 0;
    for (int i = 0; i < BB_MUON_SQUARES; i++) {
        square *s = &l->squares[i];
        operand *o = &s->codes;
        o->stride = m / 2 + PAD;
        o->panel_words = m / 2 * SIDE;
        o->rows = bb_arena_alloc(&arena, (size_t)(m * o->stride) * sizeof *o->rows);
        o->panels = bb_arena_alloc(&arena, (size_t)(l->blocks * o->panel_words) * sizeof *o->panels);
        if (l->scaled || i == BB_MUON_GRAM)
            s->blocks = bb_arena_alloc(&arena, (size_t)(l->blocks * (l->blocks + 1) / 2 * BB_MUON_BLOCK) * sizeof *s->blocks);
        if (!l->scaled) continue;
        o->scale = bb_arena_alloc(&arena, (size_t)m * sizeof *o->scale);
        o->inverse = bb_arena_alloc(&arena, (size_t)m * sizeof *o->inverse);
        s->diagonal = bb_arena_alloc(&arena, (size_t)m * sizeof *s->diagonal);
    }
    l->x.rows = bb_arena_alloc(&arena, (size_t)(n * (m / 2 + PAD)) * sizeof *l->x.rows); /* m (n / 2 + PAD) is less */
    l->x.panels = bb_arena_alloc(&arena, (size_t)(m * n / 2) * sizeof *l->x.panels);
    if (l->scaled) {
        l->x.scale = bb_arena_alloc(&arena, (size_t)n * sizeof *l->x.scale);
        l->x.inverse = bb_arena_alloc(&arena, (size_t)n * sizeof *l->x.inverse);
        l->maxima = bb_arena_alloc(&arena, (size_t)(l->blocks * m) * sizeof *l->maxima);
    }
    return arena.used;
}

size_t bb_muon_room(const bb_muon_work *w) {
    layout l;
    return lay(&l, &(bb_muon_work){.dev = w->dev, .m = w->m, .n = w->n});
}

void bb_muon_wait(const bb_muon_work *w) {
    if (w->threads > 1) {
#pragma omp barrier
    }
}

static layout layout_of(const bb_muon_work *w) {
    layout l;
    lay(&l, w);
    return l;
}

static square *square_of(layout *l, const bb_muon_work *w, bb_muon_square which) { return &l->squares[w->of[which]]; }

static float *block_of(const square *s, int64_t i, int64_t j) { return s->blocks + (i * (i + 1) / 2 + j) * BB_MUON_BLOCK; }

/* ---- operands -------------------------------------------------------------------------------------------------------- */

/* Block c becomes elements j .. of rows i .. of an operand, i and j counted in blocks; its transpose does if by_columns. */
static void store(const layout *l, const operand *o, int64_t i, int64_t j, const float *c, bool by_columns, int uses) {
    uint32_t words[SIDE * WORDS], *row = o->rows + i * SIDE * o->stride + j * WORDS;
    uint32_t *panel = o->panels + i * o->panel_words + j * WORDS * SIDE;
    const float *inverse = l->scaled ? o->inverse + i * SIDE : c; /* bf16 ignores it */
    if (by_columns) {
        uint32_t *to = uses & BB_MUON_RIGHT ? panel : words;
        l->set->columns(to, c, inverse);
        for (int64_t half = 0; half < SIDE && uses & BB_MUON_LEFT; half += WORDS)
            l->set->transpose(row + half * o->stride, o->stride, to + half, SIDE);
    } else {
        uint32_t *to = uses & BB_MUON_LEFT ? row : words;
        int64_t stride = uses & BB_MUON_LEFT ? o->stride : WORDS;
        l->set->rows(to, stride, c, inverse);
        for (int64_t half = 0; half < SIDE && uses & BB_MUON_RIGHT; half += WORDS)
            l->set->transpose(panel + half, SIDE, to + half * stride, stride);
    }
}

static void store_square(const layout *l, const square *s, int64_t i, int64_t j, const float *c, int uses) {
    store(l, &s->codes, i, j, c, false, uses);
    if (i != j) store(l, &s->codes, j, i, c, true, uses);
}

/* From the maxima of rows i of an operand, by block column. */
static void set_scales(const layout *l, const operand *o, int64_t i, const uint32_t *maxima, int64_t count) {
    for (int64_t r = 0; r < SIDE; r++) {
        uint32_t max = 0;
        for (int64_t b = 0; b < count; b++) {
            uint32_t bits = maxima[b * l->blocks * SIDE + r];
            max = bits > max ? bits : max;
        }
        float scale = bb_f32_from_bits(max) / l->set->code_max;
        o->scale[i * SIDE + r] = scale;
        o->inverse[i * SIDE + r] = scale > 1e-36f ? 1 / scale : 0;
    }
}

/* The forms of a square of int16, once all of it is there. */
static void quantize_square(const bb_muon_work *w, const layout *l, const square *s, int uses) {
    for (int64_t i = w->thread; i < l->blocks; i += w->threads) set_scales(l, &s->codes, i, l->maxima + i * SIDE, l->blocks);
    bb_muon_wait(w);
    for (int64_t i = l->blocks - 1 - w->thread; i >= 0; i -= w->threads)
        for (int64_t j = 0; j <= i; j++) store_square(l, s, i, j, block_of(s, i, j), uses);
    bb_muon_wait(w);
}

static int64_t rows_of(const bb_muon_work *w) { return w->tall ? w->n : w->m; }
static int64_t columns_of(const bb_muon_work *w) { return w->tall ? w->m : w->n; }

/* Block (i, j) of x, padded with zeros. */
static void load_block(float *c, const bb_muon_work *w, int64_t i, int64_t j) {
    int64_t columns = columns_of(w), n = bb_min(columns - j * SIDE, SIDE);
    for (int64_t r = 0; r < SIDE; r++, c += SIDE) {
        int64_t there = i * SIDE + r < rows_of(w) ? n : 0;
        memcpy(c, w->x + (i * SIDE + r) * columns + j * SIDE, (size_t)there * sizeof *c);
        memset(c + there, 0, (size_t)(SIDE - there) * sizeof *c);
    }
}

/* The forms of x, or of its transpose if by_columns. */
static void store_x(const bb_muon_work *w, layout *l, bool by_columns, int uses) {
    int64_t rows = by_columns ? columns_of(w) : rows_of(w), k_blocks = bb_ceil_div(w->m + w->n - rows, SIDE);
    float c[BB_MUON_BLOCK];
    l->x.stride = k_blocks * WORDS + PAD;
    l->x.panel_words = k_blocks * WORDS * SIDE;
    for (int64_t i = w->thread; i < bb_ceil_div(rows, SIDE); i += w->threads) {
        uint32_t max[SIDE] = {0}, of_rows[SIDE], of_columns[SIDE];
        for (int64_t j = 0; j < k_blocks && l->scaled; j++) {
            load_block(c, w, by_columns ? j : i, by_columns ? i : j);
            l->set->maxima(of_rows, of_columns, c);
            for (int r = 0; r < SIDE; r++) {
                uint32_t bits = by_columns ? of_columns[r] : of_rows[r];
                max[r] = bits > max[r] ? bits : max[r];
            }
        }
        if (l->scaled) set_scales(l, &l->x, i, max, 1);
        for (int64_t j = 0; j < k_blocks; j++) {
            load_block(c, w, by_columns ? j : i, by_columns ? i : j);
            store(l, &l->x, i, j, c, by_columns, uses);
        }
    }
    bb_muon_wait(w);
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

/* Of squares, of x and its transpose, or of both: left_square and right_square are NULL where the operand is x. */
typedef struct product {
    const bb_muon_work *w;
    layout *l;
    const operand *left, *right;
    const square *left_square, *right_square;
    int64_t rows, columns, k; /* in blocks */
    square *out;              /* symmetric: the blocks up to the diagonal are computed; NULL: x */
    bool polynomial;
    int uses; /* of out */
} product;

/* Block c of codes' products becomes numbers. */
static void correct(const product *p, int64_t i, int64_t j, float *c) {
    const square *left = p->left_square, *right = p->right_square;
    float x[BB_MUON_BLOCK];
    bb_muon_correction f = {.row_scale = p->left->scale + i * SIDE, .column_scale = p->right->scale + j * SIDE};
    if (left) {
        f.left_diagonal = left->diagonal + i * SIDE;
        f.right = right ? block_of(right, i, j) : x;
    }
    if (right) {
        f.right_diagonal = right->diagonal + j * SIDE;
        f.left = left ? block_of(left, i, j) : x;
    }
    if (!left != !right) load_block(x, p->w, i, j);
    p->l->set->correct(c, &f);
    if (left && right && i == j)
        for (int r = 0; r < SIDE; r++) c[r * (SIDE + 1)] += f.left_diagonal[r] * f.right_diagonal[r];
}

/* Block c of out. */
static void finish_square(const product *p, int64_t i, int64_t j, float *c) {
    layout *l = p->l;
    const square *a = square_of(l, p->w, BB_MUON_GRAM);
    if (p->polynomial) l->set->polynomial(c, block_of(a, i, j));
    for (int r = 0; r < SIDE && i == j; r++) {
        float *d = &c[r * (SIDE + 1)];
        if (p->polynomial) *d += (float)BB_MUON_A;
        if (!l->scaled) continue;
        if (p->polynomial) *d += (float)BB_MUON_B * a->diagonal[i * SIDE + r];
        p->out->diagonal[i * SIDE + r] = *d;
        *d = 0;
    }
    if (!l->scaled) {
        store_square(l, p->out, i, j, c, p->uses);
        return;
    }
    uint32_t *row_maxima = l->maxima + (j * l->blocks + i) * SIDE, *column_maxima = l->maxima + (i * l->blocks + j) * SIDE;
    l->set->maxima(row_maxima, column_maxima, c);
}

static void finish_x(const product *p, int64_t i, int64_t j, const float *c) {
    int64_t columns = columns_of(p->w), n = bb_min(columns - j * SIDE, SIDE);
    for (int64_t r = 0; r < SIDE && i * SIDE + r < rows_of(p->w); r++)
        memcpy(p->w->x + (i * SIDE + r) * columns + j * SIDE, c + r * SIDE, (size_t)n * sizeof *c);
}

/* Blocks first .. end-1 of row i. c: room for GROUP blocks */
static void multiply_group(const product *p, int64_t i, int64_t first, int64_t end, float *c) {
    if (p->out && p->out->blocks) c = block_of(p->out, i, first);
    const bb_muon_blocks *blocks = p->l->kernels->muon_blocks;
    const uint32_t *left = p->left->rows + i * SIDE * p->left->stride;
    for (int64_t tile = 0, tiles; tile < p->k; tile += tiles) {
        tiles = bb_min(p->k - tile, p->l->scaled ? INT16_TILES : BF16_TILES);
        for (int64_t j = first; j < end; j++)
            blocks->multiply(c + (j - first) * BB_MUON_BLOCK, tile > 0, left + tile * WORDS, p->left->stride,
                             p->right->panels + j * p->right->panel_words + tile * WORDS * SIDE, tiles);
    }
    for (int64_t j = first; j < end; j++, c += BB_MUON_BLOCK) {
        if (p->l->scaled) correct(p, i, j, c);
        if (p->out)
            finish_square(p, i, j, c);
        else
            finish_x(p, i, j, c);
    }
}

/* The longest rows of blocks first. */
static void multiply_all(const product *p) {
    const bb_muon_blocks *blocks = p->l->kernels->muon_blocks;
    float *c = bb_cpu_scratch(p->w->dev, GROUP * BB_MUON_BLOCK * sizeof *c);
    if (blocks->open) blocks->open();
    for (int64_t i = p->rows - 1 - p->w->thread; i >= 0 && c; i -= p->w->threads) {
        int64_t count = p->out ? i + 1 : p->columns;
        for (int64_t j = 0; j < count; j += GROUP) multiply_group(p, i, j, bb_min(j + GROUP, count), c);
    }
    if (blocks->close) blocks->close();
    bb_muon_wait(p->w);
    if (p->l->scaled && p->out) quantize_square(p->w, p->l, p->out, p->uses);
}

static void multiply_squares(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses,
                             bool polynomial) {
    layout l = layout_of(w);
    square *a = square_of(&l, w, left), *b = square_of(&l, w, right);
    multiply_all(&(product){.w = w,
                            .l = &l,
                            .left = &a->codes,
                            .right = &b->codes,
                            .left_square = a,
                            .right_square = b,
                            .rows = l.blocks,
                            .k = l.blocks,
                            .out = square_of(&l, w, out),
                            .polynomial = polynomial,
                            .uses = uses});
}

void bb_muon_multiply(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses) {
    multiply_squares(w, out, left, right, uses, false);
}

void bb_muon_polynomial(const bb_muon_work *w, int uses) {
    multiply_squares(w, BB_MUON_P, BB_MUON_GRAM, BB_MUON_GRAM, uses, true);
}

void bb_muon_gram(const bb_muon_work *w) {
    layout l = layout_of(w);
    store_x(w, &l, w->tall, BB_MUON_BOTH);
    multiply_all(&(product){.w = w,
                            .l = &l,
                            .left = &l.x,
                            .right = &l.x,
                            .rows = l.blocks,
                            .k = bb_ceil_div(w->n, SIDE),
                            .out = square_of(&l, w, BB_MUON_GRAM),
                            .uses = BB_MUON_BOTH});
}

void bb_muon_apply(const bb_muon_work *w) {
    layout l = layout_of(w);
    const square *q = square_of(&l, w, BB_MUON_Q);
    product p = {
        .w = w, .l = &l, .rows = bb_ceil_div(rows_of(w), SIDE), .columns = bb_ceil_div(columns_of(w), SIDE), .k = l.blocks};
    store_x(w, &l, !w->tall, w->tall ? BB_MUON_LEFT : BB_MUON_RIGHT);
    p.left = w->tall ? &l.x : &q->codes;
    p.right = w->tall ? &q->codes : &l.x;
    p.left_square = w->tall ? NULL : q;
    p.right_square = w->tall ? q : NULL;
    multiply_all(&p);
}
