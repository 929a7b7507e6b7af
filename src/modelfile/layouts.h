// SPDX-License-Identifier: MIT
/* The layouts that are known; each stands in a layout_*.c. */
#ifndef BB_MODELFILE_LAYOUTS_H
#define BB_MODELFILE_LAYOUTS_H

#include "modelfile/model_source.h"

#define BB_MODEL_FILE_FORMAT "bitbyte"       /* __metadata__.format: ternary tensors are f32 masters */
#define BB_PACKED_FILE_FORMAT "bitbyte-2bit" /* ternary tensors are codes, each with a scale */
#define BB_SCALE_SUFFIX "_scale"             /* of the name of a packed tensor's scale */

extern const bb_model_layout bb_layout_bitbyte;  /* checkpoints and model files of ours */
extern const bb_model_layout bb_layout_packed;   /* what export writes */
extern const bb_model_layout bb_layout_original; /* the PyTorch original's */
extern const bb_model_layout bb_layout_gguf;     /* llama.cpp's, of the llama architecture */

/* The length under a key of the metadata (NULL: "trained_length"), or the default. */
int bb_layout_trained_length(const bb_tensor_source *s, const char *key);

/* A piece of packed codes, from byte `at` of the tensor: none is 3. */
bb_status bb_packed_check_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                size_t size, bb_error *err);

#endif
