// SPDX-License-Identifier: MIT
/* The gradient of attention on tensor cores: products of activations (bf16 or fp16) with f32 accumulators. p and dS are rounded
 * to the activation type before they are multiplied with do, q and k. Blocks of 64 keys sum dk and dv over the queries that see
 * them. Blocks of 64 queries sum dq over the keys that they see. Each block computes 64 elements of a head. Both kinds of
 * blocks recompute the scores, so no two blocks add to the same sum. */
#include "ops/cuda/attention.h"

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

using namespace nvcuda;

/* Tiles are 64 x 64, stored as panels of 16 columns (product.h). A warp computes 32 x 32 elements. */
enum { TILE = BB_CUDA_ATTENTION_TILE, PANEL = 16, THREADS = 128, EACH = 2, AREA = TILE * TILE };

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;

/* Shared memory: 64 KB, the maximum on compute capability 7.5. p and ds are computed from s and dp. p overwrites v, and ds
 * overwrites k or q. */
template <class A> struct tiles {
    A q[AREA], k[AREA], v[AREA], d_o[AREA];
    float s[AREA], dp[AREA];
};

template <class A> struct operands {
    const A *q, *k, *v, *d_o;
    const float *lse;
    float *delta; /* lse and delta: (B,H,Tq) */
    bb_attention a;
    float scale;
};

/* Loads 64 rows, starting at x + first * stride, and columns d0 .. d0 + 63. Elements past `rows` and D are zero. */
template <class A>
__device__ static void load_tile(A *tile, const A *x, int64_t stride, int64_t first, int64_t rows, int64_t d0, int64_t D) {
    enum { PANELS = TILE / PANEL };
    for (int i = threadIdx.x; i < TILE * PANELS; i += THREADS) {
        int row = i / PANELS, panel = i % PANELS;
        const A *from = x + (first + row) * stride + d0 + panel * PANEL;
        A *to = tile + (panel * TILE + row) * PANEL;
        int64_t count = first + row < rows ? D - d0 - panel * PANEL : 0;
        if (count >= PANEL && (uintptr_t)from % sizeof(int4) == 0) {
            ((int4 *)to)[0] = ((const int4 *)from)[0];
            ((int4 *)to)[1] = ((const int4 *)from)[1];
        } else {
            for (int j = 0; j < PANEL; j++) to[j] = j < count ? from[j] : bb_cuda_act<A>(0.0f);
        }
    }
}

__device__ static inline void clear(sums (&x)[EACH][EACH]) {
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) wmma::fill_fragment(x[i][j], 0.0f);
}

/* out += a b, this warp's part. Rows of a's tile are rows of out or, if A_BY_SUM, run over the summed dimension. Rows of b's
 * tile are columns of out or, if B_BY_SUM, run over the summed dimension. */
template <bool A_BY_SUM, bool B_BY_SUM, class A>
__device__ static inline void multiply(sums (&out)[EACH][EACH], const A *a, const A *b) {
    typedef typename std::conditional<A_BY_SUM, wmma::col_major, wmma::row_major>::type a_order;
    typedef typename std::conditional<B_BY_SUM, wmma::row_major, wmma::col_major>::type b_order;
    int warp = threadIdx.x / BB_CUDA_WARP, wm = warp / 2 * 32, wn = warp % 2 * 32;
    for (int k = 0; k < TILE; k += 16) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, A, a_order> fa[EACH];
        wmma::fragment<wmma::matrix_b, 16, 16, 16, A, b_order> fb[EACH];
        for (int i = 0; i < EACH; i++) {
            int m = wm + i * 16, n = wn + i * 16;
            wmma::load_matrix_sync(fa[i], A_BY_SUM ? a + m * TILE + k * PANEL : a + k * TILE + m * PANEL, PANEL);
            wmma::load_matrix_sync(fb[i], B_BY_SUM ? b + n * TILE + k * PANEL : b + k * TILE + n * PANEL, PANEL);
        }
        for (int i = 0; i < EACH; i++)
            for (int j = 0; j < EACH; j++) wmma::mma_sync(out[i][j], fa[i], fb[j], out[i][j]);
    }
}

__device__ static inline void store(float *tile, const sums (&x)[EACH][EACH]) {
    int warp = threadIdx.x / BB_CUDA_WARP, wm = warp / 2 * 32, wn = warp % 2 * 32;
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++)
            wmma::store_matrix_sync(tile + (wm + i * 16) * TILE + wn + j * 16, x[i][j], TILE, wmma::mem_row_major);
}

