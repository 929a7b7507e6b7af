// SPDX-License-Identifier: MIT
/* Identifies data, so that a resumed run notices when it has changed: name, size and hashes of each file, as the JSON object
 * `data` of docs/FORMAT.md. */
#ifndef BB_DATA_IDENTITY_H
#define BB_DATA_IDENTITY_H

#include <jansson.h>

#include "data/byte_source.h"

/* Hashes `blocks` blocks of each file (0: so many that about 64 MB are read of all files). Hashes of whole files come from
 * the manifest.json beside them, if there is one. *out is the caller's reference. */
bb_status bb_data_identity(bb_byte_source *source, int64_t blocks, json_t **out, bb_error *err);
/* The number of blocks hashed per file; 0: not an identity. */
int64_t bb_data_identity_blocks(const json_t *identity);
/* Whether both identify the same bytes in the same order, whatever the names of the files. If not, `changes` says in one line
 * what differs. Both must have hashed the same number of blocks. */
bool bb_data_identity_same(const json_t *before, const json_t *now, char *changes, size_t size);

#endif
