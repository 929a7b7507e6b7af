// SPDX-License-Identifier: MIT
/* What the kernels over cached codes share: a block of int8 codes, the rounding of queries and weights, and few queries' weighted
 * sums of values. */
#ifndef BB_OPS_CPU_FORWARD_CODES_H
#define BB_OPS_CPU_FORWARD_CODES_H

#include "ops/cpu/attention/forward_softmax.h"
#include "ops/cpu/attention/kv_int6.h"

enum {
    PREFETCH_BYTES = 10240, /* how far ahead, into the second-level cache */
    QUERIES_AT_ONCE = VL == 16  ? 4
                      : VL == 8 ? 2
                                : 1, /* whose weighted sums fit in registers */
    MAX_GROUPS = VL == 16  ? 8
                 : VL == 8 ? 2
                           : 1 /* of 16 columns, for one query */
};

_Static_assert(BB_KV_RUN % CODES_BLOCK == 0, "a block is in one run");

/* One block of keys and values, in the layout of an INT8 cache. */
typedef struct code_block {
    const int8_t *k, *v;         /* (keys, width) and (keys / 4, width, 4) */
    float *k_scale, *v_scale;    /* (CODES_BLOCK), zeros past the keys */
    int8_t *k_buffer, *v_buffer; /* where six-bit codes are converted to */
    const int8_t *next;          /* what is read after it */
    int64_t keys, width;
    int64_t row_bytes; /* of k and v */
} code_block;

LANES_INLINE code_block code_block_layout(bb_arena *arena, int64_t D) {
    code_block x = {.width = bb_kv_width(D)};
    size_t codes = (size_t)(CODES_BLOCK * x.width + 64); /* vectors may read past the last row */
    x.k_buffer = bb_arena_alloc(arena, codes);
    x.v_buffer = bb_arena_alloc(arena, codes);
    x.k_scale = bb_arena_alloc(arena, CODES_BLOCK * sizeof(float));
    x.v_scale = bb_arena_alloc(arena, CODES_BLOCK * sizeof(float));
    return x;
}

LANES_INLINE void load_scales(code_block *x, const cached_rows *rows, int64_t keys) {
    size_t bytes = (size_t)keys * sizeof(float), rest = CODES_BLOCK * sizeof(float) - bytes;
    x->keys = keys;
    memcpy(x->k_scale, rows->k_scale, bytes);
    memcpy(x->v_scale, rows->v_scale, bytes);
    memset(x->k_scale + keys, 0, rest);
    memset(x->v_scale + keys, 0, rest);
}

/* The keys from key0 on of KV head `head`. */
LANES_INLINE void load_block(code_block *x, const bb_kv_layer *kv, int64_t head, int64_t key0, int64_t keys, int64_t D) {
    cached_rows rows = cached_from(kv, head, key0, D);
    load_scales(x, &rows, keys);
    x->k = rows.k;
    x->v = x->next = rows.v;
    x->row_bytes = x->width;
    if (kv->type != BB_KV_INT6) return;
    for (int64_t j = 0; j < keys; j++)
        for (int64_t d = 0; d < x->width; d += 64)
            bb_int6_load(x->k_buffer + j * x->width + d, bb_min((x->width - d) / 16, 4),
                         rows.k + j * rows.row_bytes + d / 64 * BB_KV_BLOCK);
    for (int64_t j = 0; j < keys; j += BB_KV_ROWS)
        for (int64_t d = 0; d < x->width; d += 16)
            bb_int6_load_quads(x->v_buffer + j * x->width + d * BB_KV_ROWS, rows.v + j * rows.row_bytes + d / 16 * BB_KV_BLOCK);
    x->k = x->k_buffer;
    x->v = x->next = x->v_buffer;
}

/* ---- rounding -------------------------------------------------------------------------------------------------------- */

/* Rounds a query to integers of at most CODE_LIMIT, or so many that its sum of products with codes fits in 32 bits. codes: (D
 * rounded up to 64), zeros past D. Returns the scale times log2 e / sqrt(D); NaN if an element is. */
LANES_INLINE float quantize_query(int16_t *codes, const float *q, int64_t D) {
    float limit = D > 512 ? (float)(INT32_MAX / (128 * D)) : (float)CODE_LIMIT;
    vi largest = vizero();
    for (int64_t d = 0; d < D; d += VL) {
        vf x = vload_first(q + d, bb_min(D - d, VL));
        largest = vmax_bits(largest, vabs(x));
    }
    float peak = vreduce_bits(largest);
    vf inverse = vset1(peak >= 1e-30f ? limit / peak : 0.0f);
    for (int64_t d = 0; d < D; d += VL) vstore_i16(codes + d, vload_first(q + d, bb_min(D - d, VL)) * inverse);
    memset(codes + D, 0, (size_t)(bb_round_up(D, 64) - D) * sizeof *codes);
    return peak / limit * (float)(M_LOG2E / sqrt((double)D));
}

typedef struct code_softmax {
    float max, scale; /* of the scores; of the weights */
} code_softmax;

/* The weights of a row times their values' scales, as integers, from the scores of the keys that it sees, which they replace;
 * zeros from there to `padded`. sums: their partial sums without the scales. */
