// SPDX-License-Identifier: MIT
/* Kernels with a fault each, to show that the emulation finds such faults: faults N runs them with fault N, 0 for none, and compares
 * what they give with plain loops. Status 1: wrong results; 99, or a sanitizer's: it was found on the way. faults.sh says by
 * what each is found. */
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ops/cuda/kernel.h"

using namespace nvcuda;

enum fault {
    NONE,
    BARRIER_BEFORE_READ,  /* partial sums are read before every warp has written its own */
    BARRIER_BEFORE_REUSE, /* and overwritten while other warps read them */
    SHORT_ARRAY,          /* an array of shared memory has one element too few */
    EARLY_RETURN,         /* threads leave ahead of barriers and shuffles */
    DIVERGENT_BARRIER,    /* threads wait at different barriers */
    ASYNC_COPY,           /* one group of cp.async too few is waited for */
    TILE_OVERWRITTEN,     /* a tile is loaded over while other warps read it */
    OUT_OF_BOUNDS,        /* rows past the last are written */
    WARP_BARRIER,         /* lanes read what others store, without __syncwarp */
    BLOCKS_RACE,          /* blocks add to one sum without atomics */
    ARRIVAL_NOT_AWAITED,  /* a stream reads what another one copies without waiting for its event */
    PLACE_NOT_TAKEN,      /* and is copied over while it still has to read */
    FAULTS
};

static int fault;

/* ---- y = x * gain / rms, in int8: a block a row ---------------------------------------------------------------------------- */

enum { ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / 32 };

template <bool MAX> __device__ static float warp_reduce(float v) {
    for (int distance = 16; distance; distance /= 2) {
        float other = __shfl_xor_sync(BB_CUDA_ALL_LANES, v, distance);
        v = MAX ? fmaxf(v, other) : v + other;
    }
    return v;
}

template <bool MAX> __device__ static float block_reduce(float v, float *partial) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    v = warp_reduce<MAX>(v);
    if (lane == 0) partial[warp] = v;
    if (fault != BARRIER_BEFORE_READ) __syncthreads();
    v = warp_reduce<MAX>(lane < ROW_WARPS ? partial[lane] : 0.0f);
    if (fault != BARRIER_BEFORE_REUSE) __syncthreads();
    return v;
}

__device__ static void normalize(float *partial, const float *x, const float *gain, int8_t *q, float *scale, int C) {
    if (fault == EARLY_RETURN && (int)threadIdx.x >= C) return;
    const float *row = x + (size_t)blockIdx.x * C;
    float squares = 0, largest = 0;
    for (int c = threadIdx.x; c < C; c += ROW_THREADS) squares += row[c] * row[c];
    float r = rsqrtf(block_reduce<false>(squares, partial) / (float)C + 1e-5f);
    for (int c = threadIdx.x; c < C; c += ROW_THREADS) largest = fmaxf(largest, fabsf(row[c] * r * gain[c]));
    if (fault == DIVERGENT_BARRIER && threadIdx.x >= 128) {
        __syncthreads();
        __syncthreads();
    } else {
        largest = block_reduce<true>(largest, partial);
    }
    float s = largest / 127.0f;
    for (int c = threadIdx.x; c < C; c += ROW_THREADS)
        q[(size_t)blockIdx.x * C + c] = (int8_t)__float2int_rn(row[c] * r * gain[c] / s);
    if (threadIdx.x == 0) scale[blockIdx.x] = s;
}

static __global__ void normalize_rows(const float *x, const float *gain, int8_t *q, float *scale, int C) {
    SHARED(float, partial, [ROW_WARPS]);
    normalize(partial, x, gain, q, scale, C);
}

static __global__ void normalize_rows_short(const float *x, const float *gain, int8_t *q, float *scale, int C) {
    SHARED(float, partial, [ROW_WARPS - 1]);
    normalize(partial, x, gain, q, scale, C);
}

