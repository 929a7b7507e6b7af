// SPDX-License-Identifier: MIT
/* The KV cache and attention over it. A layer holds k and v, each (capacity, Hk, D): f32, or 8-bit codes followed by their
 * scales, f32 (capacity, Hk). 6-bit codes also take one byte each.
 *
 * The keys of a query are split into runs of 128. A block computes the partial result of one run and one head, for one query or
 * for several consecutive queries of a sequence, which then share the reads of the cache. Another kernel adds the partial
 * results in the order of the keys. The result of a query, bit for bit, depends on nothing but its keys. */
#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

enum { RUN = 128, WARPS = RUN / BB_CUDA_WARP, PIECE = 256, MAX_SEQUENCES = 32, TOGETHER = 8 /* queries per block */ };

/* Maximum scratch of one launch, in bytes. */
#define MAX_PARTS_BYTES ((int64_t)64 << 20)

/* The keys or the values of one layer. */
typedef struct cached_matrix {
    void *data;
    float *scale; /* NULL: data is f32 */

    __device__ float code(int64_t i) const { return scale ? (float)((const int8_t *)data)[i] : ((const float *)data)[i]; }
} cached_matrix;

static int64_t data_bytes(const bb_kv *kv) {
    int64_t n = kv->capacity * kv->Hk * kv->D;
    return bb_round_up(kv->type == BB_KV_F32 ? n * (int64_t)sizeof(float) : n, PIECE);
}

static int64_t scale_bytes(const bb_kv *kv) {
    return kv->type == BB_KV_F32 ? 0 : bb_round_up(kv->capacity * kv->Hk * (int64_t)sizeof(float), PIECE);
}

size_t bb_cuda_kv_bytes(bb_device *dev, const bb_kv *kv) {
    (void)dev;
    return (size_t)(2 * kv->layers * (data_bytes(kv) + scale_bytes(kv)));
}

static cached_matrix matrix_of(const bb_kv *kv, int layer, bool values) {
    char *data = (char *)kv->data + (2 * layer + values) * (data_bytes(kv) + scale_bytes(kv));
    return {data, kv->type == BB_KV_F32 ? NULL : (float *)(data + data_bytes(kv))};
}

static float limit_of(bb_kv_type type) { return type == BB_KV_INT8 ? 127.0f : 31.0f; }

/* Some of a batch's sequences, as an argument for kernels. */
typedef struct sequences {
    int count;
    int64_t rows;  /* of all sequences */
    int64_t tiles; /* of all sequences; a tile has up to `together` rows of one sequence */
    int together;
    const int64_t *positions; /* in a captured pass, used instead of `length`; else NULL */
    struct {
        cached_matrix keys, values;
        int64_t length, first, first_tile; /* its first row and first tile among those of all sequences */
        float limit;                       /* largest code */
    } of[MAX_SEQUENCES];

    __device__ int64_t length(int i) const { return positions ? positions[i] : of[i].length; }
    __host__ __device__ int holding_tile(int64_t tile) const {
        int i = 0;
        while (i + 1 < count && tile >= of[i + 1].first_tile) i++;
        return i;
    }
    /* First row of a tile. For the tile after the last, the number of rows. */
    __host__ __device__ int64_t row_of(int64_t tile) const {
        int i = holding_tile(tile);
        return tile == tiles ? rows : of[i].first + (tile - of[i].first_tile) * together;
    }

    __device__ int holding(int64_t row) const {
        int i = 0;
        while (i + 1 < count && row >= of[i + 1].first) i++;
        return i;
    }
} sequences;

/* Takes as many sequences as fit, starting at `first`. */
static sequences sequences_of(const bb_cuda *cuda, const bb_kv_batch *batch, int64_t first) {
    sequences s = {};
    if (cuda->recorded_positions) s.positions = cuda->positions + first;
    s.together = 1;
    for (int64_t i = first; i < batch->B && i < first + MAX_SEQUENCES; i++)
        if (batch->sequences[i].rows >= TOGETHER) s.together = TOGETHER;
    for (; first + s.count < batch->B && s.count < MAX_SEQUENCES; s.count++) {
        const bb_kv_sequence *from = &batch->sequences[first + s.count];
        s.of[s.count].keys = matrix_of(from->kv, batch->layer, false);
        s.of[s.count].values = matrix_of(from->kv, batch->layer, true);
        s.of[s.count].length = from->length;
        s.of[s.count].limit = limit_of(from->kv->type);
        s.of[s.count].first = s.rows;
        s.of[s.count].first_tile = s.tiles;
        s.rows += from->rows;
        s.tiles += bb_ceil_div(from->rows, s.together);
    }
    return s;
}

