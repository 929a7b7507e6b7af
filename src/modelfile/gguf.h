// SPDX-License-Identifier: MIT
/* The reader of GGUF, the format of llama.cpp. docs/FORMAT.md. */
#ifndef BB_MODELFILE_GGUF_H
#define BB_MODELFILE_GGUF_H

#include "modelfile/tensor_source.h"

bool bb_gguf_matches(const uint8_t *head, size_t size);
/* Takes the input over, also on failure. The source's metadata are strings, and numbers and booleans as text; not arrays. */
bb_status bb_gguf_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);

/* BB_ERR_UNSUPPORTED where the file has a vocabulary in which token b is not byte b. */
bb_status bb_gguf_check_tokens(const bb_tensor_source *s, bb_error *err);

#endif
