// SPDX-License-Identifier: MIT
/* Reads files of torch.save: a zip archive of a pickle and its storages. A tensor's name is the path of keys that leads to it
 * ("model.tok_emb.weight"); metadata(KEY) is the JSON text of a top-level value. Nothing in the file is executed. */
#ifndef BB_MODELFILE_TORCH_PT_H
#define BB_MODELFILE_TORCH_PT_H

#include "modelfile/tensor_source.h"

/* Returns whether the first bytes are those of such a file, or of the format before PyTorch 1.6, which is refused on
 * opening. */
bool bb_torch_pt_matches(const uint8_t *head, size_t size);
/* Takes ownership of `input`, even on failure. */
bb_status bb_torch_pt_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);

#endif