LANES_INLINE code_softmax softmax_codes(int16_t *weights, float *s, float *sums, const float *v_scale, int64_t seen,
                                        int64_t padded) {
    vsums total = vsums_zero();
    float max = seen > 0 ? row_max(s, seen) : -INFINITY;
    vf highest = vset1(max);
    vi largest = vizero();
    int64_t j = 0;
    for (; j + SUMS <= seen; j += SUMS) LANES_EACH(i, VECTORS) {
            int64_t at = j + i * VL;
            vf x = vexp2(vload(s + at) - highest);
            total.v[i] = total.v[i] + x;
            x = x * vload(v_scale + at);
            largest = vmax_bits(largest, x);
            vstore(s + at, x);
        }
    for (int i = 0; i < VECTORS && j + i * VL < seen; i++) {
        int64_t at = j + i * VL, left = bb_min(seen - at, VL);
        vf x = vkeep(vexp2(vload(s + at) - highest), left, 0.0f);
        total.v[i] = total.v[i] + x;
        x = vkeep(x * vload(v_scale + at), left, 0.0f);
        largest = vmax_bits(largest, x);
        vstore(s + at, x);
    }
    store_sums(sums, &total);
    float peak = vreduce_bits(largest);
    vf inverse = vset1(peak >= 1e-30f ? (float)CODE_LIMIT / peak : 0.0f);
    for (j = 0; j < seen; j += VL) vstore_i16(weights + j, vload(s + j) * inverse);
    for (; j < padded; j += VL) vstore_i16(weights + j, vset1(0.0f));
    return (code_softmax){.max = max, .scale = peak / (float)CODE_LIMIT};
}

/* ---- many queries ---------------------------------------------------------------------------------------------------- */

/* Some rows of a tile, in one block of keys. Their weights replace the scores. */
typedef struct code_rows {
    float *s;               /* (rows, CODES_BLOCK) */
    int64_t row0;           /* in the tile */
    int64_t rows;           /* in whole register blocks */
    int64_t keys, diagonal; /* row i sees keys 0 .. i + diagonal */
} code_rows;

enum { WEIGHTS_STRIDE = 2 * CODES_BLOCK };

LANES_INLINE int16_t *weights_of(const code_rows *r, int64_t i) { return (int16_t *)(void *)(r->s + i * CODES_BLOCK); }

/* ---- few queries ----------------------------------------------------------------------------------------------------- */

/* The address PREFETCH_BYTES after position `at` in `size` bytes, or as far into `next`, which is read afterwards. Prefetching it
 * line by line between the products keeps memory busy without ever waiting for it. */
LANES_INLINE const int8_t *prefetch_target(const int8_t *block, int64_t at, int64_t size, const int8_t *next) {
    int64_t place = at + PREFETCH_BYTES;
    return place < size ? block + place : next + (place - size);
}
LANES_INLINE void fetch_line(const int8_t *line) { __builtin_prefetch(line, 0, 2); }

/* The weights of UNIT_QUERIES queries for a block's values: x = 256 high + low in bytes where bytes are multiplied. */
typedef struct unit_weights {
    int16_t *codes; /* (UNIT_QUERIES, CODES_BLOCK) */
    uint8_t *low, *high;
    float scale[UNIT_QUERIES];
} unit_weights;

LANES_INLINE unit_weights unit_weights_layout(bb_arena *arena) {
    unit_weights w;
    w.codes = bb_arena_alloc(arena, UNIT_QUERIES * CODES_BLOCK * sizeof(int16_t));
    w.low = bb_arena_alloc(arena, UNIT_QUERIES * CODES_BLOCK);
    w.high = bb_arena_alloc(arena, UNIT_QUERIES * CODES_BLOCK);
    return w;
}

/* Sets the weights of query n from its scores, and the tail of its partial result. */
LANES_INLINE void unit_softmax(unit_weights *w, int n, float *s, float *tail, const code_block *x, int64_t seen) {
    int16_t *codes = w->codes + n * CODES_BLOCK;
    code_softmax r = softmax_codes(codes, s, tail, x->v_scale, seen, bb_round_up(x->keys, 32));
    tail[PARTIAL_MAX] = r.max;
    w->scale[n] = r.scale;
#if defined(__AVX512VNNI__)
    for (int64_t j = 0; j < x->keys; j += 32) {
        __m512i y = _mm512_loadu_si512(codes + j);
        _mm256_storeu_si256((__m256i_u *)(w->low + n * CODES_BLOCK + j), _mm512_cvtepi16_epi8(y));
        _mm256_storeu_si256((__m256i_u *)(w->high + n * CODES_BLOCK + j), _mm512_cvtepi16_epi8(_mm512_srli_epi16(y, 8)));
    }
#endif
}

#if defined(__AVX512VNNI__)
enum { GROUP_SUMS = 2 }; /* products with the high parts, and with the low ones */

