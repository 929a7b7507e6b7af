// SPDX-License-Identifier: MIT
/* The forward pass of attention on tensor cores, used if a backward pass follows (arXiv:2205.14135). q, k, v and the
 * probabilities are rounded to activations (bf16 or fp16), as in the gradient; accumulators are f32. A block computes 64
 * queries of a head and up to 128 elements of the output; each warp computes 16 of the queries. The block iterates over tiles
 * of 64 keys with an online softmax, and skips tiles that none of its queries sees.
 *
 * wmma does not specify which elements of a fragment a thread holds. So accumulators are rescaled by a fragment of the same
 * kind, loaded from a tile that holds each row's factor in all of its columns. */
#include "ops/cuda/attention.h"

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

using namespace nvcuda;

enum { TILE = BB_CUDA_ATTENTION_TILE, PANEL = 16, WARPS = 4, THREADS = WARPS * BB_CUDA_WARP, ROWS = TILE / WARPS };
enum { SCORE_PITCH = TILE + 4, LANES = BB_CUDA_WARP / ROWS /* per row */, KEYS_EACH = TILE / LANES };
enum { MAX_PARTS = 2 /* 64-element parts of a block's output */, FRAGMENTS = TILE / PANEL };

typedef wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums;

static_assert((int)ROWS == (int)PANEL && LANES == 2, "a warp has the rows of one fragment, two lanes a row");

/* Shared memory of one warp. The output is stored through `scores`, 64 elements at a time. */
template <class A> struct warp_tiles {
    float scores[ROWS * SCORE_PITCH];
    float factors[ROWS * PANEL];
    A p[FRAGMENTS * ROWS * PANEL]; /* [keys / 16][query][16] */
};

/* Tiles are stored as panels of 16 columns (product.h): [columns / 16][64 rows][16]. */
template <class A> struct tiles {
    A q[TILE * TILE], k[TILE * TILE]; /* 64 elements of the head */
    A v[MAX_PARTS * TILE * TILE];
    warp_tiles<A> warp[WARPS];
};

/* Loads 64 rows, starting at x + first * stride, and columns d0 .. d0 + 63. Elements past `rows` and D are zero. */
template <class A>
__device__ static void load_tile(A *tile, const float *x, int64_t stride, int64_t first, int64_t rows, int64_t d0, int64_t D) {
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS) {
        int row = i / TILE, d = i % TILE;
        bool inside = first + row < rows && d0 + d < D;
        tile[(d / PANEL * TILE + row) * PANEL + d % PANEL] = bb_cuda_act<A>(inside ? x[(first + row) * stride + d0 + d] : 0.0f);
    }
}

/* s += the products of this warp's queries with the keys of the tile, over 64 elements. */
template <class A> __device__ static inline void add_scores(sums (&s)[FRAGMENTS], const A *q, const A *k) {
    for (int d = 0; d < FRAGMENTS; d++) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, A, wmma::row_major> a;
        wmma::load_matrix_sync(a, q + (d * TILE + threadIdx.x / BB_CUDA_WARP * ROWS) * PANEL, PANEL);
        for (int j = 0; j < FRAGMENTS; j++) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, A, wmma::col_major> b;
            wmma::load_matrix_sync(b, k + (d * TILE + j * PANEL) * PANEL, PANEL);
            wmma::mma_sync(s[j], a, b, s[j]);
        }
    }
}

/* Running softmax state of a row. Both of its lanes hold the same values. */
typedef struct row_state {
    float max, sum;
} row_state;

/* Computes p, the probabilities relative to the largest score so far, and the factors that rescale earlier sums. seen: number
 * of keys in this tile that the lane's row sees. */
template <class A> __device__ static void soften(warp_tiles<A> *w, row_state *state, float scale, int64_t seen) {
    int lane = threadIdx.x % BB_CUDA_WARP, row = lane / LANES, first = lane % LANES * KEYS_EACH;
    const float *scores = w->scores + row * SCORE_PITCH + first;
    float most = -INFINITY, sum = 0;
    for (int j = 0; j < KEYS_EACH; j++)
        if (first + j < seen) most = fmaxf(most, scores[j] * scale);
    most = fmaxf(state->max, fmaxf(most, __shfl_xor_sync(BB_CUDA_ALL_LANES, most, 1)));
    float factor = expf(state->max - most);
    for (int j = 0; j < KEYS_EACH; j++) {
        int key = first + j;
        float p = key < seen ? expf(scores[j] * scale - most) : 0.0f;
        w->p[(key / PANEL * ROWS + row) * PANEL + key % PANEL] = bb_cuda_act<A>(p);
        sum += p;
    }
    sum += __shfl_xor_sync(BB_CUDA_ALL_LANES, sum, 1);
    state->max = most;
    state->sum = state->sum * factor + sum;
    for (int j = 0; j < PANEL / LANES; j++) w->factors[row * PANEL + lane % LANES * (PANEL / LANES) + j] = factor;
}

/* out = factors * out + p v. */
template <int PARTS, class A>
__device__ static inline void add_values(sums (&out)[PARTS * FRAGMENTS], const warp_tiles<A> *w, const A *v) {
    sums factor;
    wmma::load_matrix_sync(factor, w->factors, PANEL, wmma::mem_row_major);
    BB_CUDA_UNROLL
    for (int e = 0; e < PARTS * FRAGMENTS; e++)
        for (int i = 0; i < factor.num_elements; i++) out[e].x[i] *= factor.x[i];
    BB_CUDA_ROLL
    for (int key = 0; key < FRAGMENTS; key++) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, A, wmma::row_major> a;
        wmma::load_matrix_sync(a, w->p + key * ROWS * PANEL, PANEL);
        BB_CUDA_UNROLL
        for (int e = 0; e < PARTS * FRAGMENTS; e++) {
            wmma::fragment<wmma::matrix_b, 16, 16, 16, A, wmma::row_major> b;
            wmma::load_matrix_sync(b, v + (e * TILE + key * PANEL) * PANEL, PANEL);
            wmma::mma_sync(out[e], a, b, out[e]);
        }
    }
}

