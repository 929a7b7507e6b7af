// SPDX-License-Identifier: MIT
/* The products of dot.h on tile registers: 32 rows of A times 32 columns of a panel at a time. The epilogue of one product runs
 * row by row between the instructions of the next, which leave the vector units idle. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_512_pairs.h"
#include "ops/cpu/vector/amx.h"
#include "ops/cpu/vector/transpose.h"

enum {
    SIDE = 2 * BB_AMX_ROWS, /* of a block of sums */
    K_STEPS = BB_AMX_WORDS, /* of a panel per tile */
    RUN = 32,               /* bf16 products per block at a time: more would not stay in the caches, fewer would end too
                             * often */
    PACKED = 64,            /* columns packed at a time */
    TILE_BYTES = BB_AMX_ROWS * BB_AMX_BYTES,         /* of packed A */
    TILE_PANEL_BYTES = K_STEPS * BB_DOT_K_STEP_BYTES /* of the panel, from one product to the next */
};

typedef enum amx_kind { AMX_INT8, AMX_BF16 } amx_kind;

/* What is done to the sums of a product. */
typedef struct epilogue {
    bb_dot_output out;
    bb_dot_rows a; /* int8 only */
    float g;
    bool non_temporal; /* as in out, if whole cache lines are written */
} epilogue;

/* Finished sums that wait for their epilogue. The pointers advance row by row, to keep the work between two products small. */
typedef struct pending {
    const int32_t *sums;
    int64_t rows, columns;  /* columns: 1 .. 32 */
    int64_t row, column;    /* within the tile */
    const char *next_panel; /* cache lines of the next panel still to be prefetched, lines_each per product */
    int64_t lines, lines_each;
} pending;

typedef struct left_operand {
    const uint8_t *rows;                          /* the first of 32 */
    int64_t row_bytes, half_bytes, product_bytes; /* between rows, to the second 16 rows, between products */
    int64_t block_bytes;                          /* from 32 rows to the next */
} left_operand;

/* A block of sums (32, 32): `rows` rows at `row` and `column` of the tile. */
typedef struct block {
    left_operand a;
    const uint8_t *panel;
    int64_t products, row, rows, column;
    int32_t *sums;
} block;

/* whole: all 32 columns are valid. */
INLINE void finish_row(amx_kind kind, bool whole, const epilogue *epi, const pending *p) {
    const bb_dot_output *out = &epi->out;
    int64_t at = p->row * out->stride + p->column;
    __m512 values[2];
    for (int v = 0; v < 2; v++) {
        __m512i sum = _mm512_load_si512(p->sums + v * LANES);
        if (kind == AMX_INT8)
            values[v] = _mm512_mul_ps(_mm512_set1_ps(epi->a.scales[p->row] * epi->g),
                                      _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(epi->a.sums[p->row]))));
        else
            values[v] = _mm512_castsi512_ps(sum);
    }
    if (kind == AMX_INT8 && out->dtype == BB_BF16) {
        bb_bf16 *y = (bb_bf16 *)out->y + at;
        if (whole)
            _mm512_storeu_si512(y, round_two(values[0], values[1]));
        else
            _mm512_mask_storeu_epi16(y, lanes32(p->columns, 0), round_two(values[0], values[1]));
        return;
    }
    for (int v = 0; v < 2; v++) {
        float *y = (float *)out->y + at + v * LANES;
        __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(p->columns, v * LANES);
        if (out->residual) values[v] = _mm512_add_ps(values[v], _mm512_maskz_loadu_ps(lanes, out->residual + at + v * LANES));
        if (whole && epi->non_temporal)
            _mm512_stream_ps(y, values[v]);
        else if (whole)
            _mm512_storeu_ps(y, values[v]);
        else
            _mm512_mask_storeu_ps(y, lanes, values[v]);
    }
}

INLINE void finish_rows(amx_kind kind, pending *p, int64_t count, const epilogue *epi) {
    for (int64_t n = count < p->rows ? count : p->rows; n > 0; n--) {
        if (p->columns == SIDE)
            finish_row(kind, true, epi, p);
        else
            finish_row(kind, false, epi, p);
        p->sums += SIDE;
        p->row++;
        p->rows--;
    }
}

/* Prefetches what will be added to the sums of these rows: they are too far apart for hardware prefetching. */
INLINE void prefetch_rows(const float *src, int64_t stride, int64_t row, int64_t end, int64_t column) {
    if (!src) return;
    for (; row < end; row++) {
        const float *at = src + row * stride + column;
        _mm_prefetch((const char *)at, _MM_HINT_T0);
        _mm_prefetch((const char *)(at + SIDE - 1), _MM_HINT_T0);
    }
}

