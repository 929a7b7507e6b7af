// SPDX-License-Identifier: MIT
/* Forward passes: cached ones for generation, and the logits of the others, which are in bitbyte.h. */
#ifndef BB_MODEL_FORWARD_H
#define BB_MODEL_FORWARD_H

#include "model/kv_cache.h"

enum { BB_CACHED_PARTS = 512 };

/* The rows of one sequence in a pass over several, and which results are wanted. */
typedef struct bb_cached_rows {
    bb_kv_cache *cache;   /* the pass appends to it; each part has its own */
    const uint8_t *bytes; /* (rows), rows >= 1, at positions length .. length+rows-1 (<= capacity) */
    int64_t rows;
    int64_t wanted; /* number of last rows with results: */
    float *logits;  /* host (wanted,V), or NULL */
    float *hidden;  /* host (wanted,C), or NULL: the input of the head */
} bb_cached_rows;

/* Runs one pass over the rows of 1 <= count <= BB_CACHED_PARTS sequences. The caller must have reserved their sum
 * (bb_model_reserve_rows). Each sequence gets the same results as alone. */
bb_status bb_model_forward_parts(bb_model *model, const bb_cached_rows *parts, int64_t count, bb_error *err);
/* Runs n >= 1 bytes at positions length .. length+n-1 (<= capacity) through the model and appends them to the cache. Returns
 * the logits of the last byte (all = false: (V)) or of all (n,V) in host memory. */
bb_status bb_model_forward_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *bytes, int64_t n, bool all, float *logits,
                                  bb_error *err);
/* Reads x[0..n) like decoding, from an empty cache of capacity n or more. nll[i]: nats of y[i] after x[0] .. x[i]. */
bb_status bb_model_nll_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *x, const uint8_t *y, int64_t n, float *nll,
                              bb_error *err);

/* Copies the logits of the last pass of bb_model_forward or bb_model_loss over `rows` bytes to host memory (rows,V). */
bb_status bb_model_copy_logits(bb_model *model, int64_t rows, float *logits, bb_error *err);

#endif
