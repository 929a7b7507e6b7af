// SPDX-License-Identifier: MIT
/* Cached forward passes for generation. The other passes are in bitbyte.h. */
#ifndef BB_MODEL_FORWARD_H
#define BB_MODEL_FORWARD_H

#include "model/kv_cache.h"

/* Runs n >= 1 bytes at positions length .. length+n-1 (<= capacity) through the model and appends them to the cache. Returns
 * the logits of the last byte (all = false: (V)) or of all (n,V) in host memory. */
bb_status bb_model_forward_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *bytes, int64_t n, bool all, float *logits,
                                  bb_error *err);
/* Reads x[0..n) the way decoding does, from an empty cache of capacity n or more. nll[i]: nats of y[i] after x[0] .. x[i]. */
bb_status bb_model_nll_cached(bb_model *model, bb_kv_cache *cache, const uint8_t *x, const uint8_t *y, int64_t n, float *nll,
                              bb_error *err);

#endif
