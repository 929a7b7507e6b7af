/* AdamW with both moments in 8 bits, block by block (arXiv:2110.02861).
 * SPDX-License-Identifier: MIT */
#include <pthread.h>

#include "core/adam8_map.h"
#include "ops/cpu/adamw.h"

/* The nearest code without a search. A bucket is the floats of one sign with the same exponent and first MANTISSA_BITS of the
 * mantissa: so narrow that at most one edge of the map lies in it. base is the code of the bucket's least value; one comparison
 * with the edge above that gives the code. Magnitudes under 2^-EXPONENTS, all nearest to 0, are one bucket. */
enum {
    EXPONENTS = 23,
    MANTISSA_BITS = 7,
    SHIFT = 23 - MANTISSA_BITS,
    SMALL = ((127 - EXPONENTS) << MANTISSA_BITS) - 1, /* the high bits of the floats just under 2^-EXPONENTS */
    BUCKETS = (EXPONENTS << MANTISSA_BITS) + 2,       /* of each sign; the first is the small, the last is 1.0 */
    BLOCKS_PER_TASK = 16,
};

typedef struct encoder {
    uint8_t base[2 * BUCKETS]; /* those of negative values after the others */
    float edge[256];           /* bb_adam8_edges and infinity */
    uint8_t zero;
} encoder;

static encoder encoders[2]; /* [is_signed] */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint8_t search(const float *edge, float x) {
    uint8_t code = 0;
    while (edge[code] < x) code++;
    return code;
}

static void build_encoders(void) {
    for (int s = 0; s < 2; s++) {
        encoder *e = &encoders[s];
        memcpy(e->edge, bb_adam8_edges(s == 1), 255 * sizeof *e->edge);
        e->edge[255] = INFINITY;
        e->zero = search(e->edge, 0);
        for (uint32_t b = 0; b < BUCKETS; b++) {
            uint32_t least = (SMALL + b) << SHIFT, greatest = least | ((1u << SHIFT) - 1);
            e->base[b] = b == 0 ? e->zero : search(e->edge, bb_simd_from_bits(least));
            e->base[BUCKETS + b] = b == 0 ? e->zero : search(e->edge, -bb_simd_from_bits(greatest));
        }
    }
}

/* |x| <= 1; NaN gives some code. */
BB_SIMD_INLINE uint8_t encode(const encoder *e, float x) {
    uint32_t u = bb_simd_bits(x);
    int32_t bucket = (int32_t)((u & 0x7fffffffu) >> SHIFT) - SMALL;
    bucket = bucket < 0 ? 0 : bucket;
    bucket = bucket > BUCKETS - 1 ? BUCKETS - 1 : bucket;
    uint8_t code = e->base[bucket + (int32_t)(u >> 31) * BUCKETS];
    return (uint8_t)(code + (x > e->edge[code]));
}

/* Codes and absmax of x, n <= BB_ADAM8_BLOCK. */
BB_SIMD_INLINE void encode_block(const encoder *e, uint8_t *codes, float *absmax, const float *x, int64_t n) {
    float max = bb_simd_absmax(x, n);
    *absmax = max;
    if (max == 0) {
        memset(codes, e->zero, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) codes[i] = encode(e, x[i] / max);
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
        encode_block(&encoders[1], s.m + begin, &s.m_absmax[block], m, count);
        encode_block(&encoders[0], s.v + begin, &s.v_absmax[block], v, count);
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
