// SPDX-License-Identifier: MIT
/* Identifies data by name, size and hashes of each file (the JSON object `data` of docs/FORMAT.md), so that a resumed run
 * notices changes. */
#ifndef BB_DATA_IDENTITY_H
#define BB_DATA_IDENTITY_H

#include <jansson.h>

#include "data/byte_source.h"

/* Hashes `blocks` blocks of each file (0: enough to read about 64 MB of all files together). Hashes of whole files come from
 * the manifest.json beside them, if it exists. The caller owns the reference *out. */
bb_status bb_data_identity(bb_byte_source *source, int64_t blocks, json_t **out, bb_error *err);
/* Returns the number of blocks hashed per file; 0: not an identity. */
int64_t bb_data_identity_blocks(const json_t *identity);
/* Returns whether both identify the same bytes in the same order, whatever the names of the files. If not, `changes` describes
 * the difference in one line. Both must have hashed the same number of blocks. */
bool bb_data_identity_same(const json_t *before, const json_t *now, char *changes, size_t size);

#endif
