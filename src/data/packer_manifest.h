// SPDX-License-Identifier: MIT
/* manifest.json, the last file to appear: where it stands the pack is whole. */
#ifndef BB_DATA_PACKER_MANIFEST_H
#define BB_DATA_PACKER_MANIFEST_H

#include "core/file.h"
#include "data/packer_inputs.h"
#include "data/packer_shards.h"

/* Writes manifest.json up to its commit, which the caller makes once all the shards stand. */
bb_status bb_pack_write_manifest(const bb_pack_job *job, const bb_pack_inputs *inputs, const bb_pack_writer *shards,
                                 const bb_pack_writer *val_shards, bb_file_writer *out, bb_error *err);

#endif
