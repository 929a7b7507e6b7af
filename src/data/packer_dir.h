// SPDX-License-Identifier: MIT
/* The output directory of a pack: its lock, and the files of a previous pack. */
#ifndef BB_DATA_PACKER_DIR_H
#define BB_DATA_PACKER_DIR_H

#include "core/status.h"

#define BB_PACK_MANIFEST "manifest.json"

typedef enum bb_pack_name {
    BB_PACK_NAME_OTHER,  /* not a file of a pack */
    BB_PACK_NAME_WHOLE,  /* shard_NNNNN.bin, val_NNNNN.bin, manifest.json */
    BB_PACK_NAME_PARTIAL /* the same, incomplete */
} bb_pack_name;

bb_pack_name bb_pack_name_kind(const char *name);

typedef struct bb_pack_dir {
    const char *path;
    int lock;     /* held while the pack runs, or -1 */
    bool created; /* by this pack, which removes it on failure */
} bb_pack_dir;

/* Creates the directory if necessary and locks it. Fails if it holds a previous pack, unless overwrite. Removes incomplete
 * files left by a pack that was killed. */
bb_status bb_pack_dir_open(const char *path, bool overwrite, bb_pack_dir *out, bb_error *err);
/* Removes all files of a previous pack, the manifest first. */
bb_status bb_pack_dir_clear(const bb_pack_dir *dir, bb_error *err);
void bb_pack_dir_close(bb_pack_dir *dir, bool keep);

#endif
