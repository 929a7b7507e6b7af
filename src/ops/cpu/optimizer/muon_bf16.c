// SPDX-License-Identifier: MIT
/* Newton-Schulz in bf16 with f32 sums, in blocks of 32 x 32. A product's blocks are rounded as they are finished, to both forms
 * that the next product reads (muon_blocks.h), and mirrored. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/linear/dot_bf16.h"
#include "ops/cpu/optimizer/muon.h"
#include "ops/cpu/optimizer/muon_blocks.h"

#if defined(__x86_64__)

enum {
    SIDE = BB_MUON_SIDE,
    WORDS = SIDE / 2,
    PAD = 32,       /* elements between rows, so that 16 of them do not fall on the same lines of a cache */
    MAX_TILES = 16, /* of 32 k that are multiplied at a time: 32 rows of them stay in the first-level cache */
    GROUP = 32      /* blocks of sums that stay in the second-level cache meanwhile */
};

typedef struct layout {
    int64_t m, n; /* padded to whole blocks */
    bb_muon_symmetric squares[BB_MUON_SQUARES];
    float *gram;      /* the lower blocks of A, one after the other, in f32 */
    bb_bf16 *rows;    /* X or its transpose as left operand */
    uint32_t *panels; /* and as right operand */
} layout;

static size_t lay(layout *l, int64_t m, int64_t n, void *memory) {
    bb_arena arena = {.base = memory};
    l->m = bb_round_up(m, SIDE);
    l->n = bb_round_up(n, SIDE);
    int64_t blocks = l->m / SIDE;
    for (int i = 0; i < BB_MUON_SQUARES; i++) {
        bb_muon_symmetric *s = &l->squares[i];
        s->stride = l->m + PAD;
        s->panel_words = l->m / 2 * SIDE;
        s->rows = bb_arena_alloc(&arena, (size_t)(l->m * s->stride) * sizeof *s->rows);
        s->panels = bb_arena_alloc(&arena, (size_t)(blocks * s->panel_words) * sizeof *s->panels);
    }
    l->gram = bb_arena_alloc(&arena, (size_t)(blocks * (blocks + 1) / 2 * BB_MUON_BLOCK) * sizeof *l->gram);
    l->rows = bb_arena_alloc(&arena, (size_t)(l->n * (l->m + PAD)) * sizeof *l->rows); /* m (n + PAD) is less */
    l->panels = bb_arena_alloc(&arena, (size_t)(l->m * l->n / 2) * sizeof *l->panels);
    return arena.used;
}

static size_t room(int64_t m, int64_t n) {
    layout l;
    return lay(&l, m, n, NULL);
}

static layout layout_of(const bb_muon_work *w) {
    layout l;
    lay(&l, w->m, w->n, w->room);
    return l;
}

static const bb_cpu_kernels *kernels_of(const bb_muon_work *w) { return &bb_cpu_of(w->dev)->kernels; }

/* ---- the forms of X -------------------------------------------------------------------------------------------------- */

/* x (rows, columns) as left operand */
static void round_rows(const bb_muon_work *w, const layout *l, int64_t rows, int64_t columns) {
    int64_t padded = bb_round_up(columns, SIDE), stride = padded + PAD;
    for (int64_t r = w->thread; r < bb_round_up(rows, SIDE); r += w->threads) {
        bb_bf16 *to = l->rows + r * stride;
        int64_t n = r < rows ? columns : 0;
        kernels_of(w)->elementwise->round(to, w->x + r * columns, n);
        memset(to + n, 0, (size_t)(padded - n) * sizeof *to);
    }
    bb_muon_wait(w);
}