#ifdef __AVX512VBMI__
LANES_INLINE __m512i load_values(const int8_t *p) {
    return _mm512_sub_epi8(bb_int6_block_codes(p), _mm512_set1_epi8(BB_INT6_BIAS));
}
enum { GROUP_BYTES = BB_KV_BLOCK };
#else
LANES_INLINE __m512i load_values(const int8_t *p) { return _mm512_loadu_si512(p); }
enum { GROUP_BYTES = 64 };
#endif

LANES_INLINE __m512i four_weights(const uint8_t *p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}

/* sums += the weights of four keys, which begin at `at`, times their values of 16 columns. */
LANES_INLINE void add_group(vi sums[GROUP_SUMS], const unit_weights *w, int64_t at, const int8_t *p) {
    __m512i values = load_values(p);
    sums[0] = _mm512_dpbusd_epi32(sums[0], four_weights(w->high + at), values);
    sums[1] = _mm512_dpbusd_epi32(sums[1], four_weights(w->low + at), values);
}

LANES_INLINE void store_group(float *y, const vi sums[GROUP_SUMS], float scale) {
    vstore(y, vi_to_f32(viadd(_mm512_slli_epi32(sums[0], 8), sums[1])) * vset1(scale));
}
#else
enum { GROUP_SUMS = 2 * VECTORS /* two for each column */, GROUP_BYTES = 64 };

LANES_INLINE void add_group(vi sums[GROUP_SUMS], const unit_weights *w, int64_t at, const int8_t *values) {
    vi weights = viset_8_bytes(w->codes + at);
    LANES_EACH(i, GROUP_SUMS) sums[i] = vidot_pairs(sums[i], weights, viload_codes(values + i * 2 * VL));
}

LANES_INLINE void store_group(float *y, const vi sums[GROUP_SUMS], float scale) {
    LANES_EACH(i, VECTORS) {
        vi even, odd;
        visplit_words(&even, &odd, sums[2 * i], sums[2 * i + 1]);
        vstore(y + i * VL, vi_to_f32(viadd(even, odd)) * vset1(scale));
    }
}
#endif

/* y (queries, 16 groups), y_stride apart = the weighted sums of columns d.. of the block's values, with the weights of queries n..;
 * `queries` and `groups` are constants. */
typedef struct value_columns {
    float *y;
    int64_t y_stride, d;
    int n;
} value_columns;

LANES_INLINE void value_sums(value_columns c, const unit_weights *w, const code_block *x, int queries, int groups) {
    int64_t step = BB_KV_ROWS * x->row_bytes, size = bb_round_up(x->keys, BB_KV_ROWS) * x->row_bytes;
    const int8_t *v = x->v + c.d / 16 * GROUP_BYTES;
    vi sums[16][GROUP_SUMS];
    LANES_EACH(i, queries * groups)
    LANES_EACH(k, GROUP_SUMS) sums[i][k] = vizero();
    for (int64_t j = 0; j < x->keys; j += BB_KV_ROWS, v += step) {
        const int8_t *ahead = prefetch_target(x->v, v - x->v, size, x->next);
        LANES_EACH(g, groups) {
            if (GROUP_BYTES == 64) fetch_line(ahead + g * 64);
            if (GROUP_BYTES < 64 && g % 4 != 3) fetch_line(ahead + (g - g / 4) * 64); /* four groups are three cache lines */
            LANES_EACH(n, queries) add_group(sums[n * groups + g], w, (c.n + n) * CODES_BLOCK + j, v + g * GROUP_BYTES);
        }
    }
    LANES_EACH(n, queries)
    LANES_EACH(g, groups) store_group(c.y + n * c.y_stride + g * 16, sums[n * groups + g], w->scale[c.n + n]);
}

/* All columns, as many at once as fit in registers. */
LANES_INLINE void value_rows(value_columns c, const unit_weights *w, const code_block *x, int queries) {
    if (MAX_GROUPS == 8 && queries == 1)
        for (; c.d + 128 <= x->width; c.d += 128, c.y += 128) value_sums(c, w, x, queries, 8);
    if (MAX_GROUPS == 8 && queries <= 3)
        for (; c.d + 64 <= x->width; c.d += 64, c.y += 64) value_sums(c, w, x, queries, 4);
    if (MAX_GROUPS == 8 || (MAX_GROUPS == 2 && queries == 1))
        for (; c.d + 32 <= x->width; c.d += 32, c.y += 32) value_sums(c, w, x, queries, 2);
    for (; c.d < x->width; c.d += 16, c.y += 16) value_sums(c, w, x, queries, 1);
}

/* The partial results' weighted sums of `count` queries of the unit, from its query i on. */
LANES_INLINE void unit_values(const forward_unit *u, const unit_weights *w, int64_t i, int count, const code_block *x) {
    for (int n = 0; n < count; n += QUERIES_AT_ONCE) {
        value_columns c = {.y = u->partials + (i + n) * u->partial_stride, .y_stride = u->partial_stride, .n = n};
        switch (bb_min(count - n, QUERIES_AT_ONCE)) {
        case 1: value_rows(c, w, x, 1); break;
        case 2: value_rows(c, w, x, 2); break;
#if defined(__AVX512F__)
        case 3: value_rows(c, w, x, 3); break;
        default: value_rows(c, w, x, 4); break;
#endif
        }
    }
}

#endif
