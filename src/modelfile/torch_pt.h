// SPDX-License-Identifier: MIT
/* Files of torch.save: a zip archive of a pickle and of storages. Tensors get the keys on the way to them as their name
 * ("model.tok_emb.weight"); metadata(KEY) is the JSON text of a value at the top. Nothing in the file is run. */
#ifndef BB_MODELFILE_TORCH_PT_H
#define BB_MODELFILE_TORCH_PT_H

#include "modelfile/tensor_source.h"

/* Whether the first bytes are those of such a file, of today's form or of the one before PyTorch 1.6, which is then refused. */
bool bb_torch_pt_matches(const uint8_t *head, size_t size);
/* Takes over `input`, also on failure. */
bb_status bb_torch_pt_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);

#endif