/* x (rows, columns), rows as k, as right operand */
static void pack_panels(const bb_muon_work *w, const layout *l, int64_t rows, int64_t columns) {
    int64_t words = bb_round_up(rows, SIDE) / 2 * SIDE, pairs = (rows + 1) / 2;
    for (int64_t j = w->thread; j < bb_ceil_div(columns, SIDE); j += w->threads) {
        uint32_t *to = l->panels + j * words;
        bb_dot_tokens x = {.x = w->x + j * SIDE,
                           .dtype = BB_F32,
                           .stride = columns,
                           .tokens = rows,
                           .columns = bb_min(columns - j * SIDE, SIDE)};
        if (x.columns <= WORDS) memset(to, 0, (size_t)words * sizeof *to);
        kernels_of(w)->bf16_operands->pack_pairs(to, SIDE, &x);
        memset(to + pairs * SIDE, 0, (size_t)(words - pairs * SIDE) * sizeof *to);
    }
    bb_muon_wait(w);
}

/* Between the left operand (l->m, l->n) and the right one of its transpose. */
static void transpose_words(const bb_muon_work *w, const layout *l, bool to_panels) {
    int64_t stride = (l->n + PAD) / 2, words = l->n / 2 * SIDE;
    for (int64_t j = w->thread; j < l->m / SIDE; j += w->threads)
        for (int64_t p = 0; p < l->n / 2; p += WORDS)
            for (int64_t half = 0; half < SIDE; half += WORDS) {
                uint32_t *rows = (uint32_t *)(void *)l->rows + (j * SIDE + half) * stride + p;
                uint32_t *panel = l->panels + j * words + p * SIDE + half;
                if (to_panels)
                    kernels_of(w)->muon_forms->transpose(panel, SIDE, rows, stride);
                else
                    kernels_of(w)->muon_forms->transpose(rows, stride, panel, SIDE);
            }
    bb_muon_wait(w);
}

/* ---- products -------------------------------------------------------------------------------------------------------- */

typedef struct product product;
struct product {
    const bb_muon_work *w;
    const layout *l;
    const bb_bf16 *left;
    int64_t stride;
    const uint32_t *right;
    int64_t rows, columns, k; /* multiples of SIDE */
    bool lower;               /* the result is symmetric: blocks up to the diagonal alone */
    const bb_muon_symmetric *out;
    int uses;                                                         /* of out */
    void (*finish)(const product *p, int64_t i, int64_t j, float *c); /* block c at row i and column j, counted in blocks */
};

static float *gram_block(const product *p, int64_t i, int64_t j) { return p->l->gram + (i * (i + 1) / 2 + j) * BB_MUON_BLOCK; }

/* Blocks first .. end-1 of row i. c: room for GROUP blocks */
static void multiply_group(const product *p, int64_t i, int64_t first, int64_t end, float *c) {
    if (p->out && p->out == &p->l->squares[p->w->of[BB_MUON_GRAM]]) c = gram_block(p, i, first); /* A is kept in f32, for b A */
    const bb_muon_blocks *blocks = kernels_of(p->w)->muon_blocks;
    const bb_bf16 *left = p->left + i * SIDE * p->stride;
    for (int64_t tile = 0, tiles; tile < p->k / SIDE; tile += tiles) {
        tiles = bb_min(p->k / SIDE - tile, MAX_TILES);
        for (int64_t j = first; j < end; j++)
            blocks->multiply(c + (j - first) * BB_MUON_BLOCK, tile > 0, left + tile * SIDE, p->stride,
                             p->right + (j * (p->k / 2) + tile * WORDS) * SIDE, tiles);
    }
    for (int64_t j = first; j < end; j++) p->finish(p, i, j, c + (j - first) * BB_MUON_BLOCK);
}

/* The longest rows of blocks first. */
static void multiply_all(const product *p) {
    const bb_muon_blocks *blocks = kernels_of(p->w)->muon_blocks;
    float *c = bb_cpu_scratch(p->w->dev, GROUP * BB_MUON_BLOCK * sizeof *c);
    if (blocks->open) blocks->open();
    for (int64_t i = p->rows / SIDE - 1 - p->w->thread; i >= 0 && c; i -= p->w->threads) {
        int64_t count = p->lower ? i + 1 : p->columns / SIDE;
        for (int64_t j = 0; j < count; j += GROUP) multiply_group(p, i, j, bb_min(j + GROUP, count), c);
    }
    if (blocks->close) blocks->close();
    bb_muon_wait(p->w);
}

