// SPDX-License-Identifier: MIT
/* The directory that a pack writes to: its lock, and what an earlier pack left there. */
#ifndef BB_DATA_PACKER_DIR_H
#define BB_DATA_PACKER_DIR_H

#include "core/status.h"

#define BB_PACK_MANIFEST "manifest.json"

typedef enum bb_pack_name {
    BB_PACK_NAME_OTHER,  /* nothing of ours */
    BB_PACK_NAME_WHOLE,  /* shard_NNNNN.bin, val_NNNNN.bin, manifest.json */
    BB_PACK_NAME_PARTIAL /* the same, not yet whole */
} bb_pack_name;

bb_pack_name bb_pack_name_kind(const char *name);

typedef struct bb_pack_dir {
    const char *path;
    int lock;     /* held while the pack runs, or -1 */
    bool created; /* by us: goes away with a failed pack */
} bb_pack_dir;

/* Makes the directory where needed, takes its lock, refuses an earlier pack unless overwrite, and removes what an earlier pack
 * that was killed left half done. */
bb_status bb_pack_dir_open(const char *path, bool overwrite, bb_pack_dir *out, bb_error *err);
/* Removes every whole file of an earlier pack, the manifest first. */
bb_status bb_pack_dir_clear(const bb_pack_dir *dir, bb_error *err);
void bb_pack_dir_close(bb_pack_dir *dir, bool keep);

#endif
