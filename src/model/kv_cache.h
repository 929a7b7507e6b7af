// SPDX-License-Identifier: MIT
/* The keys and values of the bytes read so far, which a cached forward pass attends to and extends. At long lengths they are
 * most of what decoding reads, so the default is six bits, which use a third of the allowed loss in quality
 * (docs/PERFORMANCE.md). The backend's layout touches memory only as the cache fills: the first byte does not wait for the
 * pages of a context that may never be used. */
#ifndef BB_MODEL_KV_CACHE_H
#define BB_MODEL_KV_CACHE_H

#include "model/model.h"

typedef struct bb_kv_cache {
    bb_device *device;
    bb_kv kv;
    size_t bytes;   /* of kv.data */
    int64_t length; /* filled positions; the caller may reset it to a smaller length and read other bytes from there */
    uint8_t *
        text; /* (capacity) the bytes at the filled positions; NULL for models without n-gram embeddings, which don't look back */
} bb_kv_cache;

enum { BB_PREFILL_ROWS = 256 }; /* bytes processed at a time, which keeps the workspace small */

/* Bytes of a cache, and of the workspace for reading into it. */
size_t bb_kv_cache_bytes(bb_device *device, const bb_config *config, int64_t capacity, bb_kv_type type);
size_t bb_kv_cache_workspace_bytes(bb_device *device, const bb_config *config, int64_t capacity);
/* Opens an empty cache. Also reserves the model's workspace for reading into it. */
bb_status bb_kv_cache_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err);
void bb_kv_cache_close(bb_kv_cache *cache);
/* The first n positions become those of another cache of the same model and type. */
void bb_kv_cache_copy(bb_kv_cache *to, const bb_kv_cache *from, int64_t n);

#endif
