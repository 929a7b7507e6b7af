// SPDX-License-Identifier: MIT
/* The forward pass of attention where a backward pass follows, by instruction set, in an order of its own; sets without one use
 * forward_set.h. */
#ifndef BB_OPS_CPU_TRAINING_SET_H
#define BB_OPS_CPU_TRAINING_SET_H

#include "ops/cpu/attention/forward_set.h"

/* Keys and values are packed first, a tile of them at a time, for all queries; then each task takes a tile of queries. */
typedef struct bb_training_set {
    int64_t queries, keys;      /* of a tile */
    size_t (*bytes)(int64_t D); /* scratch of a thread at a head of D elements */
    /* Of a packed tile of keys; with pack_keys NULL if a task packs its own. */
    size_t (*keys_bytes)(int64_t D);
    /* Packs keys from key0 on of KV head t->h of sequence t->b. */
    void (*pack_keys)(void *to, const forward_tile *t, int64_t key0, void *scratch);
    /* Queries t0 .. t0+queries-1 of a head. packed: all tiles of the head's keys. */
    void (*tile)(const forward_tile *t, const char *packed, void *scratch);
} bb_training_set;

#ifdef __x86_64__
extern const bb_training_set bb_training_avx2, bb_training_avx_vnni, bb_training_avx512_vnni, bb_training_avx512_amx;
#endif

#endif
