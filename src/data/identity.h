// SPDX-License-Identifier: MIT
/* What data is, so that a resumed run notices other data: the name, size and hashes of each file. A JSON object, described in
 * docs/FORMAT.md under `data`. */
#ifndef BB_DATA_IDENTITY_H
#define BB_DATA_IDENTITY_H

#include <jansson.h>

#include "data/byte_source.h"

/* Hashes `blocks` blocks of each file (0: as many as make the whole some 64 MB), and takes hashes of whole files from the
 * manifest.json beside them, if there is one. *out is the caller's reference. */
bb_status bb_data_identity(bb_byte_source *source, int64_t blocks, json_t **out, bb_error *err);
/* How many blocks were hashed; 0: this is no identity. */
int64_t bb_data_identity_blocks(const json_t *identity);
/* Whether these are the same bytes in the same order, whatever the files are called. If not, `changes` says what differs, in one
 * line. Both hashed the same number of blocks. */
bool bb_data_identity_same(const json_t *before, const json_t *now, char *changes, size_t size);

#endif
