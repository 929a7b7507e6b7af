// SPDX-License-Identifier: MIT
/* Shared by all parts of the packer: progress, stop requests, skipped inputs. */
#include "data/packer_job.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

#define PROGRESS_NS 100000000

void bb_pack_report_progress(bb_pack_job *job) {
    const bb_pack_options *o = job->options;
    if (o->on_progress) o->on_progress(o->user, job->files_done, job->files_total, job->bytes_done);
    job->last_progress_ns = bb_clock_ns();
}

bb_status bb_pack_tick(bb_pack_job *job, bb_error *err) {
    if (job->options->stop && *job->options->stop) return bb_fail(err, BB_ERR_INTERRUPTED, "stopped");
    if (bb_clock_ns() - job->last_progress_ns >= PROGRESS_NS) bb_pack_report_progress(job);
    return BB_OK;
}

bb_status bb_pack_skip_input(bb_pack_job *job, const char *path, int64_t count, bb_status code, bb_error *err) {
    if (strcmp(path, "-") == 0) path = "standard input";
    if (job->options->strict) return bb_fail_prefix(err, code, "%s", path);
    job->result->skipped += count;
    if (job->options->on_skip) job->options->on_skip(job->options->user, path, err->message);
    if (job->skips_kept == BB_PACK_SKIPS_KEPT) return BB_OK;
    bb_pack_skip *skip = &job->skips[job->skips_kept++];
    *skip = (bb_pack_skip){strdup(path), strdup(err->message)};
    return skip->path && skip->reason ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory for the list of skipped inputs");
}
