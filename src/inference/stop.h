// SPDX-License-Identifier: MIT
/* Stop texts: whether the bytes written so far end with one, and how many of the last bytes may yet become one. */
#ifndef BB_INFERENCE_STOP_H
#define BB_INFERENCE_STOP_H

#include "core/status.h"

/* One Knuth-Morris-Pratt automaton a text. */
typedef struct bb_stop {
    const bb_bytes *texts; /* (count), the caller's, and stay so */
    int count;
    size_t **borders; /* (count) of (size): of the first i+1 bytes, the longest proper prefix that is also their end */
    size_t *matched;  /* (count): bytes of each text that the output ends with */
} bb_stop;

enum { BB_STOP_MAX_BYTES = 1 << 12 };

/* A text must have from 1 to BB_STOP_MAX_BYTES bytes. */
bb_status bb_stop_open(const bb_bytes *texts, int count, bb_stop *out, bb_error *err);
void bb_stop_close(bb_stop *stop);
/* Takes the next byte. Returns the text that the output now ends with, the longest if several, or -1. */
int bb_stop_push(bb_stop *stop, uint8_t byte);
/* How many of the last bytes are the beginning of a text: they can't be shown yet. */
size_t bb_stop_held(const bb_stop *stop);

#endif