/* ---- y (M,N) = x (M,K) w (N,K) transposed, int8: tiles of 64, the next one of x loaded by cp.async -------------------------- */

enum { TILE = 64, PRODUCT_THREADS = 128 };

static __global__ void multiply(const int8_t *x, const int8_t *w, int *y, int M, int N, int K) {
    SHARED(int8_t, xs, [2][TILE / 16][TILE][16]);
    SHARED(int8_t, ws, [TILE / 16][TILE][16]);
    SHARED(int, sums, [TILE][TILE]);
    int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, warp = threadIdx.x / 32, wm = warp / 2 * 32, wn = warp % 2 * 32;
    auto load = [&](int stage, int k0) {
        for (int i = threadIdx.x; i < TILE * TILE / 16; i += PRODUCT_THREADS) {
            int row = i / 4, panel = i % 4;
            if (m0 + row < M)
                __pipeline_memcpy_async(xs[stage][panel][row], x + (size_t)(m0 + row) * K + k0 + panel * 16, 16);
            else
                *(int4 *)xs[stage][panel][row] = {0, 0, 0, 0};
        }
        __pipeline_commit();
    };
    wmma::fragment<wmma::accumulator, 16, 16, 16, int> sum[2][2];
    for (int i = 0; i < 4; i++) wmma::fill_fragment(sum[i / 2][i % 2], 0);
    load(0, 0);
    for (int k0 = 0, stage = 0; k0 < K; k0 += TILE, stage ^= 1) {
        for (int i = threadIdx.x; i < TILE * TILE / 16; i += PRODUCT_THREADS)
            *(int4 *)ws[i % 4][i / 4] = *(const int4 *)(w + (size_t)(n0 + i / 4) * K + k0 + i % 4 * 16);
        if (k0 + TILE < K)
            load(stage ^ 1, k0 + TILE);
        else
            __pipeline_commit();
        __pipeline_wait_prior(fault == ASYNC_COPY ? 2 : 1);
        __syncthreads();
        for (int k = 0; k < 4; k++) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, int8_t, wmma::row_major> a[2];
            wmma::fragment<wmma::matrix_b, 16, 16, 16, int8_t, wmma::col_major> b[2];
            for (int i = 0; i < 2; i++) wmma::load_matrix_sync(a[i], xs[stage][k][wm + i * 16], 16);
            for (int i = 0; i < 2; i++) wmma::load_matrix_sync(b[i], ws[k][wn + i * 16], 16);
            for (int i = 0; i < 4; i++) wmma::mma_sync(sum[i / 2][i % 2], a[i / 2], b[i % 2], sum[i / 2][i % 2]);
        }
        if (fault != TILE_OVERWRITTEN) __syncthreads();
    }
    __pipeline_wait_prior(0);
    for (int i = 0; i < 4; i++)
        wmma::store_matrix_sync(&sums[wm + i / 2 * 16][wn + i % 2 * 16], sum[i / 2][i % 2], TILE, wmma::mem_row_major);
    __syncthreads();
    for (int i = threadIdx.x; i < TILE * TILE; i += PRODUCT_THREADS)
        if (m0 + i / TILE < M || fault == OUT_OF_BOUNDS)
            y[(size_t)(m0 + i / TILE) * N + n0 + i % TILE] = sums[i / TILE][i % TILE];
}

/* ---- y = x reversed within each 32, through shared memory ------------------------------------------------------------------ */

static __global__ void reverse(const float *x, float *y) {
    SHARED(float, held, [2][32]);
    for (int i = 0; i < 4; i++) { /* by turns in two places, so that no barrier is needed ahead of the next store */
        size_t first = (blockIdx.x * 4 + i) * 32;
        held[i % 2][threadIdx.x] = x[first + threadIdx.x];
        if (fault != WARP_BARRIER) __syncwarp();
        y[first + threadIdx.x] = held[i % 2][31 - threadIdx.x];
    }
}