/* One warp per row and head, for its key or its value. */
static __global__ void __launch_bounds__(RUN)
    append(sequences s, const float *__restrict__ k, const float *__restrict__ v, int64_t stride, int64_t Hk, int64_t D) {
    int64_t item = blockIdx.x * (int64_t)WARPS + threadIdx.x / BB_CUDA_WARP, h = item / 2 % Hk, row = item / 2 / Hk;
    int lane = threadIdx.x % BB_CUDA_WARP, values = (int)(item % 2);
    if (row >= s.rows) return;
    int i = s.holding(row);
    cached_matrix to = values ? s.of[i].values : s.of[i].keys;
    const float *from = (values ? v : k) + row * stride + h * D;
    int64_t at = (s.length(i) + row - s.of[i].first) * Hk + h;
    if (!to.scale) {
        for (int64_t d = lane; d < D; d += BB_CUDA_WARP) ((float *)to.data)[at * D + d] = from[d];
        return;
    }
    float absmax = 0, limit = s.of[i].limit;
    for (int64_t d = lane; d < D; d += BB_CUDA_WARP) absmax = bb_cuda_greater(absmax, from[d]);
    float scale = bb_cuda_scale(bb_cuda_warp_absmax(absmax), limit);
    for (int64_t d = lane; d < D; d += BB_CUDA_WARP) ((int8_t *)to.data)[at * D + d] = bb_cuda_code(from[d], scale, limit);
    if (lane == 0) to.scale[at] = scale;
}

void bb_cuda_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v) {
    bb_cuda_enter(dev);
    const bb_kv *kv = batch->sequences[0].kv;
    for (int64_t b = 0; b < batch->B; b += MAX_SEQUENCES) {
        sequences s = sequences_of(bb_cuda_of(dev), batch, b);
        unsigned blocks = (unsigned)bb_ceil_div(s.rows * kv->Hk * 2, WARPS);
        BB_CUDA_LAUNCH(dev, append, blocks, RUN, 0, s, k, v, batch->kv_stride, kv->Hk, kv->D);
        k += s.rows * batch->kv_stride;
        v += s.rows * batch->kv_stride;
    }
}

static __global__ void __launch_bounds__(RUN)
    unpack(float *__restrict__ to, cached_matrix m, int64_t first, int64_t n, int64_t D) {
    for (BB_CUDA_GRID_STRIDE(i, n)) to[i] = m.scale ? m.scale[(first + i) / D] * m.code(first + i) : m.code(first + i);
}

void bb_cuda_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n) {
    bb_cuda_enter(dev);
    int64_t width = kv->Hk * kv->D, count = n * width;
    if (count == 0) return;
    unsigned blocks = bb_cuda_blocks(dev, count, RUN);
    BB_CUDA_LAUNCH(dev, unpack, blocks, RUN, 0, k, matrix_of(kv, layer, false), first * width, count, kv->D);
    BB_CUDA_LAUNCH(dev, unpack, blocks, RUN, 0, v, matrix_of(kv, layer, true), first * width, count, kv->D);
}

/* ---- attention over the cache ------------------------------------------------------------------------------------------- */

typedef struct cached_shape {
    int64_t tile;  /* first tile of the launch, among the tiles of s */
    int64_t first; /* first row of the launch */
    int64_t runs;  /* runs per row that parts has room for */
    int64_t H, Hk, D;
    int64_t q_stride, o_stride;
    float scale;
} cached_shape;

/* parts: (rows, H, runs, D + 2): the largest score, the sum of e^(score - largest), and the sum of the values with these
 * weights. Thread i handles key i of the run, then elements i, i + RUN, … of the output. */
template <int ROWS>
static __global__ void __launch_bounds__(RUN)
    attend(float *__restrict__ parts, const float *__restrict__ q, sequences s, cached_shape c) {
    SHARED(float, maxima, [WARPS]);
    SHARED(double, partial, [WARPS]);
    SHARED(float, weights, [ROWS][RUN]);
    int64_t tile = c.tile + blockIdx.x, h = blockIdx.y, hk = h / (c.H / c.Hk), run = blockIdx.z;
    int i = s.holding_tile(tile);
    int64_t row = s.row_of(tile), end = i + 1 < s.count ? s.of[i + 1].first : s.rows;
    int rows = (int)min(end - row, (int64_t)ROWS);
    int64_t seen = s.length(i) + row - s.of[i].first + 1 /* by the first row */, first = run * RUN, key = first + threadIdx.x;
    if (first >= seen + rows - 1) return;
    cached_matrix keys = s.of[i].keys, values = s.of[i].values;
    const float *query[ROWS];
    float dot[ROWS] = {};
    BB_CUDA_UNROLL
    for (int r = 0; r < ROWS; r++) query[r] = q + (row + min(r, rows - 1)) * c.q_stride + h * c.D;
    int64_t at = key * c.Hk + hk;
    bool seen_by_one = key < seen + rows - 1;
    for (int64_t d = 0; d < c.D && seen_by_one; d++) {
        float code = keys.code(at * c.D + d);
        BB_CUDA_UNROLL
        for (int r = 0; r < ROWS; r++) dot[r] = fmaf(query[r][d], code, dot[r]);
    }
    BB_CUDA_UNROLL
    for (int r = 0; r < ROWS; r++) {
        bool sees = key < seen + r;
        float score = -INFINITY;
        if (sees && r < rows) score = c.scale * (keys.scale ? keys.scale[at] * dot[r] : dot[r]);
        float max = score;
        for (int distance = BB_CUDA_WARP / 2; distance; distance /= 2)
            max = fmaxf(max, __shfl_xor_sync(BB_CUDA_ALL_LANES, max, distance));
        if (threadIdx.x % BB_CUDA_WARP == 0) maxima[threadIdx.x / BB_CUDA_WARP] = max;
        __syncthreads();
        for (int w = 0; w < WARPS; w++) max = fmaxf(max, maxima[w]);
        float p = sees && r < rows ? expf(score - max) : 0.0f;
        weights[r][threadIdx.x] = sees && values.scale ? p * values.scale[at] : p;
        float sum = (float)bb_cuda_block_sum((double)p, partial);
        float *to = parts + ((row + r - c.first) * c.H + h) * c.runs * (c.D + 2) + run * (c.D + 2);
        if (threadIdx.x == 0 && r < rows && first < seen + r) {
            to[0] = max;
            to[1] = sum;
        }
    }
    int64_t count = min(seen + rows - 1 - first, (int64_t)RUN);
    for (int64_t d = threadIdx.x; d < c.D; d += RUN) {
        float weighted[ROWS] = {};
        for (int64_t j = 0; j < count; j++) {
            float code = values.code(((first + j) * c.Hk + hk) * c.D + d);
            BB_CUDA_UNROLL
            for (int r = 0; r < ROWS; r++)
                if (first + j < seen + r) weighted[r] = fmaf(weights[r][j], code, weighted[r]);
        }
        BB_CUDA_UNROLL
        for (int r = 0; r < ROWS; r++)
            if (r < rows && first < seen + r)
                parts[((row + r - c.first) * c.H + h) * c.runs * (c.D + 2) + run * (c.D + 2) + 2 + d] = weighted[r];
    }
}