INLINE void prefetch_next_panel(pending *p) {
    int64_t n = p->lines < p->lines_each ? p->lines : p->lines_each;
    for (int64_t i = 0; i < n; i++) _mm_prefetch(p->next_panel + i * 64, _MM_HINT_T1);
    p->next_panel += n * 64;
    p->lines -= n;
}

/* Multiplies a block (`both`: of more than 16 rows). Meanwhile finishes what is pending in p. */
INLINE void product(amx_kind kind, bool both, const block *b, pending *p, const epilogue *epi) {
    left_operand a = b->a;
    const uint8_t *panel = b->panel;
    int32_t *sums = b->sums;
    int64_t each = (SIDE + b->products - 1) / b->products, fetched = b->row, end = b->row + b->rows;
    /* dW is out of the caches, whether it is added to or not */
    const float *fetch = kind == AMX_BF16 ? epi->out.y : epi->out.residual;
    BB_AMX_ZERO(0);
    BB_AMX_ZERO(1);
    if (both) {
        BB_AMX_ZERO(2);
        BB_AMX_ZERO(3);
    }
    for (int64_t i = 0; i < b->products; i++, a.rows += a.product_bytes, panel += TILE_PANEL_BYTES) {
        BB_AMX_LOAD(6, panel, BB_DOT_K_STEP_BYTES);
        BB_AMX_LOAD(4, a.rows, a.row_bytes);
        BB_AMX_LOAD(7, panel + BB_AMX_BYTES, BB_DOT_K_STEP_BYTES);
        if (both) BB_AMX_LOAD(5, a.rows + a.half_bytes, a.row_bytes);
        if (kind == AMX_INT8) {
            BB_AMX_INT8(0, 4, 6);
            BB_AMX_INT8(1, 4, 7);
            if (both) {
                BB_AMX_INT8(2, 5, 6);
                BB_AMX_INT8(3, 5, 7);
            }
        } else {
            BB_AMX_BF16(0, 4, 6);
            BB_AMX_BF16(1, 4, 7);
            if (both) {
                BB_AMX_BF16(2, 5, 6);
                BB_AMX_BF16(3, 5, 7);
            }
        }
        prefetch_rows(fetch, epi->out.stride, fetched, bb_min(fetched + each, end), b->column);
        fetched += each;
        prefetch_next_panel(p);
        finish_rows(kind, p, each, epi);
    }
    finish_rows(kind, p, SIDE, epi);
    BB_AMX_STORE(0, sums, SIDE * sizeof *sums);
    BB_AMX_STORE(1, sums + BB_AMX_WORDS, SIDE * sizeof *sums);
    if (both) {
        BB_AMX_STORE(2, sums + BB_AMX_ROWS * SIDE, SIDE * sizeof *sums);
        BB_AMX_STORE(3, sums + BB_AMX_ROWS * SIDE + BB_AMX_WORDS, SIDE * sizeof *sums);
    }
}

/* All blocks of `rows` rows: half a panel stays in the first-level cache while A streams past it. */
INLINE void products(amx_kind kind, left_operand a, int64_t rows, const uint8_t *panel, int64_t count, const uint8_t *next,
                     const epilogue *epi) {
    _Alignas(64) int32_t sums[SIDE * SIDE];
    pending p = {.next_panel = (const char *)next, .lines = next ? count * TILE_PANEL_BYTES / 64 : 0};
    p.lines_each = p.lines / (2 * (rows + SIDE - 1) / SIDE * count) + 1;
    for (int64_t column = 0; column < epi->out.columns; column += SIDE) {
        block b = {
            .a = a, .panel = panel + column * (int64_t)sizeof(int32_t), .products = count, .column = column, .sums = sums};
        for (int64_t row = 0; row < rows; row += SIDE, b.a.rows += a.block_bytes) {
            int64_t here = bb_min(rows - row, SIDE);
            b.row = row;
            b.rows = here;
            bool both = here > BB_AMX_ROWS;
            if (here < SIDE) bb_amx_configure(both ? BB_AMX_ROWS : (int)here, both ? (int)here - BB_AMX_ROWS : BB_AMX_ROWS);
            if (both)
                product(kind, true, &b, &p, epi);
            else
                product(kind, false, &b, &p, epi);
            if (here < SIDE) bb_amx_open();
            p.sums = sums;
            p.row = row;
            p.rows = here;
            p.column = column;
            p.columns = epi->out.columns - column < SIDE ? epi->out.columns - column : SIDE;
        }
    }
    finish_rows(kind, &p, SIDE, epi);
}