/* Computes p and dS for the queries from q0 on and the keys from k0 on, for one head of the queries. p goes to t->v, dS to
 * ds_tile, which is t->k or t->q. On return, t->d_o and the other of these two hold the 64 elements of the head that this block
 * computes. Ends with a barrier. */
template <class A>
__device__ static void score(tiles<A> *t, A *ds_tile, const operands<A> &x, const bb_cuda_attention_block &head, int64_t q0,
                             int64_t k0) {
    const bb_attention &a = x.a;
    int64_t q_at = bb_cuda_q_at(a, head), o_at = bb_cuda_o_at(a, head), kv_at = bb_cuda_kv_at(a, head),
            row_at = (head.b * a.H + head.h) * a.Tq;
    sums s[EACH][EACH], dp[EACH][EACH];
    clear(s);
    clear(dp);
    for (unsigned i = 1; i <= gridDim.z; i++) { /* this block's part of the head comes last */
        int64_t d0 = (int64_t)((blockIdx.z + i) % gridDim.z) * TILE;
        load_tile(t->q, x.q + q_at, a.q_stride, q0, a.Tq, d0, a.D);
        load_tile(t->k, x.k + kv_at, a.kv_stride, k0, a.Tk, d0, a.D);
        load_tile(t->v, x.v + kv_at, a.kv_stride, k0, a.Tk, d0, a.D);
        load_tile(t->d_o, x.d_o + o_at, a.o_stride, q0, a.Tq, d0, a.D);
        __syncthreads();
        multiply<false, false>(s, t->q, t->k);
        multiply<false, false>(dp, t->d_o, t->v);
        if (i < gridDim.z) __syncthreads();
    }
    store(t->s, s);
    store(t->dp, dp);
    __syncthreads();
    for (int i = threadIdx.x; i < AREA; i += THREADS) {
        int query = i / TILE, key = i % TILE;
        float p = 0, ds = 0;
        if (q0 + query < a.Tq && k0 + key <= q0 + query + a.Tk - a.Tq) {
            p = expf(x.scale * t->s[i] - x.lse[row_at + q0 + query]);
            ds = x.scale * p * (t->dp[i] - x.delta[row_at + q0 + query]);
        }
        int at = (key / PANEL * TILE + query) * PANEL + key % PANEL;
        t->v[at] = bb_cuda_act<A>(p);
        ds_tile[at] = bb_cuda_act<A>(ds);
    }
    __syncthreads();
}

/* Stores x, through `tile`, to the rows of out from `first` on. out has `rows` rows, `stride` apart. */
template <class A>
__device__ static void store_rows(A *out, int64_t stride, int64_t first, int64_t rows, int64_t D, float *tile,
                                  const sums (&x)[EACH][EACH]) {
    int64_t d0 = blockIdx.z * (int64_t)TILE;
    store(tile, x);
    __syncthreads();
    for (int i = threadIdx.x; i < AREA; i += THREADS)
        if (first + i / TILE < rows && d0 + i % TILE < D)
            out[(first + i / TILE) * stride + d0 + i % TILE] = bb_cuda_act<A>(tile[i]);
    __syncthreads();
}

template <class A> __device__ static inline void key_gradients_tile(tiles<A> *t, A *dk, A *dv, const operands<A> &x) {
    const bb_attention &a = x.a;
    bb_cuda_attention_block block = bb_cuda_key_block(a), head = block;
    int64_t k0 = block.first, group = a.H / a.Hk, first = max(k0 - (a.Tk - a.Tq), (int64_t)0) / TILE * TILE;
    sums dk_sum[EACH][EACH], dv_sum[EACH][EACH];
    clear(dk_sum);
    clear(dv_sum);
    for (head.h = block.h * group; head.h < (block.h + 1) * group; head.h++)
        for (int64_t q0 = first; q0 < a.Tq; q0 += TILE) {
            score(t, t->k, x, head, q0, k0);
            multiply<true, true>(dv_sum, t->v, t->d_o);
            multiply<true, true>(dk_sum, t->k, t->q);
            __syncthreads();
        }
    int64_t at = block.b * a.kv_batch_stride + block.h * a.D;
    store_rows(dk + at, a.kv_stride, k0, a.Tk, a.D, t->s, dk_sum);
    store_rows(dv + at, a.kv_stride, k0, a.Tk, a.D, t->s, dv_sum);
}

template <class A>
static __global__ void __launch_bounds__(THREADS) key_gradients(A *__restrict__ dk, A *__restrict__ dv, operands<A> x) {
    DYN_SHARED(tiles<A>, t);
    if constexpr (bb_cuda_multiplies<A>) key_gradients_tile(t, dk, dv, x);
}

