// SPDX-License-Identifier: MIT
/* Which model a compressed stream was made with. */
#ifndef BB_CODING_MODEL_HASH_H
#define BB_CODING_MODEL_HASH_H

#include "core/status.h"

enum { BB_MODEL_HASH_BYTES = 16 };

/* Hash of what inference uses: configuration, scales and codes of ternary weights, other weights. A checkpoint and the packed file
 * made of it have the same. */
bb_status bb_model_hash(bb_model *model, uint8_t out[BB_MODEL_HASH_BYTES], bb_error *err);

#endif
