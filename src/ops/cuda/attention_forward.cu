// SPDX-License-Identifier: MIT
/* The forward pass of attention in f32, used if no backward pass follows (arXiv:2205.14135). A block computes 64 queries of a
 * head and PARTS * 64 elements of the output. It iterates over tiles of 64 keys with an online softmax, and skips tiles that
 * none of its queries sees. If a head has more than 128 elements, the scores are computed once for every 128. */
#include "ops/cuda/attention.h"

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

enum { TILE = BB_CUDA_ATTENTION_TILE, DEPTH = 32, EACH = 4, ACROSS = TILE / EACH, THREADS = ACROSS * ACROSS, PITCH = TILE + 4 };

/* tile[d][i] = x[(first + i) * stride + d0 + d]; zero past `rows` rows and past D. */
__device__ static inline void load_across(float (*tile)[PITCH], const float *x, int64_t stride, int64_t first, int64_t rows,
                                          int64_t d0, int64_t D) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
        int row = i / DEPTH, d = i % DEPTH;
        tile[d][row] = first + row < rows && d0 + d < D ? x[(first + row) * stride + d0 + d] : 0.0f;
    }
}

/* Maximum or sum over the 16 adjacent threads that share a row of the tile. */
__device__ static inline float row_max(float x) {
    for (int distance = ACROSS / 2; distance; distance /= 2) x = fmaxf(x, __shfl_xor_sync(BB_CUDA_ALL_LANES, x, distance));
    return x;
}
__device__ static inline float row_sum(float x) {
    for (int distance = ACROSS / 2; distance; distance /= 2) x += __shfl_xor_sync(BB_CUDA_ALL_LANES, x, distance);
    return x;
}

template <int PARTS>
static __global__ void __launch_bounds__(THREADS, PARTS == 1 ? 2 : 1)
    attention_forward(float *__restrict__ o, const float *__restrict__ q, const float *__restrict__ k,
                      const float *__restrict__ v, bb_attention a, float scale) {
    SHARED(float, qs, [DEPTH][PITCH]);
    SHARED(float, ks, [DEPTH][PITCH]);
    SHARED(float, ps, [TILE][PITCH]); /* [key][query] */
    bb_cuda_attention_block block = bb_cuda_query_block(a);
    int64_t q0 = block.first, e0 = blockIdx.z * (int64_t)(PARTS * TILE), before = a.Tk - a.Tq, kv = bb_cuda_kv_at(a, block);
    int row = threadIdx.x / ACROSS * EACH, column = threadIdx.x % ACROSS * EACH;
    const float *qh = q + bb_cuda_q_at(a, block);
    float out[PARTS][EACH][EACH] = {}, max[EACH], sum[EACH] = {};
    for (int i = 0; i < EACH; i++) max[i] = -INFINITY;
    int64_t keys = min(q0 + TILE, a.Tq) + before; /* keys that the last query sees */
    for (int64_t k0 = 0; k0 < keys; k0 += TILE) {
        float s[EACH][EACH] = {};
        for (int64_t d0 = 0; d0 < a.D; d0 += DEPTH) {
            load_across(qs, qh, a.q_stride, q0, a.Tq, d0, a.D);
            load_across(ks, k + kv, a.kv_stride, k0, a.Tk, d0, a.D);
            __syncthreads();
            for (int d = 0; d < DEPTH; d++)
                for (int i = 0; i < EACH; i++)
                    for (int j = 0; j < EACH; j++) s[i][j] = fmaf(qs[d][row + i], ks[d][column + j], s[i][j]);
            __syncthreads();
        }
        for (int i = 0; i < EACH; i++) {
            float most = -INFINITY;
            int64_t seen = q0 + row + i + before + 1 - k0 - column; /* how many of this thread's keys the query sees */
            for (int j = 0; j < EACH; j++)
                if (j < seen) most = fmaxf(most, s[i][j] *= scale);
            most = fmaxf(max[i], row_max(most));
            float correction = expf(max[i] - most);
            max[i] = most;
            sum[i] *= correction;
            for (int j = 0; j < EACH; j++) {
                float p = j < seen ? expf(s[i][j] - most) : 0.0f;
                ps[column + j][row + i] = p;
                sum[i] += p;
                for (int part = 0; part < PARTS; part++) out[part][i][j] *= correction;
            }
        }
        BB_CUDA_UNROLL
        for (int part = 0; part < PARTS; part++)
            for (int j0 = 0; j0 < TILE; j0 += DEPTH) { /* ks now holds values: [key][element] */
                for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
                    int key = i / TILE;
                    int64_t e = e0 + part * TILE + i % TILE;
                    bool inside = k0 + j0 + key < a.Tk && e < a.D;
                    ks[key][i % TILE] = inside ? v[kv + (k0 + j0 + key) * a.kv_stride + e] : 0.0f;
                }
                __syncthreads();
                for (int key = 0; key < DEPTH; key++)
                    for (int i = 0; i < EACH; i++)
                        for (int j = 0; j < EACH; j++)
                            out[part][i][j] = fmaf(ps[j0 + key][row + i], ks[key][column + j], out[part][i][j]);
                __syncthreads();
            }
    }
    for (int i = 0; i < EACH; i++) {
        int64_t t = q0 + row + i;
        float total = row_sum(sum[i]);
        if (t >= a.Tq) continue;
        BB_CUDA_UNROLL
        for (int part = 0; part < PARTS; part++)
            for (int j = 0; j < EACH; j++) {
                int64_t e = e0 + part * TILE + column + j, at = bb_cuda_o_at(a, block) + t * a.o_stride + e;
                if (e >= a.D) continue;
                o[at] = out[part][i][j] / total;
            }
    }
}

void bb_cuda_attention_forward(bb_device *dev, float *o, void *kept, float *lse, bb_qkv x, const bb_attention *a) {
    bb_cuda_enter(dev);
    if (lse) {
        bb_cuda_attention_forward_act(dev, o, kept, lse, x, a);
        return;
    }
    const float *q = (const float *)x.q, *k = (const float *)x.k, *v = (const float *)x.v;
    bool wide = a->D > TILE;
    dim3 grid((unsigned)(a->B * a->H * bb_ceil_div(a->Tq, TILE)), 1, (unsigned)bb_ceil_div(a->D, wide ? 2 * TILE : TILE));
    float scale = (float)(1.0 / sqrt((double)a->D));
    if (wide)
        BB_CUDA_LAUNCH(dev, attention_forward<2>, grid, THREADS, 0, o, q, k, v, *a, scale);
    else
        BB_CUDA_LAUNCH(dev, attention_forward<1>, grid, THREADS, 0, o, q, k, v, *a, scale);
}
