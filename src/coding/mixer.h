// SPDX-License-Identifier: MIT
/* Mixes the model's prediction of a byte with what the bytes before it say: hashed contexts of order 1 to 6, the word, and the longest
 * match. Bit by bit, by online logistic mixing (Mahoney, "Adaptive weighing of context models", 2005), in integers alone: the same on
 * every machine. */
#ifndef BB_CODING_MIXER_H
#define BB_CODING_MIXER_H

#include "core/status.h"

enum {
    BB_MIXER_BITS = 16,         /* of a probability */
    BB_MIXER_BYTES_A_BYTE = 256 /* of contexts for each of the text, which needs 14 of 64 where nothing comes again */
};

typedef struct bb_mixer bb_mixer;

bb_status bb_mixer_open(bb_mixer **out, bb_error *err);
void bb_mixer_close(bb_mixer *mixer);
/* Forgets everything: a text of `size` bytes begins. Contexts take the least power of two of bytes, from 256 KB on, that is
 * BB_MIXER_BYTES_A_BYTE for each byte, but at most 2^bits: as collisions do, what they predict depends on that. */
bb_status bb_mixer_clear(bb_mixer *mixer, size_t size, int bits, bb_error *err);
/* The byte behind text[0 .. position - 1] comes, of which the model gives these counts (256, see counts.h). */
void bb_mixer_begin_byte(bb_mixer *mixer, const uint8_t *text, size_t position, const uint32_t *counts);
/* The probability that the next bit is 1, 1 to 2^BB_MIXER_BITS - 1. Bits come highest first. */
uint32_t bb_mixer_predict(bb_mixer *mixer);
void bb_mixer_update(bb_mixer *mixer, int bit);

#endif
