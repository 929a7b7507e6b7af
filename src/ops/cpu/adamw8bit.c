/* AdamW with both moments in 8 bits, block by block (arXiv:2110.02861).
 * SPDX-License-Identifier: MIT */
#include <pthread.h>

#include "core/adam8_map.h"
#include "ops/cpu/adamw.h"

/* The nearest code in one lookup. A bucket is the floats of one sign with the same exponent and first bits of the mantissa, so
 * narrow that at most one edge of the map lies in it. Its entry holds the code of its least magnitude, and which of the
 * remaining bits of a magnitude are the last to have that code; past them it is the next code away from zero. Magnitudes under
 * 2^-EXPONENTS are all nearest to 0 and share a bucket. */
enum {
    EXPONENTS = 23,
    SIGNED_SHIFT = 17, /* buckets of 2^17 floats: 64 in [0.5, 1), where the signed map has 36 entries, the unsigned one 71 */
    UNSIGNED_SHIFT = 16,
    SIGNED_BUCKETS = (EXPONENTS << (23 - SIGNED_SHIFT)) + 2, /* of each sign; the first is the small, the last is 1.0 */
    BUCKETS = 2 * SIGNED_BUCKETS,                            /* also enough for the unsigned map, which has one sign */
    BLOCKS_PER_TASK = 16,
};

typedef struct encoder {
    uint32_t entry[BUCKETS]; /* code << 24 | last; for signed the negative buckets after the others */
    uint8_t zero;
} encoder;

static encoder encoders[2]; /* [is_signed] */
static pthread_once_t once = PTHREAD_ONCE_INIT;

BB_SIMD_INLINE int32_t shift_of(bool is_signed) { return is_signed ? SIGNED_SHIFT : UNSIGNED_SHIFT; }

/* The bucket before that of 2^-EXPONENTS, as the high bits of its floats. */
BB_SIMD_INLINE int32_t small_of(bool is_signed) { return ((127 - EXPONENTS) << (23 - shift_of(is_signed))) - 1; }

static uint32_t search(const float *edge, float x) {
    uint32_t code = 0;
    while (code < 255 && edge[code] < x) code++;
    return code;
}

static uint32_t make_entry(const float *edge, uint32_t least, bool negative, uint32_t rest) {
    float x = bb_simd_from_bits(least);
    uint32_t code = search(edge, negative ? -x : x), last = rest;
    if (negative && code > 0) last = bb_simd_bits(-edge[code - 1]) - 1 - least; /* the edge itself is past */
    if (!negative && code < 255) last = bb_simd_bits(edge[code]) - least;
    return code << 24 | (last < rest ? last : rest);
}

static void build_encoders(void) {
    for (int s = 0; s < 2; s++) {
        const float *edge = bb_adam8_edges(s == 1);
        encoder *e = &encoders[s];
        uint32_t rest = (1u << shift_of(s)) - 1;
        e->zero = (uint8_t)search(edge, 0);
        for (int32_t i = 0; i < BUCKETS; i++) {
            bool negative = s == 1 && i >= SIGNED_BUCKETS;
            int32_t bucket = negative ? i - SIGNED_BUCKETS : i;
            uint32_t least = (uint32_t)(small_of(s) + bucket) << shift_of(s);
            e->entry[i] = bucket ? make_entry(edge, least, negative, rest) : (uint32_t)e->zero << 24 | rest;
        }
    }
}

/* Moments of one block on their way through a step. */
typedef struct moment {
    float x[BB_ADAM8_BLOCK];
    uint16_t bucket[BB_ADAM8_BLOCK];
    uint32_t rest[BB_ADAM8_BLOCK], entry[BB_ADAM8_BLOCK];
} moment;

/* The table reads stand apart from the kernels, as plain loops over both moments: one load after the other is 1.4 times as fast
 * as gather instructions, or as what gcc 12 makes of the loop when it may vectorize it. */
#ifdef __clang__
#define TABLE_READ static __attribute__((noinline))
#else
#define TABLE_READ static __attribute__((noinline, optimize("no-tree-vectorize")))
#endif

TABLE_READ void read_maps(moment *m, moment *v, const uint8_t *m_codes, const uint8_t *v_codes, int64_t n) {
    const float *m_map = bb_adam8_map(true), *v_map = bb_adam8_map(false);
    for (int64_t i = 0; i < n; i++) {
        m->x[i] = m_map[m_codes[i]];
        v->x[i] = v_map[v_codes[i]];
    }
}