static void store(const product *p, int64_t i, int64_t j, float *c) {
    const bb_muon_forms *forms = kernels_of(p->w)->muon_forms;
    if (p->uses & BB_MUON_LEFT) forms->store_rows(p->out, i * SIDE, j * SIDE, c);
    if (p->uses & BB_MUON_RIGHT) forms->store_panels(p->out, i * SIDE, j * SIDE, c);
}

static void store_polynomial(const product *p, int64_t i, int64_t j, float *c) {
    kernels_of(p->w)->muon_forms->polynomial(c, gram_block(p, i, j), i == j ? (float)BB_MUON_A : 0);
    store(p, i, j, c);
}

static void store_x(const product *p, int64_t i, int64_t j, float *c) {
    int64_t rows = p->w->tall ? p->w->n : p->w->m, columns = p->w->tall ? p->w->m : p->w->n;
    int64_t n = bb_min(columns - j * SIDE, SIDE);
    for (int64_t r = 0; r < SIDE && i * SIDE + r < rows; r++)
        memcpy(p->w->x + (i * SIDE + r) * columns + j * SIDE, c + r * SIDE, (size_t)n * sizeof *c);
}

static void gram(const bb_muon_work *w) {
    layout l = layout_of(w);
    if (w->tall)
        pack_panels(w, &l, w->n, w->m);
    else
        round_rows(w, &l, w->m, w->n);
    transpose_words(w, &l, !w->tall);
    multiply_all(&(product){.w = w,
                            .l = &l,
                            .left = l.rows,
                            .stride = l.n + PAD,
                            .right = l.panels,
                            .rows = l.m,
                            .columns = l.m,
                            .k = l.n,
                            .lower = true,
                            .out = &l.squares[w->of[BB_MUON_GRAM]],
                            .uses = BB_MUON_LEFT | BB_MUON_RIGHT,
                            .finish = store});
}

static void multiply(const bb_muon_work *w, bb_muon_square out, bb_muon_square left, bb_muon_square right, int uses) {
    layout l = layout_of(w);
    const bb_muon_symmetric *a = &l.squares[w->of[left]];
    multiply_all(&(product){.w = w,
                            .l = &l,
                            .left = a->rows,
                            .stride = a->stride,
                            .right = l.squares[w->of[right]].panels,
                            .rows = l.m,
                            .columns = l.m,
                            .k = l.m,
                            .lower = true,
                            .out = &l.squares[w->of[out]],
                            .uses = uses,
                            .finish = out == BB_MUON_P ? store_polynomial : store});
}

static void polynomial(const bb_muon_work *w, int uses) { multiply(w, BB_MUON_P, BB_MUON_GRAM, BB_MUON_GRAM, uses); }

static void apply(bb_muon_work *w) {
    layout l = layout_of(w);
    const bb_muon_symmetric *q = &l.squares[w->of[BB_MUON_Q]];
    product p = {.w = w, .l = &l, .k = l.m, .finish = store_x};
    if (w->tall) {
        round_rows(w, &l, w->n, w->m);
        p.left = l.rows;
        p.stride = l.m + PAD;
        p.right = q->panels;
        p.rows = l.n;
        p.columns = l.m;
    } else {
        pack_panels(w, &l, w->m, w->n);
        p.left = q->rows;
        p.stride = q->stride;
        p.right = l.panels;
        p.rows = l.m;
        p.columns = l.n;
    }
    multiply_all(&p);
}

const bb_muon_set bb_muon_bf16 = {
    .runs = {2, 3}, .room = room, .gram = gram, .polynomial = polynomial, .multiply = multiply, .apply = apply};

#endif