/* ---- sums of columns, that blocks add to ----------------------------------------------------------------------------------- */

static __global__ void column_sums(const float *x, float *sums, int rows, int C) {
    int c = threadIdx.x, first = blockIdx.x * 64;
    float sum = 0;
    if (c >= C) return;
    for (int r = first; r < min(first + 64, rows); r++) sum += x[(size_t)r * C + c];
    if (fault == BLOCKS_RACE)
        sums[c] += sum;
    else
        atomicAdd(&sums[c], sum);
}

/* ---- the host -------------------------------------------------------------------------------------------------------------- */

static uint32_t state = 1;
static float draw(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(int)(state >> 8) / 8388608.0f - 1.0f;
}

template <class T> static T *on_card(const std::vector<T> &x) {
    T *p = nullptr;
    if (cudaMalloc(&p, x.size() * sizeof(T)) != cudaSuccess) exit(2);
    cudaMemcpyAsync(p, x.data(), x.size() * sizeof(T), cudaMemcpyHostToDevice, nullptr);
    cudaStreamSynchronize(nullptr);
    return p;
}

template <class T> static std::vector<T> back(const T *p, size_t n) {
    std::vector<T> x(n);
    cudaMemcpyAsync(x.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, nullptr);
    cudaStreamSynchronize(nullptr);
    cudaFree((void *)p);
    return x;
}

static bool rows_are_right(int M, int C) {
    std::vector<float> x(M * (size_t)C), gain(C);
    for (float &v : x) v = 3 * draw();
    for (float &v : gain) v = 1 + draw() / 2;
    float *xs = on_card(x), *gains = on_card(gain), *scales = on_card(std::vector<float>(M));
    int8_t *qs = on_card(std::vector<int8_t>(x.size()));
    if (fault == SHORT_ARRAY)
        LAUNCH(normalize_rows_short, M, ROW_THREADS, 0, nullptr, xs, gains, qs, scales, C);
    else
        LAUNCH(normalize_rows, M, ROW_THREADS, 0, nullptr, xs, gains, qs, scales, C);
    std::vector<int8_t> q = back(qs, x.size());
    std::vector<float> scale = back(scales, M);
    cudaFree(xs);
    cudaFree(gains);
    for (int m = 0; m < M; m++) {
        const float *row = &x[m * (size_t)C];
        double squares = 0, largest = 0;
        for (int c = 0; c < C; c++) squares += (double)row[c] * (double)row[c];
        double r = 1 / sqrt(squares / C + 1e-5);
        for (int c = 0; c < C; c++) largest = fmax(largest, fabs((double)row[c] * r * (double)gain[c]));
        if (!(fabs((double)scale[m] * 127 / largest - 1) < 1e-5)) return false;
        for (int c = 0; c < C; c++)
            if (!(fabs(q[m * (size_t)C + c] - (double)row[c] * r * (double)gain[c] * 127 / largest) < 0.51)) return false;
    }
    return true;
}

static bool product_is_right(int M, int N, int K) {
    std::vector<int8_t> x(M * (size_t)K), w(N * (size_t)K);
    for (int8_t &v : x) v = (int8_t)(draw() * 127);
    for (int8_t &v : w) v = (int8_t)(draw() * 1.99f);
    int8_t *xs = on_card(x), *ws = on_card(w);
    int *ys = on_card(std::vector<int>(M * (size_t)N));
    LAUNCH(multiply, dim3(N / TILE, (M + TILE - 1) / TILE), PRODUCT_THREADS, 0, nullptr, xs, ws, ys, M, N, K);
    std::vector<int> y = back(ys, M * (size_t)N);
    cudaFree(xs);
    cudaFree(ws);
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            int sum = 0;
            for (int k = 0; k < K; k++) sum += x[m * (size_t)K + k] * w[n * (size_t)K + k];
            if (sum != y[m * (size_t)N + n]) return false;
        }
    return true;
}

