// SPDX-License-Identifier: MIT
/* Saves checkpoints of a run on a background thread: bb_saver_save captures a snapshot (checkpoint_snapshot.h), and the thread
 * writes it (checkpoint_write.h) while training continues. Training blocks only when it would change data that has not been
 * copied or read yet: at the next step's update, after a whole forward and backward pass.
 *
 * A snapshot takes as much memory as the parameters and moments. If that is more than an eighth of the host's memory, the
 * thread writes from the live arrays instead: large models have long steps, so the disk can keep up.
 *
 * Why a POSIX thread: it waits for a disk for seconds, while OpenMP's threads are for loops that share the processors. A forked
 * child (copy-on-write) would inherit locks of threads that it does not have. The thread reads host memory and writes files; it
 * never uses the device, and all signals are blocked in it. */
#ifndef BB_TRAINING_SAVER_H
#define BB_TRAINING_SAVER_H

#include "training/checkpoint_snapshot.h"
#include "training/run_dir.h"

typedef struct bb_saver bb_saver;

/* Called by save, poll and wait, on the caller's thread, when a checkpoint is complete and on disk. paused_seconds: how long
 * save and wait_snapshot blocked for it. seconds: from the call of save until it was on disk. */
typedef void (*bb_saver_saved)(void *user, int64_t step, const char *path, double paused_seconds, double seconds);

typedef enum bb_saver_mode {
    BB_SAVER_SYNC,    /* no thread: save returns when the file is on disk */
    BB_SAVER_LIVE,    /* the thread writes from the live arrays; falls back to SYNC if it cannot read them */
    BB_SAVER_SNAPSHOT /* the thread writes from a copy; falls back to LIVE where there is no memory for one */
} bb_saver_mode;

typedef struct bb_saver_options {
    bb_saver_mode mode; /* as requested; bb_saver_mode_used returns the one in use */
    bb_saver_saved on_saved;
    void *user;
} bb_saver_options;

/* Returns the mode that these options request. bytes: size of a checkpoint. shared_out: parts of it are on other ranks, where
 * this rank's thread cannot read them, so that a copy is better. */
bb_saver_mode bb_saver_mode_for(const bb_train_options *options, uint64_t bytes, bool shared_out);

/* model, optimizer and dir must outlive the saver. */
bb_status bb_saver_create(const bb_model *model, const bb_optimizer *optimizer, const bb_run_dir *dir,
                          const bb_saver_options *options, bb_saver **out, bb_error *err);
bb_saver_mode bb_saver_mode_used(const bb_saver *saver);
/* Waits for a save in progress and discards its result: call bb_saver_wait first. */
void bb_saver_free(bb_saver *saver);
/* Returns the size of a checkpoint's tensors, which is nearly all of the file. */
uint64_t bb_saver_checkpoint_bytes(const bb_saver *saver);
/* Saves the current model and optimizer, which may change after bb_saver_wait_snapshot. First waits for a save in progress, and
 * returns its failure: which checkpoints a run leaves must not depend on the speed of its disk. */
bb_status bb_saver_save(bb_saver *saver, const bb_training_state *state, const bb_retention *keep, bb_error *err);
/* Waits until the model and the optimizer may change. */
void bb_saver_wait_snapshot(bb_saver *saver);
/* Returns the result of a save that has ended since the last call, or BB_OK. */
bb_status bb_saver_poll(bb_saver *saver, bb_error *err);
/* Waits for the save in progress, and returns its result. */
bb_status bb_saver_wait(bb_saver *saver, bb_error *err);

#endif