static UNINSTRUMENTED void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) {
    epilogue epi = {out, a, b.g, out.non_temporal && ((uintptr_t)out.y | (uintptr_t)(4 * out.stride)) % 64 == 0};
    left_operand left = {(const uint8_t *)a.a, a.stride, BB_AMX_ROWS * a.stride, BB_AMX_BYTES, SIDE * a.stride};
    products(AMX_INT8, left, a.count, b.codes, b.k_steps / K_STEPS, NULL, &epi);
}

static UNINSTRUMENTED void add(bb_dot_sums out, const uint32_t *left, int64_t rows, int64_t k_steps, const void *panel,
                               const void *next) {
    epilogue epi = {.out = {out.c, BB_F32, out.add ? out.c : NULL, out.stride, out.columns, false}};
    int64_t half = k_steps / K_STEPS * TILE_BYTES;
    left_operand a = {(const uint8_t *)left, BB_AMX_BYTES, half, TILE_BYTES, 2 * half};
    for (int64_t rest = k_steps / K_STEPS, count; rest > 0; rest -= count) {
        count = rest < RUN ? rest : RUN;
        products(AMX_BF16, a, rows, panel, count, next, &epi);
        epi.out.residual = out.c;
        a.rows += count * TILE_BYTES;
        panel = (const uint8_t *)panel + count * TILE_PANEL_BYTES;
        next = next ? (const uint8_t *)next + count * TILE_PANEL_BYTES : NULL;
    }
}

/* Packs the tiles of 16 rows of A one after the other. x is read in squares of 32 tokens by PACKED columns, whole cache lines:
 * if its rows are a power of two apart, 32 of them do not fit in the first-level cache. */
INLINE void prefetch_square(const bb_dot_tokens *x, int64_t t, int64_t r) {
    int64_t element = (int64_t)bb_dtype_bytes(x->dtype);
    if (t >= x->tokens) {
        t = 0;
        r += PACKED;
    }
    if (r >= x->columns) return;
    const char *at = (const char *)x->x + (t * x->stride + r) * element;
    int64_t end = x->tokens - t < 2 * K_STEPS ? x->tokens - t : 2 * K_STEPS;
    for (int64_t i = 0; i < end; i++, at += x->stride * element)
        for (int64_t line = 0; line < PACKED * element; line += 64) _mm_prefetch(at + line, _MM_HINT_T0);
}

static UNINSTRUMENTED void pack_left(uint32_t *left, const bb_dot_tokens *x, int64_t k_steps) {
    _Alignas(64) uint32_t pairs[K_STEPS * PACKED];
    bb_dot_tokens square = *x;
    prefetch_square(x, 0, 0);
    for (int64_t r = 0; r < x->columns; r += PACKED)
        for (int64_t t = 0; t < 2 * k_steps; t += 2 * K_STEPS) {
            prefetch_square(x, t + 2 * K_STEPS, r);
            square.x = (const uint8_t *)x->x + (size_t)(t * x->stride + r) * bb_dtype_bytes(x->dtype);
            square.s = x->s ? x->s + t : NULL;
            square.tokens = bb_min(x->tokens - t, 2 * K_STEPS);
            square.columns = bb_min(x->columns - r, PACKED);
            if (square.tokens < 2 * K_STEPS) memset(pairs, 0, sizeof pairs);
            pack_pairs(pairs, PACKED, &square);
            for (int64_t c = 0; c < square.columns; c += BB_AMX_ROWS) {
                uint32_t *tile = left + (r + c) * k_steps + t / 2 * BB_AMX_WORDS;
                __m512i words[K_STEPS];
                for (int i = 0; i < K_STEPS; i++) words[i] = _mm512_load_si512(pairs + i * PACKED + c);
                bb_transpose16(words);
                for (int i = 0; i < BB_AMX_ROWS; i++) _mm512_storeu_si512(tile + i * BB_AMX_WORDS, words[i]);
            }
        }
}

/* Makes non-temporal stores visible to the other threads before they are signaled. */
static void close_tiles(void) {
    _mm_sfence();
    bb_amx_close();
}

const bb_dot_set bb_dot_amx = {.k_steps = BB_AMX_WORDS, .open = bb_amx_open, .close = close_tiles, .int8 = int8};
const bb_bf16_set bb_bf16_amx = {.k_steps = BB_AMX_WORDS,
                                 .rows = 192,
                                 .columns = 768,
                                 .tokens = 1024,
                                 .open = bb_amx_open,
                                 .close = close_tiles,
                                 .add = add,
                                 .pack_left = pack_left};

#endif