TABLE_READ void read_entries(moment *m, moment *v, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        m->entry[i] = encoders[1].entry[m->bucket[i]];
        v->entry[i] = encoders[0].entry[v->bucket[i]];
    }
}

/* x as part of absmax: its bucket, and the rest of its bits. */
BB_SIMD_INLINE void find_buckets(bool is_signed, moment *a, float absmax, int64_t n) {
    int32_t shift = shift_of(is_signed), small = small_of(is_signed), greatest = (is_signed ? SIGNED_BUCKETS : BUCKETS) - 1;
    float divisor = absmax == 0 ? 1 : absmax;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = bb_simd_bits(a->x[i] / divisor), magnitude = u & 0x7fffffffu;
        int32_t bucket = (int32_t)(magnitude >> shift) - small;
        bucket = bucket < 0 ? 0 : bucket;
        bucket = bucket > greatest ? greatest : bucket; /* NaN */
        if (is_signed) bucket += (int32_t)(u >> 31) * SIGNED_BUCKETS;
        a->bucket[i] = (uint16_t)bucket;
        a->rest[i] = magnitude & ((1u << shift) - 1);
    }
}

BB_SIMD_INLINE void write_codes(bool is_signed, uint8_t *codes, const moment *a, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        int32_t past = a->rest[i] > (a->entry[i] & 0xffffffu);
        int32_t away = is_signed && a->bucket[i] >= SIGNED_BUCKETS ? -past : past;
        codes[i] = (uint8_t)((int32_t)(a->entry[i] >> 24) + away);
    }
}

/* Elements of whole blocks, the last of which may be short; p, g and s begin at the first. */
BB_SIMD_INLINE void step_blocks_body(float *p, const float *g, bb_adam8_state s, int64_t n, const adamw_constants *k) {
    moment m, v;
    for (int64_t begin = 0, block = 0; begin < n; begin += BB_ADAM8_BLOCK, block++) {
        int64_t count = n - begin < BB_ADAM8_BLOCK ? n - begin : BB_ADAM8_BLOCK;
        float m_absmax = s.m_absmax[block], v_absmax = s.v_absmax[block];
        float *pb = p + begin;
        const float *gb = g + begin;
        read_maps(&m, &v, s.m + begin, s.v + begin, count);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float mi = m.x[i] * m_absmax, vi = v.x[i] * v_absmax;
            pb[i] = adamw_update(pb[i], gb[i], &mi, &vi, k);
            m.x[i] = mi;
            v.x[i] = vi;
        }
        s.m_absmax[block] = bb_simd_absmax(m.x, count);
        s.v_absmax[block] = bb_simd_absmax(v.x, count);
        find_buckets(true, &m, s.m_absmax[block], count);
        find_buckets(false, &v, s.v_absmax[block], count);
        read_entries(&m, &v, count);
        write_codes(true, s.m + begin, &m, count);
        write_codes(false, s.v + begin, &v, count);
    }
}

BB_SIMD_VARIANTS(step_blocks, (float *p, const float *g, bb_adam8_state s, int64_t n, const adamw_constants *k),
                 (p, g, s, n, k))

void bb_cpu_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    (void)dev;
    pthread_once(&once, build_encoders);
    size_t absmax_bytes = (size_t)((n + BB_ADAM8_BLOCK - 1) / BB_ADAM8_BLOCK) * sizeof(float);
    memset(s.m, encoders[1].zero, (size_t)n);
    memset(s.v, encoders[0].zero, (size_t)n);
    memset(s.m_absmax, 0, absmax_bytes);
    memset(s.v_absmax, 0, absmax_bytes);
}

void bb_cpu_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    pthread_once(&once, build_encoders);
    step_blocks_kernel *step_blocks = step_blocks_for(bb_cpu_of(dev)->level);
    adamw_constants k = adamw_prepare(h);
    int64_t task = BLOCKS_PER_TASK * BB_ADAM8_BLOCK;
#pragma omp parallel for num_threads(dev->threads) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += task) {
        int64_t block = i / BB_ADAM8_BLOCK;
        bb_adam8_state from = {s.m + i, s.v + i, s.m_absmax + block, s.v_absmax + block};
        step_blocks(p + i, g + i, from, n - i < task ? n - i : task, &k);
    }
}