typedef struct operands {
    const float *q, *k, *v;
    bb_attention a;
    float scale;
} operands;

/* The work of one block. */
template <int PARTS, class A>
__device__ static inline void attend_tile(tiles<A> *t, float *o, A *kept, float *lse, const operands &x) {
    const bb_attention &a = x.a;
    bb_cuda_attention_block block = bb_cuda_query_block(a);
    warp_tiles<A> *w = &t->warp[threadIdx.x / BB_CUDA_WARP];
    int lane = threadIdx.x % BB_CUDA_WARP, row = threadIdx.x / BB_CUDA_WARP * ROWS + lane / LANES;
    int64_t q0 = block.first, e0 = blockIdx.z * (int64_t)(PARTS * TILE), before = a.Tk - a.Tq, kv = bb_cuda_kv_at(a, block);
    int64_t keys = min(q0 + TILE, a.Tq) + before, query = q0 + row;
    sums out[PARTS * FRAGMENTS];
    for (auto &f : out) wmma::fill_fragment(f, 0.0f);
    row_state state = {-INFINITY, 0.0f};
    for (int64_t k0 = 0; k0 < keys; k0 += TILE) {
        sums s[FRAGMENTS];
        for (auto &f : s) wmma::fill_fragment(f, 0.0f);
        for (int64_t d0 = 0; d0 < a.D; d0 += TILE) {
            if (k0 == 0 || a.D > TILE) load_tile(t->q, x.q + bb_cuda_q_at(a, block), a.q_stride, q0, a.Tq, d0, a.D);
            load_tile(t->k, x.k + kv, a.kv_stride, k0, a.Tk, d0, a.D);
            __syncthreads();
            add_scores(s, t->q, t->k);
            if (d0 + TILE < a.D) __syncthreads();
        }
        BB_CUDA_UNROLL
        for (int part = 0; part < PARTS; part++)
            load_tile(t->v + part * TILE * TILE, x.v + kv, a.kv_stride, k0, a.Tk, e0 + part * TILE, a.D);
        for (int j = 0; j < FRAGMENTS; j++)
            wmma::store_matrix_sync(w->scores + j * PANEL, s[j], SCORE_PITCH, wmma::mem_row_major);
        __syncwarp();
        soften(w, &state, x.scale, query + before + 1 - k0);
        __syncthreads(); /* v is loaded as well */
        add_values<PARTS>(out, w, t->v);
        __syncthreads();
    }
    if (lse && e0 == 0 && lane % LANES == 0 && query < a.Tq)
        lse[(block.b * a.H + block.h) * a.Tq + query] = state.max + logf(state.sum);
    BB_CUDA_UNROLL
    for (int part = 0; part < PARTS; part++) {
        for (int j = 0; j < FRAGMENTS; j++)
            wmma::store_matrix_sync(w->scores + j * PANEL, out[part * FRAGMENTS + j], SCORE_PITCH, wmma::mem_row_major);
        __syncwarp();
        int64_t first = e0 + part * TILE + lane % LANES * KEYS_EACH, at = bb_cuda_o_at(a, block) + query * a.o_stride + first;
        for (int j = 0; j < KEYS_EACH && query < a.Tq && first + j < a.D; j++) {
            float value = w->scores[lane / LANES * SCORE_PITCH + lane % LANES * KEYS_EACH + j] / state.sum;
            o[at + j] = value;
            if (kept) kept[at + j] = bb_cuda_act<A>(value);
        }
        __syncwarp();
    }
}

template <int PARTS, class A>
static __global__ void __launch_bounds__(THREADS)
    attention_forward_act(float *__restrict__ o, A *__restrict__ kept, float *__restrict__ lse, operands x) {
    DYN_SHARED(tiles<A>, t);
    if constexpr (bb_cuda_multiplies<A>) attend_tile<PARTS>(t, o, kept, lse, x);
}

template <int PARTS, class A> static void start(bb_device *dev, float *o, A *kept, float *lse, const operands &x) {
    const bb_attention &a = x.a;
    dim3 grid((unsigned)(a.B * a.H * bb_ceil_div(a.Tq, TILE)), 1, (unsigned)bb_ceil_div(a.D, PARTS * TILE));
    auto kernel = attention_forward_act<PARTS, A>;
    bb_cuda_check(dev, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(tiles<A>)),
                  "shared memory for attention");
    BB_CUDA_LAUNCH(dev, (attention_forward_act<PARTS, A>), grid, THREADS, sizeof(tiles<A>), o, kept, lse, x);
}

void bb_cuda_attention_forward_act(bb_device *dev, float *o, void *kept, float *lse, bb_qkv in, const bb_attention *a) {
    operands x = {(const float *)in.q, (const float *)in.k, (const float *)in.v, *a, (float)(1.0 / sqrt((double)a->D))};
    bb_cuda_by_act(dev, [&](auto act) {
        typedef decltype(act) A;
        if (a->D > TILE)
            start<2>(dev, o, (A *)kept, lse, x);
        else
            start<1>(dev, o, (A *)kept, lse, x);
    });
}
