// SPDX-License-Identifier: MIT
/* Stop texts: detects whether the output ends with one, and how many of its last bytes may still become one. */
#ifndef BB_INFERENCE_STOP_H
#define BB_INFERENCE_STOP_H

#include "core/status.h"

/* One Knuth-Morris-Pratt automaton per text. */
typedef struct bb_stop {
    const bb_bytes *texts; /* (count), owned by the caller */
    int count;
    size_t **borders; /* (count) of (size): for the first i+1 bytes, the longest proper prefix that is also a suffix */
    size_t *matched;  /* (count): length of the prefix of each text that the output ends with */
} bb_stop;

enum { BB_STOP_MAX_BYTES = 1 << 12 };

/* Each text has 1 to BB_STOP_MAX_BYTES bytes. */
bb_status bb_stop_open(const bb_bytes *texts, int count, bb_stop *out, bb_error *err);
void bb_stop_close(bb_stop *stop);
/* Processes the next byte. Returns the index of the text that the output now ends with (the longest one), or -1. */
int bb_stop_push(bb_stop *stop, uint8_t byte);
/* Returns the number of last bytes that may begin a stop text and so cannot be shown yet. */
size_t bb_stop_held(const bb_stop *stop);

#endif
