// SPDX-License-Identifier: MIT
/* Maps a block to its part of an attention operation, and that part to memory offsets. */
#ifndef BB_OPS_CUDA_ATTENTION_H
#define BB_OPS_CUDA_ATTENTION_H

#include "ops/cuda/kernel.h"

enum { BB_CUDA_ATTENTION_TILE = 64 };

typedef struct bb_cuda_attention_block {
    int64_t b, h, first; /* sequence; head of the queries or of the keys; first query or key */
} bb_cuda_attention_block;

/* Maps blockIdx.x to a tile of queries of one head and sequence. The blocks of the last tile come first, because it sees the
 * most keys. */
__device__ static inline bb_cuda_attention_block bb_cuda_query_block(const bb_attention &a) {
    int64_t tiles = (a.Tq + BB_CUDA_ATTENTION_TILE - 1) / BB_CUDA_ATTENTION_TILE, head = blockIdx.x % (a.B * a.H);
    int64_t tile = tiles - 1 - blockIdx.x / (a.B * a.H);
    return {head / a.H, head % a.H, tile * BB_CUDA_ATTENTION_TILE};
}

/* The same for a tile of keys. The blocks of the first tile come first, because the most queries see it. */
__device__ static inline bb_cuda_attention_block bb_cuda_key_block(const bb_attention &a) {
    int64_t head = blockIdx.x % (a.B * a.Hk);
    return {head / a.Hk, head % a.Hk, blockIdx.x / (a.B * a.Hk) * (int64_t)BB_CUDA_ATTENTION_TILE};
}

/* Offset of the head's first row in the block's sequence. */
__device__ static inline int64_t bb_cuda_q_at(const bb_attention &a, const bb_cuda_attention_block &block) {
    return block.b * a.Tq * a.q_stride + block.h * a.D;
}
__device__ static inline int64_t bb_cuda_o_at(const bb_attention &a, const bb_cuda_attention_block &block) {
    return block.b * a.Tq * a.o_stride + block.h * a.D;
}
/* block.h is a head of the queries. */
__device__ static inline int64_t bb_cuda_kv_at(const bb_attention &a, const bb_cuda_attention_block &block) {
    return block.b * a.kv_batch_stride + block.h / (a.H / a.Hk) * a.D;
}

#endif
