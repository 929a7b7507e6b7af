// SPDX-License-Identifier: MIT
/* manifest.json, the last file to be written: if it exists, the pack is complete. */
#ifndef BB_DATA_PACKER_MANIFEST_H
#define BB_DATA_PACKER_MANIFEST_H

#include "core/file.h"
#include "data/packer_inputs.h"
#include "data/packer_shards.h"

/* Writes manifest.json. The caller commits it after all shards have their final names. */
bb_status bb_pack_write_manifest(const bb_pack_job *job, const bb_pack_inputs *inputs, const bb_pack_writer *shards,
                                 const bb_pack_writer *val_shards, bb_file_writer *out, bb_error *err);

#endif
