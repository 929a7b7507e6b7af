// SPDX-License-Identifier: MIT
/* Integer counts for entropy coding, computed from logits with our own arithmetic in a fixed order, so that they are the same
 * on every processor. The C library's exp differs between versions in the last bit, which would garble everything after it. */
#ifndef BB_CODING_COUNTS_H
#define BB_CODING_COUNTS_H

#include <stdint.h>

enum { BB_COUNTS_SYMBOLS = 256, BB_COUNTS_BITS = 24, BB_COUNTS_TOTAL = 1 << BB_COUNTS_BITS };

/* counts: about BB_COUNTS_TOTAL * softmax(logits), each at least 1, with the sum BB_COUNTS_TOTAL. logits: (256); NaN counts as
 * unlikely. */
void bb_counts_from_logits(const float *logits, uint32_t *counts);

#endif
