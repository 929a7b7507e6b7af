// SPDX-License-Identifier: MIT
/* Reads GGUF, llama.cpp's format. docs/FORMAT.md. */
#ifndef BB_MODELFILE_GGUF_H
#define BB_MODELFILE_GGUF_H

#include "modelfile/tensor_source.h"

bool bb_gguf_matches(const uint8_t *head, size_t size);
/* Takes ownership of `input`, even on failure. Metadata values are available as text if they are strings, numbers or booleans;
 * arrays are not. */
bb_status bb_gguf_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);

/* Fails with BB_ERR_UNSUPPORTED if the file has a vocabulary in which token b is not byte b. */
bb_status bb_gguf_check_tokens(const bb_tensor_source *s, bb_error *err);

#endif
