// SPDX-License-Identifier: MIT
/* n-gram embeddings (bb_config.ngram_max): vectors for the last two, three, … bytes, added to the embedding of a byte. A layer
 * would have to learn with attention which bytes precede a byte; here a table row, selected by a hash of these bytes, provides
 * it directly (arXiv:2412.09871, section 3.2.1). n-grams with the same hash share a row. */
#ifndef BB_MODEL_NGRAM_H
#define BB_MODEL_NGRAM_H

#include "core/status.h"
#include "ops/ops.h"

/* Returns the number of rows that each byte looks up: one for each n from 2 to ngram_max. */
static inline int64_t bb_ngram_count(const bb_config *config) { return config->ngram_max ? config->ngram_max - 1 : 0; }

/* index (n, bb_ngram_count): the rows that text[0] … text[n-1] look up; -1 if the sequence has fewer bytes. The `before` bytes
 * that precede text[0] in memory belong to the same sequence. */
void bb_ngram_index(const bb_config *config, const uint8_t *text, int64_t before, int64_t n, int32_t *index);

/* Returns the device memory for the codes and scales of a model for inference; 0 without n-gram embeddings. */
size_t bb_ngram_bytes(const bb_config *config);
/* Returns the table in that memory. */
bb_ngram_table bb_ngram_codes(const bb_config *config, void *memory);

#endif
