// SPDX-License-Identifier: MIT
/* A snapshot: the model and the optimizer at one step, ready to be written. It is either a copy in host memory, or a view of
 * the live arrays, which must not change until the writer has read them.
 *
 * bb_snapshot_capture begins a snapshot on the training thread. bb_checkpoint_write (checkpoint_write.h) writes it, on any
 * thread if the snapshot is a copy or bb_snapshot_is_local; it completes the copy and calls bb_snapshot_release as soon as it
 * no longer needs the live arrays. The training thread calls bb_snapshot_wait before it changes them.
 *
 * If ranks share the optimizer's state, rank 0 has the snapshot and every other rank calls bb_checkpoint_contribute. The file
 * is the same as that of a run on one rank. */
#ifndef BB_TRAINING_CHECKPOINT_SNAPSHOT_H
#define BB_TRAINING_CHECKPOINT_SNAPSHOT_H

#include <pthread.h>

#include "training/checkpoint_state.h"
#include "training/checkpoint_tensors.h"

/* The fields are private to checkpoint_snapshot.c and checkpoint_write.c. */
typedef struct bb_snapshot {
    const bb_model *model;
    const bb_optimizer *optimizer; /* may be NULL */
    bb_device *device;
    bb_dist *dist; /* the ranks that share the optimizer's state; NULL: it is not shared */
    bb_checkpoint_tensor *list;
    bb_file_tensor *tensors; /* (count): the tensors of `list`, for the file */
    int count;
    bb_checkpoint_memory memory; /* the source of the data: the live arrays, or the copy */
    uint8_t *copy;               /* the parameters, then the state of each rank, laid out as on that rank; NULL: no copy */
    size_t copy_bytes;
    size_t *rank_offsets;     /* (ranks + 1): offsets in copy; rank r's state is from rank_offsets[r] to rank_offsets[r + 1] */
    bb_optimizer_slot *slots; /* state slots in the copy */
    char *config_text, *state_text, *data_text, *run_config_text;
    char length_text[16];
    pthread_mutex_t lock; /* protects released */
    pthread_cond_t changed;
    bool released; /* the live arrays may change */
} bb_snapshot;

/* model and optimizer (may be NULL) must outlive the snapshot. */
bb_status bb_snapshot_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_snapshot **out, bb_error *err);
void bb_snapshot_free(bb_snapshot *snapshot);

/* Captures the current step. model and optimizer must not change until bb_snapshot_release. state NULL: a model file without
 * training state. Copies the state with its texts, and the data on other ranks or in a device's own memory;
 * bb_snapshot_finish_copy copies the rest. */
bb_status bb_snapshot_capture(bb_snapshot *snapshot, const bb_training_state *state, bb_error *err);
/* Copies the data that capture did not copy, then releases the live arrays. Does nothing if the snapshot is not a copy. */
void bb_snapshot_finish_copy(bb_snapshot *snapshot);
/* Declares that the live arrays are no longer needed. */
void bb_snapshot_release(bb_snapshot *snapshot);
/* Waits until the live arrays may change. */
void bb_snapshot_wait(bb_snapshot *snapshot);

/* Rank 0 receives the state of other ranks in messages of this many bytes. */
enum { BB_SNAPSHOT_MESSAGE = 1 << 24 };

/* Returns the size of all tensors. */
uint64_t bb_snapshot_bytes(const bb_snapshot *snapshot);
/* Returns whether all tensors are in this process and in host memory, so that another thread can read them. */
bool bb_snapshot_is_local(const bb_model *model, const bb_optimizer *optimizer);
/* Returns whether a copy of this many bytes is small relative to the host's memory, so that it is made by default. */
bool bb_snapshot_copy_is_small(uint64_t bytes);

#endif
