// SPDX-License-Identifier: MIT
/* Integer counts for entropy coding, from logits, by arithmetic of our own in a fixed order: the same on every processor. The C
 * library's exp differs between versions, by a last bit that would turn everything behind it into noise. */
#ifndef BB_CODING_COUNTS_H
#define BB_CODING_COUNTS_H

#include <stdint.h>

enum { BB_COUNTS_SYMBOLS = 256, BB_COUNTS_BITS = 24, BB_COUNTS_TOTAL = 1 << BB_COUNTS_BITS };

/* counts: about BB_COUNTS_TOTAL * softmax(logits), at least 1 each, with that sum. logits: (256); values that are not numbers count
 * as unlikely. */
void bb_counts_from_logits(const float *logits, uint32_t *counts);

#endif
