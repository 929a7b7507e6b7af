// SPDX-License-Identifier: MIT
/* The model configuration as JSON, as stored in every model file under __metadata__.config. */
#ifndef BB_MODEL_CONFIG_H
#define BB_MODEL_CONFIG_H

#include <jansson.h>

#include "core/status.h"

/* {"vocab_size":…,"n_layer":…,…,"ste":"identity"}; NULL when out of memory. The caller owns the reference. */
json_t *bb_config_to_json(const bb_config *config);
/* Reads and checks a configuration; `where` names the file in messages. A missing n_kv_head means n_head; other keys are
 * required except rope_base, norm_eps, act_quant and ste, which default as in SPEC. Unknown keys are ignored. */
bb_status bb_config_from_json(const char *text, const char *where, bb_config *out, bb_error *err);
/* The names of bb_config_of_size, smallest first. */
enum { BB_SIZES = 7 };
const char *bb_size_name(int index);
/* The shapes that benchmarks name: S, M and L. batch_size: sequences per training step in benchmarks; may be NULL. */
bb_status bb_config_of_shape(const char *name, bb_config *out, int *batch_size, bb_error *err);
const char *bb_ste_name(bb_ste ste);

#endif