static bool order_is_right(int blocks) {
    std::vector<float> x(blocks * (size_t)128);
    for (float &v : x) v = draw();
    float *xs = on_card(x), *ys = on_card(x);
    LAUNCH(reverse, blocks, 32, 0, nullptr, xs, ys);
    std::vector<float> y = back(ys, x.size());
    cudaFree(xs);
    for (size_t i = 0; i < x.size(); i++)
        if (y[i] != x[i / 32 * 32 + 31 - i % 32]) return false;
    return true;
}

static bool sums_are_right(int rows, int C) {
    std::vector<float> x(rows * (size_t)C);
    for (float &v : x) v = (float)(int)(draw() * 9);
    float *xs = on_card(x), *sums = on_card(std::vector<float>(C));
    LAUNCH(column_sums, (rows + 63) / 64, 128, 0, nullptr, xs, sums, rows, C);
    std::vector<float> sum = back(sums, C);
    cudaFree(xs);
    for (int c = 0; c < C; c++) {
        float expected = 0;
        for (int r = 0; r < rows; r++) expected += x[r * (size_t)C + c];
        if (sum[c] != expected) return false;
    }
    return true;
}

/* ---- copies on a stream of their own, to two places in turn ---------------------------------------------------------------- */

static __global__ void add_place(float *sums, const float *place) { sums[threadIdx.x] += place[threadIdx.x]; }

static bool copies_are_right(int rounds) {
    enum { COUNT = 64, PLACES = 2 };
    const size_t bytes = COUNT * sizeof(float);
    cudaStream_t copies, work;
    cudaEvent_t arrived[PLACES], taken[PLACES];
    float *places[PLACES], *sums = on_card(std::vector<float>(COUNT));
    std::vector<float> pinned[PLACES];
    cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking);
    for (int i = 0; i < PLACES; i++) {
        cudaEventCreateWithFlags(&arrived[i], cudaEventDisableTiming);
        cudaEventCreateWithFlags(&taken[i], cudaEventDisableTiming);
        places[i] = on_card(pinned[i] = std::vector<float>(COUNT));
    }
    for (int round = 1; round <= rounds; round++) {
        int i = round % PLACES;
        cudaEventSynchronize(arrived[i]);
        for (int j = 0; j < COUNT; j++) pinned[i][j] = (float)(round * (j + 1));
        if (fault != PLACE_NOT_TAKEN) cudaStreamWaitEvent(copies, taken[i], 0);
        cudaMemcpyAsync(places[i], pinned[i].data(), bytes, cudaMemcpyHostToDevice, copies);
        cudaEventRecord(arrived[i], copies);
        if (fault != ARRIVAL_NOT_AWAITED) cudaStreamWaitEvent(work, arrived[i], 0);
        LAUNCH(add_place, 1, COUNT, 0, work, sums, places[i]);
        cudaEventRecord(taken[i], work);
    }
    cudaStreamSynchronize(work);
    std::vector<float> sum = back(sums, COUNT);
    for (int i = 0; i < PLACES; i++) {
        cudaFree(places[i]);
        cudaEventDestroy(arrived[i]);
        cudaEventDestroy(taken[i]);
    }
    cudaStreamDestroy(work);
    cudaStreamDestroy(copies);
    for (int j = 0; j < COUNT; j++)
        if (sum[j] != (float)(rounds * (rounds + 1) / 2 * (j + 1))) return false;
    return true;
}

int main(int argc, char **argv) {
    fault = argc > 1 ? atoi(argv[1]) : -1;
    if (fault < 0 || fault >= FAULTS) {
        fprintf(stderr, "usage: faults N, from 0 to %d\n", FAULTS - 1);
        return 2;
    }
    bool right = rows_are_right(5, 1000) && rows_are_right(3, 64) && product_is_right(70, 128, 256) &&
                 product_is_right(3, 64, 64) && order_is_right(3) && sums_are_right(130, 100) && copies_are_right(20);
    return right ? 0 : 1;
}