static __global__ void __launch_bounds__(RUN)
    combine(float *__restrict__ o, const float *__restrict__ parts, sequences s, cached_shape c) {
    int64_t row = c.first + blockIdx.x, h = blockIdx.y;
    int i = s.holding(row);
    int64_t seen = s.length(i) + row - s.of[i].first + 1, runs = (seen + RUN - 1) / RUN, size = c.D + 2;
    const float *from = parts + (blockIdx.x * c.H + h) * c.runs * size;
    float max = -INFINITY, sum = 0;
    for (int64_t r = 0; r < runs; r++) max = fmaxf(max, from[r * size]);
    for (int64_t r = 0; r < runs; r++) sum += expf(from[r * size] - max) * from[r * size + 1];
    for (int64_t d = threadIdx.x; d < c.D; d += RUN) {
        float weighted = 0;
        for (int64_t r = 0; r < runs; r++) weighted += expf(from[r * size] - max) * from[r * size + 2 + d];
        o[row * c.o_stride + h * c.D + d] = weighted / sum;
    }
}

void bb_cuda_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    bb_cuda_enter(dev);
    const bb_kv *kv = batch->sequences[0].kv;
    for (int64_t b = 0; b < batch->B; b += MAX_SEQUENCES) {
        sequences s = sequences_of(bb_cuda_of(dev), batch, b);
        int64_t capacity = 0, seen = 0;
        for (int i = 0; i < s.count; i++) {
            const bb_kv_sequence *of = &batch->sequences[b + i];
            capacity = bb_max(capacity, of->kv->capacity);
            seen = bb_max(seen, of->length + of->rows);
        }
        if (s.positions) seen = capacity; /* blocks past the keys seen exit at once */
        /* room for a full cache, so that scratch does not grow as the cache fills */
        cached_shape c = {0,
                          0,
                          bb_ceil_div(capacity, RUN),
                          batch->H,
                          kv->Hk,
                          kv->D,
                          batch->q_stride,
                          batch->o_stride,
                          (float)(1.0 / sqrt((double)kv->D))};
        int64_t row_bytes = c.H * c.runs * (c.D + 2) * (int64_t)sizeof(float), tile_bytes = s.together * row_bytes;
        int64_t most = bb_clamp(MAX_PARTS_BYTES / tile_bytes, 1, s.tiles); /* tiles per launch */
        float *parts = (float *)bb_cuda_scratch(dev, (size_t)(most * tile_bytes));
        if (!parts) return;
        for (; c.tile < s.tiles; c.tile += most) {
            int64_t tiles = bb_min(s.tiles - c.tile, most);
            c.first = s.row_of(c.tile);
            dim3 grid((unsigned)tiles, (unsigned)c.H, (unsigned)bb_ceil_div(seen, RUN));
            if (s.together == 1)
                BB_CUDA_LAUNCH(dev, attend<1>, grid, RUN, 0, parts, q, s, c);
            else
                BB_CUDA_LAUNCH(dev, attend<TOGETHER>, grid, RUN, 0, parts, q, s, c);
            unsigned rows = (unsigned)(s.row_of(c.tile + tiles) - c.first);
            BB_CUDA_LAUNCH(dev, combine, dim3(rows, (unsigned)c.H), RUN, 0, o, parts, s, c);
        }
        q += s.rows * batch->q_stride;
        o += s.rows * batch->o_stride;
    }
}
