// SPDX-License-Identifier: MIT
/* Saves checkpoints of a run by a thread of its own, which copies everything first and writes the copy, or writes what it
 * reads. Training stands still only where it would change what is not copied or read yet: the next step's update, a whole
 * forward and backward pass later.
 *
 * The thread is a POSIX one: it waits for a disk for seconds, while OpenMP's threads are for loops that share the processors. A
 * forked child's copy-on-write would not go with threads, whose locks it would inherit. It reads host memory and writes files,
 * never uses the device, and gets none of the program's signals. A copy takes what parameters and moments take: where that is
 * more than an eighth of the memory, the thread reads the live arrays, since large models have long steps, in which a disk takes
 * as much. */
#ifndef BB_TRAINING_SAVER_H
#define BB_TRAINING_SAVER_H

#include "training/checkpoint.h"
#include "training/run_dir.h"

typedef struct bb_saver bb_saver;

/* Called by save, poll and wait, on the thread that calls them, when a checkpoint is whole and on disk. paused_seconds: how
 * long save and copied kept their callers waiting for it. seconds: from the call of save until it was on disk. */
typedef void (*bb_saver_saved)(void *user, int64_t step, const char *path, double paused_seconds, double seconds);

typedef enum bb_saver_way {
    BB_SAVER_WAITS, /* without the thread: save returns when all is on disk */
    BB_SAVER_READS, /* from what is trained; where the state is in this process's memory, else it waits */
    BB_SAVER_COPIES /* where there is memory for the copy, else it reads */
} bb_saver_way;

typedef struct bb_saver_options {
    bb_saver_way way; /* as asked for; bb_saver_way_used tells what came of it */
    bb_saver_saved on_saved;
    void *user;
} bb_saver_options;

/* model, optimizer and dir outlive the saver. */
bb_status bb_saver_create(const bb_model *model, const bb_optimizer *optimizer, const bb_run_dir *dir,
                          const bb_saver_options *options, bb_saver **out, bb_error *err);
bb_saver_way bb_saver_way_used(const bb_saver *saver);
/* Waits for the save that is being written, if there is one, and loses its result: wait first. */
void bb_saver_free(bb_saver *saver);
/* Bytes of a checkpoint's tensors: nearly all of the file. */
uint64_t bb_saver_checkpoint_bytes(const bb_saver *saver);
/* Saves the model and the optimizer as they are now; bb_saver_copied tells when they may change. A save that is still being
 * written is waited for first, and its failure returned: which checkpoints a run leaves does not depend on the speed of its
 * disk. */
bb_status bb_saver_save(bb_saver *saver, const bb_training_state *state, const bb_keep *keep, bb_error *err);
/* Waits until what is saved is copied, or read. */
void bb_saver_copied(bb_saver *saver);
/* The result of a save that has ended since the last call; BB_OK while there is none. */
bb_status bb_saver_poll(bb_saver *saver, bb_error *err);
/* The same, and waits for it. */
bb_status bb_saver_wait(bb_saver *saver, bb_error *err);

#endif
