// SPDX-License-Identifier: MIT
/* Identifies the model of a compressed stream. */
#ifndef BB_CODING_MODEL_HASH_H
#define BB_CODING_MODEL_HASH_H

#include "core/status.h"

enum { BB_MODEL_HASH_BYTES = 16 };

/* Hashes what inference uses: the configuration, the scales and codes of ternary weights, the other weights. A checkpoint and a
 * packed file made from it have the same hash. */
bb_status bb_model_hash(bb_model *model, uint8_t out[BB_MODEL_HASH_BYTES], bb_error *err);

#endif
