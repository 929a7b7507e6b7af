// SPDX-License-Identifier: MIT
/* The keys and values of the bytes read so far, which a cached forward pass attends to and extends. Far into a text they are
 * most of what decoding reads, so the default is six bits, which cost a third of what quality may (docs/PERFORMANCE.md). The
 * backend lays them out so that memory is taken as the cache fills: the first byte does not wait for the pages of a context that
 * may never be used. */
#ifndef BB_MODEL_KV_CACHE_H
#define BB_MODEL_KV_CACHE_H

#include "model/model.h"

typedef struct bb_kv_cache {
    bb_device *device;
    bb_kv kv;
    size_t bytes;   /* of kv.data */
    int64_t length; /* filled positions; the caller may set it back and read other bytes from there on */
} bb_kv_cache;

enum { BB_PREFILL_ROWS = 256 }; /* bytes that go through the model at a time, so that the workspace stays small */

/* Bytes of a cache, and of the workspace that reading into it takes. */
size_t bb_kv_cache_bytes(bb_device *device, const bb_config *config, int64_t capacity, bb_kv_type type);
size_t bb_kv_cache_workspace_bytes(bb_device *device, const bb_config *config, int64_t capacity);
/* An empty cache. Also reserves the model's workspace for reading into it. */
bb_status bb_kv_cache_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err);
void bb_kv_cache_close(bb_kv_cache *cache);

#endif
