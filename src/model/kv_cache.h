// SPDX-License-Identifier: MIT
/* The keys and values of the bytes read so far, which a cached forward pass attends to and extends. With long contexts they are
 * most of the data that decoding reads, so the default is six bits, which uses a third of the permitted quality loss
 * (docs/PERFORMANCE.md). The backend's layout touches memory only as the cache fills: the first byte does not wait for the
 * pages of a context that may never be used. */
#ifndef BB_MODEL_KV_CACHE_H
#define BB_MODEL_KV_CACHE_H

#include "model/model.h"

typedef struct bb_kv_cache {
    bb_device *device;
    bb_kv kv;
    size_t bytes; /* of kv.data */
    /* Number of filled positions; the caller may reset it to a smaller length and read other bytes from there. */
    int64_t length;
    uint8_t *
        /* (capacity): the bytes at the filled positions; NULL for models without n-gram embeddings, which do not need them. */
        text;
} bb_kv_cache;

enum { BB_PREFILL_ROWS = 256 }; /* bytes processed at a time, which keeps the workspace small */

/* Return the size of a cache, and of the workspace for reading into it. */
size_t bb_kv_cache_bytes(bb_device *device, const bb_config *config, int64_t capacity, bb_kv_type type);
size_t bb_kv_cache_workspace_bytes(bb_device *device, const bb_config *config, int64_t capacity);
/* Opens an empty cache, and reserves the model's workspace for reading into it. */
bb_status bb_kv_cache_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err);
void bb_kv_cache_close(bb_kv_cache *cache);
/* Copies the first n positions of another cache of the same model and type. */
void bb_kv_cache_copy(bb_kv_cache *to, const bb_kv_cache *from, int64_t n);

#endif
