// SPDX-License-Identifier: MIT
/* Writes a TensorBoard event file: scalars, text, histograms, hyperparameters.
 *
 * The file is a sequence of TFRecords: length (8 bytes, little-endian), masked CRC-32C of these 8 bytes (4 bytes), that many
 * bytes, their masked CRC-32C. The mask of c is (c >> 15 | c << 17) + 0xa282ead8. Each record is one Event in protocol
 * buffers' wire format; the field numbers, from TensorBoard's event.proto, summary.proto and the hparams plugin's
 * plugin_data.proto, stand at each place that writes one. */
#ifndef BB_PROGRAMS_TENSORBOARD_H
#define BB_PROGRAMS_TENSORBOARD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct bb_tensorboard bb_tensorboard;

/* Creates a new file in `dir`, events.out.tfevents.TIME.HOST.PID. first_step > 0: TensorBoard discards later steps found in
 * earlier files of the directory. Returns NULL with errno on failure. */
bb_tensorboard *bb_tensorboard_open(const char *dir, int64_t first_step);
void bb_tensorboard_scalar(bb_tensorboard *board, int64_t step, const char *tag, double value);
void bb_tensorboard_text(bb_tensorboard *board, int64_t step, const char *tag, const char *text);
/* Writes a histogram of n >= 1 finite values. */
void bb_tensorboard_histogram(bb_tensorboard *board, int64_t step, const char *tag, const float *values, int64_t n);
/* options: an object whose numbers, strings and booleans become hyperparameters. */
void bb_tensorboard_hparams(bb_tensorboard *board, const json_t *options);
/* Flushes what was written. Returns false with errno if a write failed. */
bool bb_tensorboard_flush(bb_tensorboard *board);
bool bb_tensorboard_close(bb_tensorboard *board);

#endif