template <class A> __device__ static inline void query_gradients_tile(tiles<A> *t, A *dq, const operands<A> &x) {
    const bb_attention &a = x.a;
    bb_cuda_attention_block block = bb_cuda_query_block(a);
    int64_t q0 = block.first, keys = min(q0 + TILE, a.Tq) + a.Tk - a.Tq;
    sums dq_sum[EACH][EACH];
    clear(dq_sum);
    for (int64_t k0 = 0; k0 < keys; k0 += TILE) {
        score(t, t->q, x, block, q0, k0);
        multiply<false, true>(dq_sum, t->q, t->k);
        __syncthreads();
    }
    store_rows(dq + bb_cuda_q_at(a, block), a.q_stride, q0, a.Tq, a.D, t->s, dq_sum);
}

template <class A> static __global__ void __launch_bounds__(THREADS) query_gradients(A *__restrict__ dq, operands<A> x) {
    DYN_SHARED(tiles<A>, t);
    if constexpr (bb_cuda_multiplies<A>) query_gradients_tile(t, dq, x);
}

/* delta = do . o for each row of each head. One warp per row. */
template <class A>
static __global__ void __launch_bounds__(THREADS)
    deltas(float *__restrict__ delta, const A *__restrict__ d_o, const A *__restrict__ o, bb_attention a) {
    int64_t row = blockIdx.x * (int64_t)(THREADS / BB_CUDA_WARP) + threadIdx.x / BB_CUDA_WARP;
    bool inside = row < a.B * a.H * a.Tq;
    int64_t head = inside ? row / a.Tq : 0, t = inside ? row % a.Tq : 0;
    int64_t at = (head / a.H * a.Tq + t) * a.o_stride + head % a.H * a.D;
    float sum = 0;
    for (int64_t d = threadIdx.x % BB_CUDA_WARP; d < a.D; d += BB_CUDA_WARP)
        sum += bb_cuda_f32(d_o[at + d]) * bb_cuda_f32(o[at + d]);
    for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2) sum += __shfl_xor_sync(BB_CUDA_ALL_LANES, sum, distance);
    if (inside && threadIdx.x % BB_CUDA_WARP == 0) delta[row] = sum;
}

size_t bb_cuda_attention_scratch(const bb_attention *a) { return (size_t)(a->B * a->H * a->Tq) * sizeof(float); }

template <class A> static void start(bb_device *dev, A *dq, A *dk, A *dv, const A *o, const operands<A> &x) {
    const bb_attention *a = &x.a;
    unsigned parts = (unsigned)bb_ceil_div(a->D, TILE);
    bb_cuda_check(dev, cudaFuncSetAttribute(key_gradients<A>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(tiles<A>)),
                  "shared memory for key_gradients");
    bb_cuda_check(dev, cudaFuncSetAttribute(query_gradients<A>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(tiles<A>)),
                  "shared memory for query_gradients");
    BB_CUDA_LAUNCH(dev, deltas<A>, (unsigned)bb_ceil_div(a->B * a->H * a->Tq, THREADS / BB_CUDA_WARP), THREADS, 0, x.delta,
                   x.d_o, o, *a);
    dim3 key_grid((unsigned)(a->B * a->Hk * bb_ceil_div(a->Tk, TILE)), 1, parts);
    BB_CUDA_LAUNCH(dev, key_gradients<A>, key_grid, THREADS, sizeof(tiles<A>), dk, dv, x);
    dim3 query_grid((unsigned)(a->B * a->H * bb_ceil_div(a->Tq, TILE)), 1, parts);
    BB_CUDA_LAUNCH(dev, query_gradients<A>, query_grid, THREADS, sizeof(tiles<A>), dq, x);
}

void bb_cuda_attention_backward(bb_device *dev, bb_qkv_gradient dx, const void *d_o, bb_qkv x, const void *o, const float *lse,
                                const bb_attention *a) {
    bb_cuda_enter(dev);
    float *delta = (float *)bb_cuda_scratch(dev, bb_cuda_attention_scratch(a));
    if (!delta) return;
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        operands<A> in = {
            (const A *)x.q, (const A *)x.k, (const A *)x.v, (const A *)d_o, lse, delta, *a, (float)(1.0 / sqrt((double)a->D))};
        start(dev, (A *)dx.q, (A *)dx.k, (A *)dx.v, (const A *)o, in);
    });
}
