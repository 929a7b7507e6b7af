// SPDX-License-Identifier: MIT
/* One pack: its options, progress and result, shared by all parts of the packer. */
#ifndef BB_DATA_PACKER_JOB_H
#define BB_DATA_PACKER_JOB_H

#include "core/status.h"

typedef struct bb_pack_skip {
    char *path, *reason;
} bb_pack_skip;

enum { BB_PACK_SKIPS_KEPT = 1000 }; /* listed in the manifest; further ones are only counted */

/* Number of files in folders that were skipped because of one extension: lower case, without the dot; "" for none. */
typedef struct bb_pack_left_out {
    char ext[16];
    int64_t count;
} bb_pack_left_out;

enum { BB_PACK_EXTS_LEFT_OUT = 64 }; /* extensions counted separately; the last one is "other", for the rest */

typedef struct bb_pack_job {
    const bb_pack_options *options;
    bb_pack_result *result;
    bb_pack_skip skips[BB_PACK_SKIPS_KEPT];
    int skips_kept;
    bb_pack_left_out left_out[BB_PACK_EXTS_LEFT_OUT];
    int left_out_count;                          /* number of extensions */
    int64_t files_done, files_total, bytes_done; /* for progress reports */
    int64_t last_progress_ns;
} bb_pack_job;

/* Called between pieces of work: reports progress every 0.1 s, and returns BB_ERR_INTERRUPTED if the caller requests a stop. */
bb_status bb_pack_tick(bb_pack_job *job, bb_error *err);
/* Counts `count` inputs or records of `path` as skipped. The reason is in err, which does not name the path. With `strict`,
 * returns code instead, and prefixes the message with the path. */
bb_status bb_pack_skip_input(bb_pack_job *job, const char *path, int64_t count, bb_status code, bb_error *err);
/* Reports progress now. */
void bb_pack_report_progress(bb_pack_job *job);

#endif
