// SPDX-License-Identifier: MIT
/* The model configuration as JSON, as stored in every model file under __metadata__.config. */
#ifndef BB_MODEL_CONFIG_H
#define BB_MODEL_CONFIG_H

#include <jansson.h>

#include "core/status.h"

enum { BB_NGRAM_MAX = 7 }; /* upper limit of ngram_max */
/* Returns the rows of the table of n-gram embeddings, or 0. */
int64_t bb_config_ngram_rows(const bb_config *config);
/* Returns {"vocab_size":…,"n_layer":…,…,"ste":"identity"}, with ngram_max and ngram_bits if they are not 0, and dense if true; NULL
 * if out of memory. The caller owns the reference. */
json_t *bb_config_to_json(const bb_config *config);
/* Parses and validates a configuration; `where` names the file in messages. A missing n_kv_head means n_head; other keys are
 * required except rope_base, norm_eps, act_quant, ste, ngram_max, ngram_bits and dense, which default as in SPEC, or to 0 or false. Unknown keys
 * are ignored. */
bb_status bb_config_from_json(const char *text, const char *where, bb_config *out, bb_error *err);
/* Names for bb_config_of_size, smallest first. */
enum { BB_SIZES = 7 };
const char *bb_size_name(int index);
/* The benchmark shapes S, M and L. batch_size: sequences per training step in benchmarks; may be NULL. */
bb_status bb_config_of_shape(const char *name, bb_config *out, int *batch_size, bb_error *err);
const char *bb_ste_name(bb_ste ste);

#endif
