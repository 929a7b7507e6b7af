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

/* Codes and absmax of x, n <= BB_ADAM8_BLOCK; x >= 0 unless signed. x becomes the parts of absmax. */
BB_SIMD_INLINE void encode_block(bool is_signed, uint8_t *codes, float *absmax, float *x, int64_t n) {
    const encoder *e = &encoders[is_signed];
    float max = bb_simd_absmax(x, n);
    *absmax = max;
    if (max == 0) {
        memset(codes, e->zero, (size_t)n);
        return;
    }
    int32_t shift = shift_of(is_signed), small = small_of(is_signed), greatest = (is_signed ? SIGNED_BUCKETS : BUCKETS) - 1;
    uint32_t rest = (1u << shift) - 1;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = bb_simd_bits(x[i] / max), magnitude = u & 0x7fffffffu;
        int32_t bucket = (int32_t)(magnitude >> shift) - small;
        bucket = bucket < 0 ? 0 : bucket;
        bucket = bucket > greatest ? greatest : bucket; /* NaN */
        int32_t negative = is_signed ? (int32_t)(u >> 31) : 0;
        uint32_t entry = e->entry[bucket + negative * SIGNED_BUCKETS];
        int32_t past = (magnitude & rest) > (entry & 0xffffffu);
        codes[i] = (uint8_t)((int32_t)(entry >> 24) + (negative ? -past : past));
    }
}

/* Elements of whole blocks, the last of which may be short; p, g and s begin at the first. */
BB_SIMD_INLINE void step_blocks_body(float *p, const float *g, bb_adam8_state s, int64_t n, const adamw_constants *k) {
    const float *m_map = bb_adam8_map(true), *v_map = bb_adam8_map(false);
    for (int64_t begin = 0, block = 0; begin < n; begin += BB_ADAM8_BLOCK, block++) {
        int64_t count = n - begin < BB_ADAM8_BLOCK ? n - begin : BB_ADAM8_BLOCK;
        float m[BB_ADAM8_BLOCK], v[BB_ADAM8_BLOCK];
        float m_absmax = s.m_absmax[block], v_absmax = s.v_absmax[block];
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            m[i] = m_map[s.m[begin + i]] * m_absmax;
            v[i] = v_map[s.v[begin + i]] * v_absmax;
        }
#pragma omp simd
        for (int64_t i = 0; i < count; i++) {
            float mi = m[i], vi = v[i];
            p[begin + i] = adamw_update(p[begin + i], g[begin + i], &mi, &vi, k);
            m[i] = mi;
            v[i] = vi;
        }
        encode_block(true, s.m + begin, &s.m_absmax[block], m, count);
        encode_block(false, s.v + begin, &s.v_absmax[block], v, count);
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
