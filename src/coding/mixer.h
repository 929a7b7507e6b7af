// SPDX-License-Identifier: MIT
/* Mixes the model's prediction of a byte with predictions from the bytes before it: hashed contexts of order 1 to 6, the
 * current word, and the longest match. It predicts bit by bit with online logistic mixing (Mahoney, "Adaptive weighing of
 * context models", 2005), in integers only, so that the results are the same on every machine. */
#ifndef BB_CODING_MIXER_H
#define BB_CODING_MIXER_H

#include "core/status.h"

enum {
    BB_MIXER_BITS = 16, /* of a probability */
    BB_MIXER_BYTES_A_BYTE =
        256 /* bytes of contexts for each byte of the text; a text without repetition fills 14 of every 64 */
};

typedef struct bb_mixer bb_mixer;

bb_status bb_mixer_open(bb_mixer **out, bb_error *err);
void bb_mixer_close(bb_mixer *mixer);
/* Forgets everything before a new text of `size` bytes. The contexts take BB_MIXER_BYTES_A_BYTE bytes for each byte, rounded up
 * to a power of two, at least 256 KB and at most 2^bits. Predictions depend on this size, because collisions do. */
bb_status bb_mixer_clear(bb_mixer *mixer, size_t size, int bits, bb_error *err);
/* Starts the byte after text[0 .. position - 1]. counts: the prediction of the model (256), see counts.h. */
void bb_mixer_begin_byte(bb_mixer *mixer, const uint8_t *text, size_t position, const uint32_t *counts);
/* Returns the probability that the next bit is 1, from 1 to 2^BB_MIXER_BITS - 1. The highest bit comes first. */
uint32_t bb_mixer_predict(bb_mixer *mixer);
void bb_mixer_update(bb_mixer *mixer, int bit);

#endif
